"""Asking: every pair aligned in every way, and every measure taken of it.

Both the experiment, of the pairs that it trains, and `llfc_jax.study`, of those that users bring,
ask here. What the store holds already is used again.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import jax

from llfc_jax import matching, symmetry
from llfc_jax.experiments.settings import UNALIGNED, Questions
from llfc_jax.experiments.study_result import Aligned, Study, columns
from llfc_jax.experiments.verdicts import words
from llfc_jax.experiments.workdir import Nowhere, Workdir
from llfc_jax.frameworks import Network
from llfc_jax.graph import trace
from llfc_jax.io import Row, nan_for_none
from llfc_jax.measures import MEASURES, Setup
from llfc_jax.measures import renormalise as renorm
from llfc_jax.measures.accumulate import Batches, Progress, padded
from llfc_jax.measures.evaluator import check_logits
from llfc_jax.pair import check_pair
from llfc_jax.parallel import multihost
from llfc_jax.parallel.sharding import on_one_device

MATCHING_STREAM = 7  # folded into the seed's key for whatever randomness a matching method needs


class Modes(Protocol):
    """Two modes of one network under a name; `training.Pair` is one."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def a(self) -> Any: ...  # noqa: D102
    @property
    def b(self) -> Any: ...  # noqa: D102
    @property
    def diverged(self) -> str | None: ...  # noqa: D102


@dataclasses.dataclass(frozen=True)
class Two:
    """Two modes that a user brought."""

    name: str
    a: Any
    b: Any
    diverged: str | None = None


class Watcher(Protocol):
    """Who is told how far the work is; `progress.Reporter` is one."""

    def task(self, title: str) -> Progress: ...  # noqa: D102
    def say(self, line: str) -> None: ...  # noqa: D102


@dataclasses.dataclass(frozen=True)
class Told:
    """Tells a callback (done, total, words), or nobody."""

    progress: Progress | None = None

    def task(self, title: str) -> Progress:
        """The callback, told the title too."""
        told = self.progress
        return lambda done, total, words: told(done, total, f"{title}: {words}") if told else None

    def say(self, line: str) -> None:
        """Nothing: a callback takes no lines."""


def check(network: Network, pair: Modes, batches: Batches, questions: Questions) -> None:
    """See that modes, data and network fit each other and the questions.

    Raises:
        ModeError: the modes are no pair.
        GraphError: the network does not take the data, returns no logits, or lacks a site.
        DataError: labels that are none.
    """
    check_pair(pair.a, pair.b)
    x, y, _ = next(padded(batches))
    graph = trace(network.apply, pair.a, x)
    check_logits(graph, x, y)
    graph.select(questions.sites)
    renorm.check(graph, questions.renormalise)


def ask(
    network: Network,
    pairs: Iterable[Modes],
    data: Mapping[str, Batches],
    questions: Questions,
    store: Workdir | Nowhere,
    watcher: Watcher,
) -> Study:
    """Align and measure every pair; what the store holds already is used again.

    Args:
        network: of all modes.
        pairs: two trees of arrays each.
        data: split -> its batches; "test", and "train" if there is any.
        questions: what is asked.
        store: keeps rows and permutations.
        watcher: is told how far the work is.
    """
    inquiry = _Inquiry(network, data, questions, store, watcher)
    rows: dict[str, list[Row]] = {name: [] for name in questions.measures}
    summary: list[Row] = []
    aligned: dict[tuple[str, str], Aligned] = {}
    for pair in pairs:
        for method in questions.align:
            row: Row = {"pair": pair.name, "align": method, "diverged": pair.diverged or ""}
            if not pair.diverged:
                b = pair.b
                if method != UNALIGNED:
                    found = aligned[pair.name, method] = inquiry.align(pair, method)
                    b = found.variables
                for name in questions.measures:
                    headline, taken = inquiry.measure(name, Two(pair.name, pair.a, b), method)
                    row |= headline
                    rows[name] += taken
            summary.append(row | {"verdict": words(row)})
    return Study(summary, columns(questions.measures), rows, aligned)


@dataclasses.dataclass(frozen=True)
class _Inquiry:
    """What is asked, of which network, on which data, and where answers are kept: see `ask`."""

    network: Network
    data: Mapping[str, Batches]
    questions: Questions
    store: Workdir | Nowhere
    watcher: Watcher

    @property
    def train_batches(self) -> Batches:
        """The train split, or what there is."""
        return self.data.get("train", self.data["test"])

    def measure(self, name: str, pair: Two, method: str) -> tuple[Row, list[Row]]:
        """One measure of one pair under one alignment: the summary's numbers, and all rows."""
        measure, questions = MEASURES[name], self.questions
        label = pair.name if method == UNALIGNED else f"{pair.name}, {method}"
        headline: Row = {}
        rows: list[Row] = []
        # The last split's numbers stand in the summary.
        for split in [s for s in questions.splits or measure.splits if s in self.data] or ["test"]:

            def make(split: str = split) -> list[Row]:
                setup = Setup(
                    self.network.apply,
                    pair.a,
                    pair.b,
                    self.data[split],
                    train_batches=self.train_batches,
                    alphas=questions.alphas,
                    outside=questions.outside,
                    sites=questions.sites,
                    over=questions.over,
                    renormalise=questions.renormalise,
                    progress=self.watcher.task(f"{label}, {split}"),
                )
                result = measure.run(setup)
                head = {"headline": dict(measure.headline(result))}
                found = [
                    {"pair": pair.name, "align": method, "split": split} | row
                    for row in result.records()
                ]
                return [head, *found]

            head, *found = self.store.measured(f"{pair.name}-{method}-{name}-{split}", make)
            rows += found
            headline = nan_for_none(head["headline"])
        return headline, rows

    def align(self, pair: Modes, method: str) -> Aligned:
        """How to permute b towards a; a permutation that was found before is used again."""
        network, file = self.network, self.store.permutation(f"{pair.name}-{method}")
        if file and multihost.broadcast(file.exists):
            return Aligned(*symmetry.load(file), pair.b, network)
        if file and not multihost.is_primary():  # one finds it, so that all have the same
            multihost.barrier()
            return Aligned(*symmetry.load(file), pair.b, network)
        batches = on_one_device(self.train_batches)
        x, _ = next(iter(batches))
        spec = symmetry.permutation_spec(network.apply, pair.a, x)
        self.watcher.say(f"matching {pair.name} by {method}")
        key = jax.random.fold_in(jax.random.key(self.questions.seed), MATCHING_STREAM)
        options = self.questions.match.get(method, {})
        found = matching.align(method, key, network.apply, spec, pair.a, pair.b, batches, **options)
        if file:
            spec.save(file, found.permutation)
            multihost.barrier()
        return Aligned(spec, found.permutation, pair.b, network)
