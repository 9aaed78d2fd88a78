"""What a measure is: its own options, what it reads from a batch, and what it makes of the sums."""

import abc
import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import PyTree

from llfc_jax import fields
from llfc_jax.graph import Graph
from llfc_jax.measures.batch import PairBatch, Reading
from llfc_jax.measures.options import EvalOptions
from llfc_jax.report.charts import Section
from llfc_jax.results import Result
from llfc_jax.tasks import Task
from llfc_jax.types import AnyArray

MIDDLE = 0.5  # the α at which verdicts and summary numbers stand


@dataclasses.dataclass(frozen=True)
class Totals:
    """What one pass over the data gives a measure; arrays are NumPy float64.

    Attributes:
        graph: the network's trace.
        task: how outputs are judged.
        plan: what `Measure.plan` chose.
        alphas: the measure's grid.
        samples: number of rows of features: of samples, or of tokens.
        sums: `Reading.sums` of all samples.
        on_grid: `Reading.on_grid` of all samples, stacked along the measure's grid.
        on_line: `Reading.on_line` of all samples, stacked likewise.
        renormalise: the kind of renormalisation.
        weights: names of linear sites -> (a's weight, b's) of each.
    """

    graph: Graph
    task: Task
    plan: Any
    alphas: tuple[float, ...]
    samples: int
    sums: Any
    on_grid: Any
    on_line: Any
    renormalise: str
    weights: Callable[[Sequence[str]], list[tuple[np.ndarray, np.ndarray]]]


@dataclasses.dataclass(frozen=True)
class Measure(abc.ABC):
    """Base of every measure: a frozen dataclass of the measure's own options.

    A measure is hashable, since compiled programs take it as a static argument. What it needs of
    a batch it reads in `read`, under `jit`; what it reads there is summed over the data and comes
    back in `finish`, on the host.

    Attributes:
        name: its name in the config, and of its files; set by the registry.
        section: the report's words and charts.
        result_type: what `finish` returns; set by the registry.
        columns: what the summary calls the numbers of `summary_metrics`: column -> heading.
        other_columns: the same of numbers that only some tasks have.
        splits: the splits that it is measured on unless the options say otherwise.
        always: α that are measured whatever the grid, since numbers of the summary stand there.
        uses: the fields of `EvalOptions` that bear on it.
        by_default: whether it is taken where no measures are named.
        refuses: the fields of `EvalOptions` that must keep their default, and why: field -> why.
    """

    name: ClassVar[str] = ""
    section: ClassVar[Section]
    result_type: ClassVar[type[Result]]
    columns: ClassVar[Mapping[str, str]]
    other_columns: ClassVar[Mapping[str, str]] = {}
    splits: ClassVar[tuple[str, ...]] = ("test",)
    always: ClassVar[tuple[float, ...]] = ()
    uses: ClassVar[frozenset[str]]
    by_default: ClassVar[bool] = True
    refuses: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        """Checks and normalises the type of every field."""
        for name, hint in fields.hints(type(self)).items():
            value = fields.convert(getattr(self, name), hint, f"{self.name}: {name}")
            object.__setattr__(self, name, value)

    def plan(self, graph: Graph, options: EvalOptions) -> Hashable:
        """Returns what is to be read of this network: the names of sites, as a rule.

        Raises:
            LlfcError: the network has nothing that the measure could read.
        """
        return ()

    def parts(self, graph: Graph, plan: Any) -> tuple[Any, ...]:
        """Returns the plan in parts, where it is too large for one program; see `join`."""
        return (plan,)

    def join(self, sums: Sequence[PyTree]) -> PyTree:
        """Returns the sums of the whole plan from those of its parts."""
        return sums[0]

    def grid(self, alphas: Sequence[float]) -> tuple[float, ...]:
        """Returns the measure's α: the given ones, and `always`, in rising order."""
        return tuple(sorted({*alphas, *self.always}))

    @abc.abstractmethod
    def read(self, batch: PairBatch, plan: Any) -> Reading:
        """Returns what the measure reads from a batch."""

    @abc.abstractmethod
    def finish(self, totals: Totals) -> Result:
        """Returns the result from the sums over all samples."""

    @abc.abstractmethod
    def summary_metrics(self, result: Any) -> Mapping[str, Any]:
        """Returns the numbers that stand for a result in the summary: column -> value."""

    def join_splits(self, metrics: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Returns the summary's numbers from those of every split; the last split's, mostly."""
        return metrics[-1]


def by_layer(stacked: AnyArray) -> np.ndarray:
    """Returns [alphas, layers], as kernels stack it, as [layers, alphas]."""
    return np.asarray(stacked).T


def middle_of(alphas: Sequence[float]) -> int:
    """Returns where ½ stands in a grid."""
    return list(alphas).index(MIDDLE)
