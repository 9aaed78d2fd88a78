"""The result of a study: rows, verdicts, figures and a page, and how they were made."""

import dataclasses
import json
import os
import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llfc_jax.errors import DataError, ModeError, WorkdirError, unknown
from llfc_jax.experiments.merges import SECTION as MERGES
from llfc_jax.experiments.merges import Merges
from llfc_jax.experiments.verdicts import verdicts
from llfc_jax.frameworks import Network
from llfc_jax.io import Row, nan_for_none, read_sealed, write_sealed
from llfc_jax.measures import MEASURES, LMCResult
from llfc_jax.report import history, stored
from llfc_jax.report.charts import Section
from llfc_jax.report.page import Report, Table, Verdict
from llfc_jax.report.style import SCREEN, Theme
from llfc_jax.results import axis_columns, rows_to_pandas, rows_to_xarray
from llfc_jax.symmetry import Permutation, PermutationSpec
from llfc_jax.symmetry.beyond.transport import Transport
from llfc_jax.tasks import TASKS
from llfc_jax.types import Variables

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

WHERE = ("pair", "align", "split")  # columns that say what a row is of
HEADLINE = "llfc_layers"  # the chart on the first screen of the page, where it was measured
QUESTION = (
    "Are two trained networks connected by a straight line between their weights, and do their "
    "features add up along it, layer by layer?"
)


@dataclasses.dataclass(frozen=True)
class Alignment:
    """How b was aligned with a.

    Attributes:
        spec: which units may be permuted.
        permutation: how they are permuted.
        b: b as it was, as a tree of arrays.
        network: the network of both modes; None after unpickling where it could not be pickled.
        transport: what is done to b where that is more than a permutation; `permutation` is a
            part of it.
    """

    spec: PermutationSpec
    permutation: Permutation
    b: Variables
    network: Network | None
    transport: Transport | None = None

    @property
    def variables(self) -> Variables:
        """The aligned b, as a tree of arrays."""
        if self.transport is not None:
            return self.transport.apply(self.b)
        return self.spec.apply(self.permutation, self.b)

    @property
    def model(self) -> Any:
        """The aligned b, in the form in which its framework has it.

        Raises:
            ModeError: the network could not be pickled with the study.
        """
        if self.network is None:
            raise ModeError(
                "this study was unpickled without its network, which could not be pickled; use "
                "`.variables`, or network.model(alignment.variables)"
            )
        return self.network.model(self.variables)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        try:
            pickle.dumps(self.network)
        except Exception:  # whatever a user's function or module raises
            state["network"] = None
        return state


