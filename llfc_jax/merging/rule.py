"""What a merge rule is: its options, what it reads of whole models, and how it merges one leaf."""

import abc
import dataclasses
import math
import zlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from llfc_jax import fields
from llfc_jax.errors import ConfigError, MergeError
from llfc_jax.types import AnyArray, Variables

if TYPE_CHECKING:
    from llfc_jax.merging.inputs import MergeInputs

Scope = Literal["leaf", "model"]
"""What a norm or a quantile is taken over: each leaf alone, or all leaves of a model."""

BLOCK = 1 << 19  # entries of a leaf that go through a rule at once, on the host
CHUNK = 1 << 20  # entries that are widened to float64 at a time


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One leaf of the models, or a block of its entries, as a rule sees it.

    Attributes:
        name: its path.
        models: the leaf in each model that has it, in float32 or wider.
        holders: which models these are, by their place in the list.
        base: the leaf in the base, where the rule needs one.
        statistics: what the rule needs to know of the leaf, for each of `models`; None where
            there is nothing for this leaf.
        block: which block of the leaf's entries it is, flat; None for the whole leaf in its shape.
        masked: where all models hold the same infinity, which stands as 0 here; None for nowhere.
        xp: NumPy where all arrays lie in the memory of a CPU, else `jax.numpy`.
    """

    name: str
    models: tuple[Any, ...]
    holders: tuple[int, ...]
    base: Any = None
    statistics: tuple[Any, ...] | None = None
    block: int | None = None
    masked: Any = None
    xp: ModuleType = np

    @property
    def tasks(self) -> list[Any]:
        """The task vectors τ_i = θ_i - θ_0."""
        return [model - self.base for model in self.models]

    def draw_uniform(self, seed: int, holder: int) -> Any:
        """Returns random numbers in [0, 1) in the leaf's shape, for one model.

        They depend on the seed, the leaf's path and the model's place alone: not on the other
        leaves, on their order, or on the library that computes.
        """
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(self.name.encode()))
        key = jax.random.fold_in(key, holder)
        shape = np.shape(self.models[0])
        size = math.prod(shape)
        sizes = [min(BLOCK, size - at) for at in range(0, max(size, 1), BLOCK)]
        drawn = [jax.random.uniform(jax.random.fold_in(key, (self.block or 0) + i), (count,))
                 for i, count in enumerate(sizes)]  # fmt: skip
        return self.xp.concatenate([self.xp.asarray(part) for part in drawn]).reshape(shape)

    def gram(self, centred: bool = False) -> Float[AnyArray, "models models"]:
        """Returns the inner products <θ_i, θ_j>, in float64 on the host.

        Args:
            centred: whether they are those of θ_i - θ_1; between models that lie close together,
                distances keep their digits so.
        """
        models = [model - self.models[0] for model in self.models] if centred else self.models
        flat = [self.xp.reshape(model, -1) for model in models]
        if self.xp is jnp:
            return jnp.array([[jnp.vdot(p, q) for q in flat] for p in flat])
        total = np.zeros((len(flat), len(flat)))
        for start in range(0, flat[0].size, CHUNK):
            part = np.stack([p[start : start + CHUNK] for p in flat], dtype=np.float64)
            total += part @ part.T
        return total


@dataclasses.dataclass(frozen=True)
class Rule(abc.ABC):
    """Base of every merge rule: a frozen dataclass of the rule's own options.

    Attributes:
        name: its name in `RULES`; set by the registry.
        needs_base: whether it merges task vectors, the differences to a base.
        needs_statistics: what it needs to know of each model beside its weights ("" for nothing).
        takes_complex: whether it is defined on complex leaves.
        ranges: the least and the largest value of options that have a range.
    """

    name: ClassVar[str] = ""
    needs_base: ClassVar[bool] = False
    needs_statistics: ClassVar[str] = ""
    takes_complex: ClassVar[bool] = False
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {}

    def __post_init__(self) -> None:
        """Checks type and range of every option; those that `search` traces pass unchecked.

        Raises:
            MergeError: one line that says which option is wrong.
        """
        for option, hint in fields.hints(type(self)).items():
            value = getattr(self, option)
            if isinstance(value, jax.Array):
                continue
            try:
                value = fields.convert(value, hint, f"merge rule {self.name!r}: {option}")
            except ConfigError as error:
                raise MergeError(str(error)) from None
            object.__setattr__(self, option, value)
            low, high = self.ranges.get(option, (-np.inf, np.inf))
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float) and not math.isfinite(number):
                    raise MergeError(f"merge rule {self.name!r}: {option} must be finite")
                if isinstance(number, float) and not low <= number <= high:
                    raise MergeError(
                        f"merge rule {self.name!r}: {option} must lie between {low:g} and "
                        f"{high:g}, not {number:g}"
                    )

    def __str__(self) -> str:
        """Returns its name, with the numbers and words among its options that were changed."""
        changed = [
            f"{field.name}={value:g}" if isinstance(value, float) else f"{field.name}={value}"
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
            and isinstance(value, (bool, int, float, str, tuple))
        ]
        return f"{self.name}({', '.join(changed)})" if changed else self.name

    @property
    def described(self) -> str:
        """Its words, for records."""
        return str(self)

    def check(self, count: int) -> None:
        """Checks that the rule takes this number of models.

        Raises:
            MergeError: it does not.
        """
        if not count:
            raise MergeError("there is no model to merge; pass a list of variables")

    def check_statistics(  # noqa: B027
        self, name: str, shapes: Sequence[tuple[int, ...]], statistics: Sequence[Any]
    ) -> None:
        """Checks what is known of a leaf in each model (None for nothing), given its shapes.

        Raises:
            MergeError: it does not fit the leaf.
        """

    @abc.abstractmethod
    def merge(self, models: "MergeInputs") -> Variables:
        """Returns one model made of several, with the first one's structure and types."""


class LeafRule(Rule):
    """Base of the rules that merge one leaf at a time.

    What a rule has to know beyond the entry that it merges (a norm, a quantile) it gathers in
    `survey`, in passes of their own over the leaves: over each leaf alone just before it is
    merged, or once over the whole models.

    Attributes:
        scope: "leaf" for a survey of each leaf, "model" for one of whole models.
        whole_leaves: whether it needs leaves in their shape; else they come in blocks.
    """

    scope: Scope = "leaf"
    whole_leaves: ClassVar[bool] = False

    def survey(self, models: "MergeInputs") -> Any:
        """Returns what `merge_leaf` needs to know beyond a leaf's entries; None for nothing.

        Args:
            models: with one leaf, or with all, as the scope says.
        """
        return None

    @abc.abstractmethod
    def merge_leaf(self, leaf: Leaf, survey: PyTree) -> Any:
        """Returns the merged leaf, in the type of what the rule is given."""

    def merge(self, models: "MergeInputs") -> Variables:
        """Returns one model made of several, with the first one's structure and types."""
        return models.build(self)


def combine(leaf: Leaf, weights: Sequence[Any]) -> Any:
    """Returns Σ w_i θ_i, as (Σ w_i) θ_1 + Σ w_i (θ_i - θ_1): equal models give just that model."""
    if leaf.xp is np:
        weights = [float(weight) for weight in weights]
    first, *rest = leaf.models
    total = sum(weights[1:], start=weights[0])
    result = first * total if leaf.xp is jnp or abs(total - 1) > 1e-12 else first
    for weight, model in zip(weights[1:], rest, strict=True):
        result = result + weight * (model - first)
    return result
