"""A report's directory: rows of every section, its words and charts, and the page made of them.

`NAME.csv` and `NAME.json` hold a section's rows, `sections.json` everything else that the page
shows. So the page can be made again from the directory alone, in a second and without JAX.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llfc_jax.errors import WorkdirError
from llfc_jax.io import nan_for_none, read_sealed, write_csv, write_json, write_sealed
from llfc_jax.report.charts import Chart, Section
from llfc_jax.report.numbers import Rows
from llfc_jax.report.page import SUMMARY, Verdict, write_page

PAGE = "report.html"
WORDS = "sections.json"


@dataclasses.dataclass(frozen=True)
class Report:
    """What `page.write_page` shows of a run; its attributes are the arguments of that."""

    title: str
    lead: str
    summary_rows: Rows
    summary_columns: Mapping[str, str]
    verdicts: Sequence[Verdict | str]
    sections: Sequence[tuple[Section, Rows]]
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    headline: str | None = None
    spread: Mapping[str, str] = dataclasses.field(default_factory=dict)
    caption: str = SUMMARY
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def show(self, path: str | os.PathLike[str]) -> None:
        """Writes the page."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        write_page(path, **fields)


def write(report: Report, directory: str | os.PathLike[str]) -> Path:
    """Writes rows, words and page of a report into a directory; returns the page's path."""
    directory = Path(directory)
    for section, rows in report.sections:
        write_csv(directory / f"{section.name}.csv", rows)
        write_json(directory / f"{section.name}.json", rows)
    plain = dataclasses.replace(report, sections=[])
    words = dataclasses.asdict(plain) | {
        "verdicts": [dataclasses.asdict(_verdict(v)) for v in report.verdicts],
        "sections": [dataclasses.asdict(section) for section, _ in report.sections],
    }
    write_sealed(directory / WORDS, words)
    return rebuild(directory)  # so that the page is that of the files, to the byte


def read(directory: str | os.PathLike[str]) -> Report:
    """Reads what `write` wrote.

    Raises:
        WorkdirError: there is no report, or a file of it is missing or damaged.
    """
    directory = Path(directory).expanduser()
    if not (directory / WORDS).is_file():
        raise WorkdirError(f"{directory} holds no {WORDS}; has the run ended?")
    words = read_sealed(directory / WORDS)
    sections = []
    for stored in words.pop("sections"):
        file = directory / f"{stored['name']}.json"
        charts = tuple(
            Chart(**chart | {"panels": tuple(chart["panels"])}) for chart in stored["charts"]
        )
        try:
            rows = [nan_for_none(row) for row in json.loads(file.read_text("utf-8"))]
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise WorkdirError(f"{file} is missing or damaged; run again what wrote it") from error
        sections.append((Section(**stored | {"charts": charts}), rows))
    verdicts = [Verdict(**verdict) for verdict in words.pop("verdicts")]
    summary = [nan_for_none(row) for row in words.pop("summary_rows")]
    return Report(**words, summary_rows=summary, verdicts=verdicts, sections=sections)


def rebuild(directory: str | os.PathLike[str]) -> Path:
    """Makes the page of a report's directory again; returns its path.

    Raises:
        WorkdirError: as `read` does.
    """
    path = Path(directory).expanduser() / PAGE
    read(directory).show(path)
    return path


def _verdict(verdict: Verdict | str) -> Verdict:
    return Verdict(verdict) if isinstance(verdict, str) else verdict
