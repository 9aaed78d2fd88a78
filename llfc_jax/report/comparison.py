"""Several runs on one page, side by side: the same charts, one colour per run."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llfc_jax.errors import ConfigError
from llfc_jax.report import document, grammar, markup, settings
from llfc_jax.report.markup import tag
from llfc_jax.report.page import Verdict, opening
from llfc_jax.report.sections import Book, Rows
from llfc_jax.results import Chart, Section

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


def write_comparison(
    path: str | os.PathLike[str],
    runs: Sequence[Run],
    *,
    summary_columns: Mapping[str, str],
    title: str = "Runs side by side",
    lead: str = "",
    verdicts: Iterable[Verdict | str] = (),
    headline: str | None = None,
) -> None:
    """Write one page that shows several runs in the same charts, whole or not at all.

    A chart that has no lines of its own gets one per run. Of one that has, a single line is shown
    (the middle one of numbers, the last of names), again one per run; which, the reader can choose.

    Args:
        path: the HTML file.
        runs: in the order in which they are shown.
        summary_columns: column of the runs' summary rows -> heading.
        title: heading of the page.
        lead: a sentence or two below it.
        verdicts: what was found, in words.
        headline: name of the chart on the first screen; the first chart by default.

    Raises:
        ConfigError: two runs have the same name.
    """
    names = [run.name for run in runs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"two runs are called {twice[0]!r}; give each run a name of its own")
    book = Book(headline)
    parts = [book.add(section, rows, []) for section, rows in together(runs)]
    summary = [{RUN: run.name, **row} for run in runs for row in run.summary]
    differences, columns = differing(runs)
    changed = markup.table(differences, columns, "What differs between the runs")
    heading = {RUN: "run", **summary_columns}
    main = (
        opening(title, lead, verdicts, book.first),
        tag("div", changed, class_="summary") if differences else "",
        tag("div", markup.table(summary, heading, "Summary of every run"), class_="summary"),
        *parts,
    )
    document.write(path, title, nav=book.links, main="".join(main), data=book.data())


def together(runs: Sequence[Run]) -> list[tuple[Section, Rows]]:
    """Each measure once, with the rows of all runs that have it and charts that compare them."""
    rows: dict[str, list[dict[str, Any]]] = {}
    found: dict[str, Section] = {}
    for run in runs:
        for section, mine in run.sections:
            found.setdefault(section.name, section)
            rows.setdefault(section.name, []).extend({**row, RUN: run.name} for row in mine)
    return [
        (
            dataclasses.replace(
                section,
                charts=tuple(beside(chart, rows[name]) for chart in section.charts),
                columns={RUN: "run", **section.columns},
            ),
            rows[name],
        )
        for name, section in found.items()
    ]


def beside(chart: Chart, rows: Rows) -> Chart:
    """The chart with one line per run, and its own lines as a choice."""
    where = dict(chart.where)
    if chart.lines is not None:
        plan = grammar.plan(chart, rows)
        numbers = all(grammar.is_number(line) for line in plan.lines)
        if plan.lines:
            where[chart.lines] = plan.lines[len(plan.lines) // 2 if numbers else -1]
    return dataclasses.replace(chart, lines=RUN, where=where)


def differing(runs: Sequence[Run]) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Settings that are not the same in all runs: rows, and columns with their headings."""
    flat = [{row["name"]: row["value"] for row in settings.flat(run.details)} for run in runs]
    rows = []
    for name in grammar.distinct(name for one in flat for name in one):
        values = [one.get(name, "") for one in flat]
        if len(set(values)) > 1:
            rows.append({"name": name} | {str(i): value for i, value in enumerate(values)})
    return rows, {"name": "setting"} | {str(i): run.name for i, run in enumerate(runs)}
