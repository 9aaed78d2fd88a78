"""Asking: every pair aligned in every way, and every measure taken of it.

Both the experiment, of the pairs that it trains, and `llfc_jax.study`, of those that users bring,
ask here. What the store holds already is used again.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import jax

from llfc_jax import hosts, matching
from llfc_jax.findings import Aligned, Study, columns
from llfc_jax.graph import trace
from llfc_jax.measures import MEASURES, Setup
from llfc_jax.measures import renormalise as renorm
from llfc_jax.measures.line import check_logits
from llfc_jax.measures.measure import Measure
from llfc_jax.measures.stream import Batches, Progress, padded
from llfc_jax.mesh import here
from llfc_jax.modes import check_pair
from llfc_jax.network import Network
from llfc_jax.questions import UNALIGNED, Questions
from llfc_jax.results import Row, nan_for_none
from llfc_jax.summary import words
from llfc_jax.workdir import Nowhere, Workdir

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
    check_logits(graph, y)
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
    rows: dict[str, list[Row]] = {name: [] for name in questions.measures}
    summary: list[Row] = []
    aligned: dict[tuple[str, str], Aligned] = {}
    for pair in pairs:
        for method in questions.align:
            row: Row = {"pair": pair.name, "align": method, "diverged": pair.diverged or ""}
            if not pair.diverged:
                b = pair.b
                if method != UNALIGNED:
                    found = _align(network, pair, method, data, questions, store, watcher)
                    aligned[pair.name, method] = found
                    b = found.variables
                two = Two(pair.name, pair.a, b)
                row |= _measure(network, two, method, data, questions, store, watcher, rows)
            summary.append(row | {"verdict": words(row)})
    return Study(summary, columns(questions.measures), rows, aligned)


def _measure(
    network: Network,
    pair: Modes,
    method: str,
    data: Mapping[str, Batches],
    questions: Questions,
    store: Workdir | Nowhere,
    watcher: Watcher,
    rows: dict[str, list[Row]],
) -> Row:
    """Take every measure of one pair under one alignment; returns the summary's numbers."""
    label = pair.name if method == UNALIGNED else f"{pair.name}, {method}"
    headline: Row = {}
    for name in questions.measures:
        measure, numbers = MEASURES[name], {}
        for split in _splits(questions, measure, data):

            def make(measure: Measure = measure, split: str = split) -> list[Row]:
                setup = Setup(
                    network.apply,
                    pair.a,
                    pair.b,
                    data[split],
                    train_batches=data.get("train", data["test"]),
                    alphas=questions.alphas,
                    outside=questions.outside,
                    sites=questions.sites,
                    over=questions.over,
                    renormalise=questions.renormalise,
                    progress=watcher.task(f"{label}, {split}"),
                )
                result = measure.run(setup)
                head = {"headline": dict(measure.headline(result))}
                found = [
                    {"pair": pair.name, "align": method, "split": split} | row
                    for row in result.records()
                ]
                return [head, *found]

            head, *found = store.measured(f"{pair.name}-{method}-{name}-{split}", make)
            rows[name] += found
            numbers = nan_for_none(head["headline"])
        headline |= numbers
    return headline


def _splits(questions: Questions, measure: Measure, data: Mapping[str, Batches]) -> list[str]:
    """The splits that a measure is taken on; the last one's numbers stand in the summary."""
    return [s for s in questions.splits or measure.splits if s in data] or ["test"]


def _align(
    network: Network,
    pair: Modes,
    method: str,
    data: Mapping[str, Batches],
    questions: Questions,
    store: Workdir | Nowhere,
    watcher: Watcher,
) -> Aligned:
    """How to permute b towards a; a permutation that was found before is used again."""
    file = store.permutation(f"{pair.name}-{method}")
    if file and hosts.ask_leader(file.exists):
        return Aligned(*matching.load(file), pair.b, network)
    if file and not hosts.leads():  # one finds it, so that all have the same
        hosts.agree(0)
        return Aligned(*matching.load(file), pair.b, network)
    batches = here(data.get("train", data["test"]))
    x, _ = next(iter(batches))
    spec = matching.permutation_spec(network.apply, pair.a, x)
    watcher.say(f"matching {pair.name} by {method}")
    key = jax.random.fold_in(jax.random.key(questions.seed), MATCHING_STREAM)
    options = questions.match.get(method, {})
    found = matching.align(method, key, network.apply, spec, pair.a, pair.b, batches, **options)
    if file:
        spec.save(file, found.permutation)
        hosts.agree(0)
    return Aligned(spec, found.permutation, pair.b, network)