@dataclasses.dataclass(frozen=True, repr=False)
class Study:
    """The result of a study. Printed, it is a sentence for each pair and alignment.

    Attributes:
        summary: one row for each pair and alignment.
        columns: column of these rows -> heading.
        rows: measure -> its rows, of all pairs, alignments and splits.
        aligned: (pair, method) -> how b was aligned.
        title: heading of its page.
        lead: a sentence or two below it.
        details: how it was made.
        history: rows of how the pairs were trained, where that is known.
        notes: what else a reader has to know, in sentences: measures that were left out.
        merges: what was found of merges of the pairs.
    """

    summary: list[Row]
    columns: dict[str, str]
    rows: dict[str, list[Row]]
    aligned: Mapping[tuple[str, str], Alignment]
    title: str = "Two modes of one network"
    lead: str = QUESTION
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    history: list[Row] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    merges: Merges = dataclasses.field(default_factory=Merges)

    def __add__(self, other: "Study") -> "Study":
        """Returns both as one, for shared tables and figures; title and lead are the first's.

        Their pairs need different names.
        """
        rows = {m: self.rows.get(m, []) + other.rows.get(m, []) for m in self.rows | other.rows}
        return dataclasses.replace(
            self,
            summary=self.summary + other.summary,
            columns=self.columns | other.columns,
            rows=rows,
            aligned={**self.aligned, **other.aligned},
            history=self.history + other.history,
            notes=list(dict.fromkeys([*self.notes, *other.notes])),
            merges=self.merges + other.merges,
        )

    def __str__(self) -> str:
        return "\n".join(v.text.replace("`", "") for v in self.verdicts)

    @property
    def verdicts(self) -> list[Verdict]:
        """What was found, a sentence for each pair and alignment, and the notes."""
        merges, correlation = self.merges.sentences, self.merges.correlation()
        said = [*merges, *([correlation] if correlation else []), *self.notes]
        return [*verdicts(self.summary), *map(Verdict, said)]

    def __repr__(self) -> str:
        pairs = dict.fromkeys(row["pair"] for row in self.summary)
        aligned = dict.fromkeys(row["align"] for row in self.summary)
        return (
            f"Study(pairs=[{', '.join(pairs)}], align=[{', '.join(aligned)}], "
            f"measures=[{', '.join(self.rows)}])"
        )

    def _repr_html_(self) -> str:
        """Returns the verdicts and the summary's table, for notebooks."""
        from llfc_jax.report.html import summary

        return summary(self.verdicts, self.summary, self.columns)

    def to_pandas(self, measure: str | None = None) -> "pd.DataFrame":
        """Returns the summary, or the rows of one measure, as a `pandas.DataFrame`.

        Raises:
            DataError: the measure was not taken, or pandas is not installed.
        """
        return rows_to_pandas(self.summary if measure is None else self._rows_of(measure))

    def to_xarray(self, measure: str) -> "xr.Dataset":
        """Returns the rows of one measure as an `xarray.Dataset` with labelled axes.

        Raises:
            DataError: the measure was not taken, or xarray is not installed.
        """
        labels = axis_columns(MEASURES[measure].result_type).values()
        return rows_to_xarray(self._rows_of(measure), ("pair", "align", "split", *labels))

    def _rows_of(self, measure: str) -> list[Row]:
        if measure not in self.rows:
            raise DataError(unknown("measure", measure, self.rows))
        return self.rows[measure]

    def plot(self, name: str, theme: Theme = SCREEN) -> Any:
        """Returns one of the charts, by its name, as an Altair chart.

        `report.style.PAPER` is a theme for papers.

        Raises:
            DataError: no measure of this study has such a chart; the line names the nearest.
        """
        return self._report().plot(name, theme)

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], measures: Iterable[str] = tuple(MEASURES)
    ) -> "Study":
        """Returns the study that `write` wrote into a directory, without its alignments.

        Args:
            path: the directory.
            measures: those whose rows are read, where the directory holds them.

        Raises:
            WorkdirError: there is no study, or it is damaged.
        """
        path = Path(path).expanduser()
        if (path / "sweep.json").is_file():
            raise WorkdirError(f"{path} holds a sweep; name its runs: {path / 'runs'}/*")
        if not (path / "summary.json").is_file():
            raise WorkdirError(f"{path} holds no summary.json; has the run ended?")
        content = read_sealed(path / "summary.json")
        try:
            summary = [nan_for_none(row) for row in content.pop("summary")]
            rows = {
                name: [nan_for_none(row) for row in json.loads(file.read_text("utf-8"))]
                for name in measures
                if (file := path / f"{name}.json").is_file()
            }
            file = path / f"{history.SECTION.name}.json"
            trained = json.loads(file.read_text("utf-8")) if file.is_file() else []
            trained = [nan_for_none(row) for row in trained]
            notes, merges = content.pop("notes", []), _read_merges(path, content.pop("merges", {}))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WorkdirError(f"{path} is damaged; run again what wrote it") from error
        del content["verdicts"]
        columns = summary_columns(rows, summary)
        return cls(summary, columns, rows, {}, details=content, history=trained, notes=notes,
                   merges=merges)  # fmt: skip

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Writes tables, `summary.json` and the page into a directory.

        Returns:
            The page, `report.html`.
        """
        path = Path(path)
        write_sealed(path / "summary.json", self.to_dict())
        return stored.write(self._report(), path)

    def _report(self) -> Report:
        """Returns what the page shows."""
        sections = [(show_metrics(name, rows), rows) for name, rows in self.rows.items()]
        if self.merges.table:
            sections.append((MERGES, self.merges.layers))
        if self.history:
            sections.append((history.SECTION, self.history))
        tables = [Table(self.summary, self.columns)]
        return Report(
            title=self.title,
            lead=self.lead,
            tables=[*tables, self.merges.page_table] if self.merges.table else tables,
            verdicts=self.verdicts,
            sections=sections,
            details=self.details,
            headline=HEADLINE if "llfc" in self.rows else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of `summary.json`."""
        found = {"summary": self.summary, "verdicts": [v.text for v in verdicts(self.summary)]}
        if self.merges.sentences:
            found["merges"] = {"table": self.merges.table, "sentences": self.merges.sentences}
        return {**found, "notes": self.notes, **self.details}


def _read_merges(path: Path, stored: Mapping[str, Any]) -> Merges:
    """Returns the merges of a study in a directory."""
    if not stored:
        return Merges()
    table, layers = [nan_for_none(row) for row in stored["table"]], []
    if table:
        layers = json.loads((path / f"{MERGES.name}.json").read_text("utf-8"))
    return Merges(table, [nan_for_none(row) for row in layers], stored["sentences"])


def show_metrics(measure: str, rows: Sequence[Row]) -> Section:
    """Returns the section of a measure, whose table of LMC has the columns of the rows' task."""
    section = MEASURES[measure].section
    if measure != "lmc" or not rows:
        return section
    usual = {field.name for field in dataclasses.fields(LMCResult)} | {*WHERE, *section.columns}
    metrics = [name for name in rows[0] if name not in usual and "_barrier_" not in name]
    headings = {name: words for make in TASKS.values() for name, words in make().columns}
    columns = {**section.columns} | {name: headings.get(name, name) for name in metrics}
    return dataclasses.replace(section, columns=columns)


def summary_columns(measures: Iterable[str], rows: Sequence[Row]) -> dict[str, str]:
    """Returns the columns of a summary of these measures: column -> heading.

    What no row holds, since the task has no such thing, is left out.
    """
    held = {column for row in rows for column, cell in row.items() if cell == cell}
    found = {"pair": "pair", "align": "aligned", "verdict": "verdict"}
    for name in measures:
        every = {**MEASURES[name].other_columns, **MEASURES[name].columns}
        usual = MEASURES[name].columns
        found |= {k: v for k, v in every.items() if k in held} if held & set(every) else usual
    return found
