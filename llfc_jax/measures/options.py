"""All options of a measurement in one object: built once, checked once, passed whole."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from llfc_jax import fields, tasks
from llfc_jax.errors import ConfigError, ModeError, unknown
from llfc_jax.parallel.loops import AlphaLoop
from llfc_jax.tasks import Task

ALPHAS = tuple(i / 10 for i in range(11))
SPLITS = ("train", "test", "task_a", "task_b")
RENORMALISATIONS = ("none", "reset", "repair")

Precision = Literal["highest", "high", "default"]
Per = Literal["sample", "token"]


@dataclasses.dataclass(frozen=True)
class EvalOptions:
    """How a pair is measured; checked when it is made.

    Attributes:
        alphas: points on the line; α multiplies a. In rising order, each once.
        extrapolate: allows α outside [0, 1].
        sites: kinds ("linear", "activation", "module", "all"), activation functions ("relu",
            ...) or name patterns of the layers whose features are read.
        alpha_loop: how the loop over α runs: "vmap", "map" or "unroll"; chosen by network and
            backend if None.
        renormalise: "none", "reset" (BatchNorm's statistics anew) or "repair".
        splits: some of "train" and "test", and for fine-tuned pairs "task_a" and "task_b", what
            each mode was fine-tuned on; None lets each measure choose its own.
        batch_size: samples at a time, where data are arrays; results do not depend on it.
        precision: of float32 products on accelerators ("highest": full float32).
        task: how outputs are judged: a `llfc_jax.tasks.Task`, or the name of one ("tokens",
            "regression", ...), or `{"name": name, option: value}`.
        per: whether features are compared sample by sample, all tokens of a sample together
            ("sample"), or token by token ("token"); padding never counts.
        measure_options: a measure's own options: measure -> option -> value.

    Raises:
        ConfigError: a value of the wrong type, or a name that there is not; the line names the
            field.
        ModeError: a grid of α that is none.
    """

    alphas: tuple[float, ...] = ALPHAS
    extrapolate: bool = False
    sites: tuple[str, ...] = ("linear", "activation")
    alpha_loop: AlphaLoop | None = None
    renormalise: str = "none"
    splits: tuple[str, ...] | None = None
    batch_size: int = 500
    precision: Precision = "highest"
    task: Task = dataclasses.field(default_factory=tasks.classification)
    per: Per = "sample"
    measure_options: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks and normalises every field."""
        sites = (self.sites,) if isinstance(self.sites, str) else self.sites
        object.__setattr__(self, "sites", sites)
        object.__setattr__(self, "task", tasks.build(self.task))
        for what, name, known in (
            ("alpha_loop", self.alpha_loop, (None, *get_args(AlphaLoop))),
            ("precision", self.precision, get_args(Precision)),
            ("per", self.per, get_args(Per)),
            ("renormalisation", self.renormalise, RENORMALISATIONS),
            *(("split", split, SPLITS) for split in self.splits or ()),
        ):
            if name not in known:
                raise ConfigError(unknown(what, name, [k for k in known if k]))
        object.__setattr__(
            self, "alphas", check_alphas(self.alphas, extrapolate=bool(self.extrapolate))
        )
        for name, hint in fields.hints(type(self)).items():
            object.__setattr__(self, name, fields.convert(getattr(self, name), hint, name))
        if not self.sites:
            raise ConfigError("sites is empty; name kinds or layers")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, not {self.batch_size}")


def check_alphas(alphas: Sequence[float], *, extrapolate: bool = False) -> tuple[float, ...]:
    """Returns the grid as floats in rising order, each once.

    Raises:
        ModeError: an empty grid, a number that is not finite, or one outside [0, 1] without
            `extrapolate=True`.
    """
    try:
        grid = tuple(sorted({float(alpha) for alpha in alphas}))
    except (TypeError, ValueError) as error:
        raise ModeError(f"alphas must be numbers, not {alphas!r}") from error
    if not grid:
        raise ModeError("the grid of alphas is empty; give at least one in [0, 1]")
    if not np.isfinite(grid).all():
        raise ModeError(f"alphas must be finite, not {alphas!r}")
    if not extrapolate and not (grid[0] >= 0 and grid[-1] <= 1):
        raise ModeError(f"alphas lie outside [0, 1]: {grid[0]} to {grid[-1]}; set extrapolate=True")
    return grid
