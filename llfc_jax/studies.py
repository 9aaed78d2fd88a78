"""Studies: pairs of modes, aligned, measured, told in words, tables, figures and a page.

`study` is the whole report for two modes of any network in one call; the experiment runs the same
steps (`ask`) on the pairs that it trains.
"""

import dataclasses
import datetime
import importlib
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax

from llfc_jax import matching
from llfc_jax.errors import DataError
from llfc_jax.graph import trace
from llfc_jax.measures import MEASURES, Setup
from llfc_jax.measures import renormalise as renorm
from llfc_jax.measures.line import ALPHAS, check_logits
from llfc_jax.measures.measure import Measure
from llfc_jax.measures.stream import Batches, Progress, padded
from llfc_jax.modes import check_pair
from llfc_jax.network import Network
from llfc_jax.questions import UNALIGNED, Questions
from llfc_jax.results import Row, write_csv, write_json
from llfc_jax.samples import as_splits, fingerprint
from llfc_jax.summary import verdicts, words
from llfc_jax.workdir import Nowhere, Workdir, claim, nan_for_none

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")
MATCHING_STREAM = 7  # folded into the seed's key for whatever randomness a matching method needs
QUESTION = (
    "Are two trained networks connected by a straight line between their weights, and do their "
    "features add up along it, layer by layer?"
)


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


@dataclasses.dataclass(frozen=True)
class Aligned:
    """How b was permuted towards a.

    Attributes:
        spec: which units may trade places.
        permutation: which of them do.
        b: b as it was, as a tree of arrays.
        network: of both modes.
    """

    spec: matching.PermutationSpec
    permutation: Mapping[str, Any]
    b: Any
    network: Network

    @property
    def variables(self) -> Any:
        """The permuted b, as a tree of arrays."""
        return self.spec.apply(self.permutation, self.b)

    @property
    def model(self) -> Any:
        """The permuted b, in the form in which its framework has it."""
        return self.network.model(self.variables)


