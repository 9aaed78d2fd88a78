"""Rules on task vectors τ_i = θ_i - θ_0, the differences of fine-tuned models to their base."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import jax
import numpy as np
from jaxtyping import PyTree

from llfc_jax.errors import MergeError
from llfc_jax.merging.averages import check_per_model
from llfc_jax.merging.quantiles import find_thresholds
from llfc_jax.merging.registry import merge_rule
from llfc_jax.merging.rule import Leaf, LeafRule, Scope
from llfc_jax.types import AnyArray

if TYPE_CHECKING:
    from llfc_jax.merging.inputs import MergeInputs

Range = Mapping[str, tuple[float, float]]


@merge_rule("task_arithmetic")
@dataclasses.dataclass(frozen=True)
class TaskArithmetic(LeafRule):
    """Adds the task vectors to the base: θ = θ_0 + Σ λ_i τ_i.

    Source: Ilharco et al., "Editing models with task arithmetic", ICLR 2023.

    Attributes:
        scale: λ, one number for all models or one for each; a negative one takes a task away. The
            paper finds 0.3 to 0.5 good for several tasks, so choose it on held-out data
            (`search`).
    """

    scale: float | tuple[float, ...] = 1.0

    needs_base: ClassVar[bool] = True
    takes_complex: ClassVar[bool] = True

    def check(self, count: int) -> None:
        """Checks that there is one λ, or one for each model."""
        super().check(count)
        if isinstance(self.scale, tuple) or np.ndim(self.scale):
            check_per_model(self, "scale", self.scale, count)

    def merge_leaf(self, leaf: Leaf, survey: PyTree) -> Any:
        """Returns θ_0 + Σ λ_i τ_i."""
        each = isinstance(self.scale, tuple) or np.ndim(self.scale)
        scale: Any = self.scale
        scales = [scale[i] if each else scale for i in leaf.holders]
        return leaf.base + sum(s * task for s, task in zip(scales, leaf.tasks, strict=True))


def elect(tasks: Sequence[Any], xp: ModuleType) -> Any:
    """Returns the mean of task vectors over those whose sign is that of their sum, per entry.

    TIES calls it electing the sign and merging disjointly; 0 where the sum is 0.
    """
    signs = xp.sign(sum(tasks))
    agree = [task * signs > 0 for task in tasks]
    total = sum(of * task for of, task in zip(agree, tasks, strict=True))
    return total / xp.maximum(sum(agree, start=0 * total), 1)


class TrimmingRule(LeafRule):
    """Base of the rules that keep entries of a task vector by the rank of their magnitude.

    Attributes:
        scope: "leaf" ranks the entries of each leaf alone, "model" those of the whole model.
    """

    needs_base: ClassVar[bool] = True

    def ranks(self, size: int) -> Sequence[Any]:
        """Returns the ranks of the magnitudes between which entries are kept, in a task vector.

        Args:
            size: its number of entries; the largest has rank 1.
        """
        raise NotImplementedError

    def survey(self, models: "MergeInputs") -> list[list[Any]]:
        """Returns the magnitudes at these ranks: [model][rank]."""
        return find_thresholds(models, self.ranks)


def _share(share: Any, size: int) -> Any:
    """Returns round(share * size), halves up; the share may be traced."""
    count = share * size + 0.5
    return count.astype(int) if isinstance(count, jax.Array) else int(count)


@merge_rule("ties")
@dataclasses.dataclass(frozen=True)
class Ties(TrimmingRule):
    """Trims the task vectors, elects a sign per entry, and averages those that agree with it.

    With τ̂_i the `density` largest entries of τ_i by magnitude, γ = sign(Σ τ̂_i), and per entry

        θ = θ_0 + λ mean{τ̂_i : sign τ̂_i = γ}.

    Source: Yadav et al., "TIES-Merging: Resolving interference when merging models", NeurIPS 2023.

    Attributes:
        density: the share of entries of each τ_i that are kept (ties at the threshold all stay).
        scale: λ.
        scope: "model" ranks the entries of a whole model, as in the paper; "leaf" those of a
            leaf.
    """

    density: float = 0.2
    scale: float = 1.0
    scope: Scope = "model"

    ranges: ClassVar[Range] = {"density": (0, 1)}

    def ranks(self, size: int) -> Sequence[Any]:
        """Returns the rank of the least entry that is kept."""
        return (_share(self.density, size),)

    def merge_leaf(self, leaf: Leaf, survey: PyTree) -> Any:
        """Returns θ_0 + λ times the elected mean of the trimmed task vectors."""
        limits = [survey[i] for i in leaf.holders]
        tasks = [task * (abs(task) >= limit)
                 for task, (limit,) in zip(leaf.tasks, limits, strict=True)]  # fmt: skip
        return leaf.base + self.scale * elect(tasks, leaf.xp)


@merge_rule("breadcrumbs")
@dataclasses.dataclass(frozen=True)
class Breadcrumbs(TrimmingRule):
    """Adds the task vectors without their smallest and their largest entries.

    θ = θ_0 + λ Σ m_i τ_i, where the mask m_i leaves out the `drop_small` smallest and the
    `drop_large` largest entries of τ_i by magnitude, layer by layer.

    Source: Davari and Belilovsky, "Model breadcrumbs: Scaling multi-task model merging with sparse
    masks", ECCV 2024.

    Attributes:
        drop_small: share of entries left out at the small end, β in the paper.
        drop_large: share left out at the large end, the outliers; 1 - γ in the paper.
        scale: λ, α in the paper.
        scope: "leaf" ranks the entries of each leaf, as in the paper; "model" those of a whole
            model.
    """

    drop_small: float = 0.85
    drop_large: float = 0.01
    scale: float = 0.3
    scope: Scope = "leaf"

    ranges: ClassVar[Range] = {"drop_small": (0, 1), "drop_large": (0, 1)}

    def ranks(self, size: int) -> Sequence[Any]:
        """Returns the ranks of the least and of the largest entry that are kept."""
        return size - _share(self.drop_small, size), _share(self.drop_large, size) + 1

    def merge_leaf(self, leaf: Leaf, survey: PyTree) -> Any:
        """Returns θ_0 + λ Σ m_i τ_i."""
        limits = [survey[i] for i in leaf.holders]
        kept = [task * ((abs(task) >= low) & (abs(task) <= high))
                for task, (low, high) in zip(leaf.tasks, limits, strict=True)]  # fmt: skip
        return leaf.base + self.scale * sum(kept)


@merge_rule("dare")
@dataclasses.dataclass(frozen=True)
class Dare(LeafRule):
    """Drops entries of the task vectors at random, and rescales the rest.

    τ̂_i = m_i τ_i / (1 - p), where each entry of m_i is 0 with probability p, so that τ̂_i is τ_i
    in expectation; then θ = θ_0 + λ Σ τ̂_i, or λ times the elected mean of TIES.

    Source: Yu et al., "Language models are super Mario: Absorbing abilities from homologous models
    as a free lunch", ICML 2024.

    Attributes:
        drop: p, the probability that an entry is dropped.
        scale: λ.
        seed: of the masks. They depend on the leaf's path and the model's place in the list.
        combine: "sum", or "elect" for the sign election of TIES.
    """

    drop: float = 0.9
    scale: float = 1.0
    seed: int = 0
    combine: Literal["sum", "elect"] = "sum"

    needs_base: ClassVar[bool] = True
    ranges: ClassVar[Range] = {"drop": (0, 1)}

    def __post_init__(self) -> None:
        """Checks the options; a drop of 1 would leave nothing to rescale."""
        super().__post_init__()
        if isinstance(self.drop, float) and self.drop == 1:
            raise MergeError("merge rule 'dare': drop must be below 1, or nothing is left to merge")

    def merge_leaf(self, leaf: Leaf, survey: PyTree) -> Any:
        """Returns θ_0 + λ Σ τ̂_i, or with the elected mean."""
        tasks = []
        for holder, task in zip(leaf.holders, leaf.tasks, strict=True):
            kept = leaf.draw_uniform(self.seed, holder) >= self.drop
            tasks.append(kept * (task / (1 - self.drop)))
        return leaf.base + self.scale * (
            elect(tasks, leaf.xp) if self.combine == "elect" else sum(tasks)
        )


@merge_rule("della")
@dataclasses.dataclass(frozen=True)
class Della(LeafRule):
    """Drops entries of the task vectors at random, small ones more often, and elects a sign.

    In each row of n entries the r-th largest magnitude (r = 0, 1, ...) is dropped with probability
    p_r = p - ε/2 + ε r / n, and divided by 1 - p_r where it stays (MagPrune); then θ = θ_0 + λ
    times the elected mean of TIES.

    Source: Deep, Bhardwaj and Poria, "DELLA-Merging: Reducing interference in model merging through
    magnitude-based sampling", 2024.

    Attributes:
        drop: p, the mean probability that an entry is dropped.
        spread: ε, the difference between the largest and the smallest probability.
        scale: λ.
        seed: of the masks. They depend on the leaf's path and the model's place in the list.
        axis: the axis along which a row's entries lie, the inputs of a unit: 0 for kernels [in,
            out] as Flax has them, -1 for PyTorch's; None ranks each leaf as one row.
    """

    drop: float = 0.5
    spread: float = 0.2
    scale: float = 1.0
    seed: int = 0
    axis: int | None = None

    needs_base: ClassVar[bool] = True
    whole_leaves: ClassVar[bool] = True
    ranges: ClassVar[Range] = {"drop": (0, 1), "spread": (0, 1)}

    def __post_init__(self) -> None:
        """Checks the options, and that all probabilities are some, below 1."""
        super().__post_init__()
        if isinstance(self.drop, float) and isinstance(self.spread, float):
            least, most = self.drop - self.spread / 2, self.drop + self.spread / 2
            if least < 0 or most > 1 or least == 1:
                raise MergeError(
                    f"merge rule 'della': probabilities from {least:g} to {most:g} must lie in "
                    "[0, 1); change drop, or lower spread"
                )

    def merge_leaf(self, leaf: Leaf, survey: PyTree) -> Any:
        """Returns θ_0 + λ times the elected mean of the pruned task vectors."""
        tasks = [self._prune(leaf, holder, task)
                 for holder, task in zip(leaf.holders, leaf.tasks, strict=True)]  # fmt: skip
        return leaf.base + self.scale * elect(tasks, leaf.xp)

    def _prune(self, leaf: Leaf, holder: int, task: AnyArray) -> Any:
        xp, shape = leaf.xp, task.shape
        axis = self.axis
        rows = task.reshape(-1) if axis is None or not -task.ndim <= axis < task.ndim else task
        axis = -1 if rows.ndim != task.ndim or axis is None else axis
        order = xp.argsort(-abs(rows), axis=axis, stable=True)
        rank = xp.argsort(order, axis=axis).reshape(shape).astype(task.dtype)
        drop = self.drop - self.spread / 2 + self.spread * rank / max(rows.shape[axis], 1)
        kept = leaf.draw_uniform(self.seed, holder) >= drop
        return xp.where(kept, task / xp.where(kept, 1 - drop, 1), 0)
