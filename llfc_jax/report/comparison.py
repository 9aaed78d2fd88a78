"""Several runs on one page, side by side: the same charts, one colour per run."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from llfc_jax.errors import ConfigError
from llfc_jax.report.charts import Chart, Section
from llfc_jax.report.numbers import Rows, distinct, is_number
from llfc_jax.report.page import Report, Table, Verdict, flatten
from llfc_jax.report.points import read

RUN = "run"  # the column that this page adds to every row


@dataclasses.dataclass(frozen=True)
class Run:
    """What a comparison needs of a run.

    Attributes:
        name: unlike that of every other run.
        summary: one row per pair and alignment.
        sections: per measure its words and charts, and its rows.
        details: how it was made, nested as it likes; what differs between runs is shown.
    """

    name: str
    summary: Rows
    sections: Sequence[tuple[Section, Rows]]
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def make_comparison(
    runs: Sequence[Run], columns: Mapping[str, str], verdicts: Sequence[Verdict] = ()
) -> Report:
    """Returns a report that shows several runs in the same charts.

    A chart that has no lines of its own gets one per run. Of one that has, a single line is shown
    (the middle one of numbers, the last of names), again one per run; which, the reader can choose.

    Args:
        runs: in the order in which they are shown.
        columns: column of the runs' summary rows -> heading.
        verdicts: what was found.

    Raises:
        ConfigError: two runs have the same name.
    """
    names = [run.name for run in runs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"two runs are called {twice[0]!r}; give each run a name of its own")
    summary = [{RUN: run.name, **row} for run in runs for row in run.summary]
    tables = [Table(summary, columns, "Summary of every run")]
    differences, settings = differing(runs)
    if differences:
        tables.insert(0, Table(differences, settings, "What differs between the runs"))
    lead = "Several runs, measured alike, in the same charts."
    return Report("Runs side by side", lead, tables, verdicts, join_runs(runs))


def join_runs(runs: Sequence[Run]) -> list[tuple[Section, Rows]]:
    """Returns each measure once, with the rows of all runs that have it and charts of all runs."""
    rows: dict[str, list[dict[str, Any]]] = {}
    sections: dict[str, Section] = {}
    for run in runs:
        for section, mine in run.sections:
            sections.setdefault(section.name, section)
            rows.setdefault(section.name, []).extend({**row, RUN: run.name} for row in mine)
    return [
        (
            dataclasses.replace(
                s,
                charts=tuple(compare_chart(c, rows[name]) for c in s.charts if not c.compares),
            ),
            rows[name],
        )
        for name, s in sections.items()
    ]


def compare_chart(chart: Chart, rows: Rows) -> Chart:
    """Returns the chart with a line per run, its own lines a choice; a map has a panel per run."""
    if chart.mark == "heat":
        return dataclasses.replace(chart, panels=(RUN, *chart.panels))
    where = dict(chart.where)
    lines = read(chart, rows).lines
    if chart.lines is not None and lines:
        where[chart.lines] = lines[len(lines) // 2 if all(map(is_number, lines)) else -1]
    return dataclasses.replace(chart, lines=RUN, where=where)


def differing(runs: Sequence[Run]) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Returns the settings that are not the same in all runs: rows, and columns with headings."""
    flat = [{row["name"]: row["value"] for row in flatten(run.details)} for run in runs]
    rows = []
    for name in distinct(name for one in flat for name in one):
        values = [one.get(name, "") for one in flat]
        if len(set(values)) > 1:
            rows.append({"name": name} | {str(i): value for i, value in enumerate(values)})
    return rows, {"name": "setting"} | {str(i): run.name for i, run in enumerate(runs)}