@dataclasses.dataclass(frozen=True, repr=False)
class Study:
    """What was found. Shown, it is a sentence per pair and alignment.

    Attributes:
        summary: one row per pair and alignment.
        columns: column of these rows -> heading.
        rows: measure -> its rows, of all pairs, alignments and splits.
        aligned: (pair, method) -> how b was permuted.
        title: heading of its page.
        lead: a sentence or two below it.
        details: how it was made.
    """

    summary: list[Row]
    columns: dict[str, str]
    rows: dict[str, list[Row]]
    aligned: Mapping[tuple[str, str], Aligned]
    title: str = "Two modes of one network"
    lead: str = QUESTION
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __add__(self, other: "Study") -> "Study":
        """Both as one, to be shown in the same tables and figures; title and lead are the first's.

        Their pairs need names of their own.
        """
        rows = {m: self.rows.get(m, []) + other.rows.get(m, []) for m in self.rows | other.rows}
        return dataclasses.replace(
            self,
            summary=self.summary + other.summary,
            columns=self.columns | other.columns | {"verdict": self.columns["verdict"]},
            rows=rows,
            aligned={**self.aligned, **other.aligned},
        )

    def __str__(self) -> str:
        return "\n".join(v.text.replace("`", "") for v in verdicts(self.summary))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """For notebooks: the verdicts and the summary's table."""
        from llfc_jax.report.markup import inline, table, tag

        said = tag("ul", *(tag("li", inline(v.text)) for v in verdicts(self.summary)))
        return said + table(self.summary, self.columns, "Summary", hidden_caption=True)

    def figure(self, name: str) -> Any:
        """One of the charts as a Matplotlib figure, by the name of its file.

        Raises:
            DataError: no measure of this study has such a chart; the line names the nearest.
        """
        from llfc_jax.errors import unknown
        from llfc_jax.report.figures import draw

        charts = {c.name: (c, m) for m in self.rows for c in MEASURES[m].section.charts}
        if name not in charts:
            raise DataError(unknown("figure", name, charts))
        chart, measure = charts[name]
        figure = draw(chart, self.rows[measure])
        for legend in figure.legends:  # notebooks cut figures to what counts in their layout
            legend.set_in_layout(True)
        return figure

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write tables, figures, `summary.json` and the page into a directory.

        Returns:
            The page, `report.html`.
        """
        from llfc_jax.report import figures
        from llfc_jax.report.page import write_page

        path = Path(path)
        sections = []
        for name, rows in self.rows.items():
            section = MEASURES[name].section
            write_csv(path / f"{name}.csv", rows)
            write_json(path / f"{name}.json", rows)
            sections.append((section, rows, figures.save_all(section, rows, path / "figures")))
        write_json(path / "summary.json", self.to_dict())
        write_page(
            path / "report.html",
            title=self.title,
            lead=self.lead,
            summary_rows=self.summary,
            summary_columns=self.columns,
            verdicts=verdicts(self.summary),
            sections=sections,
            details=self.details,
        )
        return path / "report.html"

    def to_dict(self) -> dict[str, Any]:
        """What `summary.json` holds."""
        said = [v.text for v in verdicts(self.summary)]
        return {"summary": self.summary, "verdicts": said, **self.details}


def study(
    network: Any,
    a: Any,
    b: Any,
    data: Any,
    *,
    train: Any = None,
    measures: Sequence[str] = tuple(MEASURES),
    align: Sequence[str] = (UNALIGNED,),
    match: Mapping[str, Mapping[str, Any]] | None = None,
    alphas: Sequence[float] = ALPHAS,
    sites: str | Sequence[str] = ("linear", "relu"),
    renormalise: str = "none",
    outside: bool = False,
    over: Any = None,
    seed: int = 0,
    batch_size: int = 500,
    name: str = "pair",
    workdir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Study:
    """The whole report for two modes of any network.

    θ_α = α a + (1 - α) b: α multiplies `a`.

    Args:
        network: what `Network.of` takes: a Linen, NNX or Equinox module, a Haiku transform, a
            function `apply(variables, x)`, or a `Network`. It returns logits [n, classes].
        a: the mode that α multiplies, as its framework has it: variables, a model, parameters.
        b: the other mode.
        data: (x [n, ...], labels int [n]), or batches of such pairs that can be gone through
            again and again, or a `llfc_jax.data.Dataset`; x as the network takes it.
        train: training data, for matching by activations and for renormalising, and measured as
            well where a measure tells train from test. Without it `data` serves there.
        measures: what is measured; `llfc_jax.measures.MEASURES` has the names.
        align: how b is permuted towards a before measuring: "none" and the names of
            `llfc_jax.matching.METHODS`; each gives rows of its own.
        match: options of the matching methods: method -> option -> value.
        alphas: points on the line.
        sites: kinds ("linear", "relu", "module", "all") or name patterns of the layers shown.
        renormalise: "none", "reset" (BatchNorm's statistics anew) or "repair".
        outside: allows α outside [0, 1].
        over: how the loop over α runs; chosen by network and backend if None.
        seed: for what matching draws.
        batch_size: samples at a time, where `data` are arrays; results do not depend on it.
        name: of the pair, in tables and figures.
        workdir: where tables, figures and the page `report.html` go; a study of the same modes
            and data goes on there from what was measured before. None writes nothing.
        progress: called as (done, total, words).

    Raises:
        LlfcError: one of its kinds, with one line, before long work starts: modes that are no
            pair, data that do not fit the network, unknown names.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jax.random.normal(jax.random.key(0), (60, 4))
        >>> def apply(w, x):
        ...     return jax.nn.relu(x @ w["in"]) @ w["out"]
        >>> a = {"in": jnp.eye(4), "out": jnp.eye(4, 3)}
        >>> b = jax.tree.map(lambda w: 1.1 * w, a)
        >>> found = study(apply, a, b, (x, apply(a, x).argmax(-1)), measures=["lmc"])
        >>> print(found)
        pair is linearly mode connected (error barrier 0.00 points).
    """
    questions = Questions(
        tuple(measures),
        tuple(align),
        dict(match or {}),
        tuple(alphas),
        sites=(sites,) if isinstance(sites, str) else tuple(sites),
        over=over,
        renormalise=renormalise,
        outside=outside,
        seed=seed,
    )
    questions.check()
    view = Network.of(network)
    two = Two(name, view.variables(a), view.variables(b))
    splits = as_splits(data, train, batch_size)
    for split in splits.values():
        check(view, two, split, questions)

    def made(store: Workdir | Nowhere) -> Study:
        found = ask(view, [two], splits, questions, store, Told(progress))
        details = {
            "study": {"network": view.framework, **dataclasses.asdict(questions)},
            **provenance(),
        }
        return dataclasses.replace(found, details=details)

    if workdir is None:
        return made(Nowhere())
    identity = {
        "name": name,
        "modes": fingerprint([two.a, two.b]),
        "data": {split: fingerprint(batches) for split, batches in splits.items()},
        **dataclasses.asdict(questions),
    }
    with claim(workdir, identity) as held:
        found = made(held)
        found.write(held.path)
    return found


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
    columns = {"pair": "pair", "align": "aligned"}
    for name in questions.measures:
        columns |= MEASURES[name].columns
    return Study(summary, {**columns, "verdict": "in words"}, rows, aligned)


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
    if file and file.exists():
        return Aligned(*matching.load(file), pair.b, network)
    batches = data.get("train", data["test"])
    x, _ = next(iter(batches))
    spec = matching.permutation_spec(network.apply, pair.a, x)
    watcher.say(f"matching {pair.name} by {method}")
    key = jax.random.fold_in(jax.random.key(questions.seed), MATCHING_STREAM)
    options = questions.match.get(method, {})
    found = matching.align(method, key, network.apply, spec, pair.a, pair.b, batches, **options)
    if file:
        spec.save(file, found.permutation)
    return Aligned(spec, found.permutation, pair.b, network)


def provenance() -> dict[str, Any]:
    """Versions, device and time: what a number depends on besides its settings."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"environment": environment(), "written": now}


def environment() -> dict[str, Any]:
    """Versions and device."""
    return {
        "llfc_jax": importlib.import_module("llfc_jax").__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "devices": jax.device_count(),
        "platform": platform.platform(),
    }
