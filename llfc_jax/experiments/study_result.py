"""What a study found: rows, verdicts, figures and a page; and how it was made."""

import dataclasses
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from llfc_jax.errors import DataError, WorkdirError, unknown
from llfc_jax.experiments.verdicts import verdicts
from llfc_jax.frameworks import Network
from llfc_jax.io import Row, nan_for_none, read_sealed, write_csv, write_json, write_sealed
from llfc_jax.measures import MEASURES
from llfc_jax.symmetry import PermutationSpec

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")
QUESTION = (
    "Are two trained networks connected by a straight line between their weights, and do their "
    "features add up along it, layer by layer?"
)


@dataclasses.dataclass(frozen=True)
class Aligned:
    """How b was permuted towards a.

    Attributes:
        spec: which units may trade places.
        permutation: which of them do.
        b: b as it was, as a tree of arrays.
        network: of both modes.
    """

    spec: PermutationSpec
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

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Study":
        """What `write` wrote into a directory; how b was permuted is not among it.

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
                for name in MEASURES
                if (file := path / f"{name}.json").is_file()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WorkdirError(f"{path} is damaged; run again what wrote it") from error
        del content["verdicts"]
        return cls(summary, columns(rows), rows, {}, details=content)

    def figure(self, name: str) -> Any:
        """One of the charts as a Matplotlib figure, by the name of its file.

        Raises:
            DataError: no measure of this study has such a chart; the line names the nearest.
        """
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
        write_sealed(path / "summary.json", self.to_dict())
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


def columns(measures: Iterable[str]) -> dict[str, str]:
    """The summary's columns where these were measured: column -> heading."""
    found = {"pair": "pair", "align": "aligned"}
    for name in measures:
        found |= MEASURES[name].columns
    return {**found, "verdict": "in words"}


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
        "x64": jax.numpy.result_type(float) == "float64",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "platform": platform.platform(),
    }
