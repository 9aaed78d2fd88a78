"""What the experiment and the report need to know of a measure, in one entry each."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llfc_jax.graph import Apply
from llfc_jax.measures.accumulate import Batches, Progress
from llfc_jax.measures.evaluator import ALPHAS
from llfc_jax.parallel.loops import AlphaLoop
from llfc_jax.results import Result, Section


@dataclasses.dataclass(frozen=True)
class Setup:
    """A pair, the data, and how to measure: what every measure is called with.

    Attributes:
        apply: `apply(variables, x) -> logits`.
        a: the mode that α multiplies.
        b: the other mode.
        batches: data that is measured on.
        train_batches: data for renormalising.
        alphas: points on the line.
        outside: allows α outside [0, 1].
        sites: kinds or name patterns of the sites that are read (see `Graph.select`).
        over: how the loop over α runs; chosen if None.
        renormalise: "none", "reset" or "repair".
        progress: called as (done, total, words).
    """

    apply: Apply
    a: Any
    b: Any
    batches: Batches
    train_batches: Batches | None = None
    alphas: Sequence[float] = ALPHAS
    outside: bool = False
    sites: str | Sequence[str] = ("linear", "relu")
    over: AlphaLoop | None = None
    renormalise: str = "none"
    progress: Progress | None = None

    @property
    def line_options(self) -> dict[str, Any]:
        """What `line` takes besides the pair, the data and the grid."""
        names = ("outside", "over", "renormalise", "train_batches", "progress")
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class Measure:
    """An entry in the list of measures.

    Attributes:
        run: measures a pair.
        section: the report's words and charts.
        headline: the numbers that stand for a result in the summary: column -> value.
        columns: what the summary calls them: column -> heading.
        splits: the splits that it is measured on unless the config says otherwise.
    """

    run: Callable[[Setup], Result]
    section: Section
    headline: Callable[[Any], Mapping[str, Any]]
    columns: Mapping[str, str]
    splits: tuple[str, ...] = ("test",)

    @property
    def name(self) -> str:
        """Its name in the config, and of its files."""
        return self.section.name
