"""A report's directory: rows of every section, its words and charts, and the page made of them.

`NAME.csv` and `NAME.json` hold a section's rows, `sections.json` everything else that the page
shows. So the page can be made again from the directory alone, in a second and without JAX.
"""

import dataclasses
import json
import os
from pathlib import Path

from llfc_jax.errors import WorkdirError
from llfc_jax.io import nan_for_none, read_sealed, write_csv, write_json, write_sealed
from llfc_jax.report.charts import Chart, Section
from llfc_jax.report.page import Report, Table, Verdict, write_page

PAGE = "report.html"
WORDS = "sections.json"


def write(report: Report, directory: str | os.PathLike[str]) -> Path:
    """Writes rows, words and page of a report into a directory; returns the page's path."""
    directory = Path(directory)
    for section, rows in report.sections:
        write_csv(directory / f"{section.name}.csv", rows)
        write_json(directory / f"{section.name}.json", rows)
    words = dataclasses.asdict(dataclasses.replace(report, sections=[]))
    words["sections"] = [dataclasses.asdict(section) for section, _ in report.sections]
    write_sealed(directory / WORDS, words)
    return rebuild(directory)  # so that the page is that of the files, to the byte


def read(directory: str | os.PathLike[str]) -> Report:
    """Reads what `write` wrote.

    Raises:
        WorkdirError: there is no report, or a file of it is missing or damaged.
    """
    directory = Path(directory).expanduser()
    if not directory.is_dir():
        raise WorkdirError(f"there is no directory {directory}")
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
    tables = [
        Table(**table | {"rows": [nan_for_none(row) for row in table["rows"]]})
        for table in words.pop("tables")
    ]
    return Report(**words, tables=tables, verdicts=verdicts, sections=sections)


def rebuild(directory: str | os.PathLike[str]) -> Path:
    """Makes the page of a report's directory again; returns its path.

    Raises:
        WorkdirError: as `read` does.
    """
    path = Path(directory).expanduser() / PAGE
    write_page(path, read(directory))
    return path
