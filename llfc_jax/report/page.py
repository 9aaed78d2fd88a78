"""One page that shows a run: it opens offline, alone, on any screen, and prints."""

import base64
import dataclasses
import functools
import importlib.resources
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup

from llfc_jax.errors import DataError, unknown
from llfc_jax.io import write_text
from llfc_jax.report import html, numbers, style, vega
from llfc_jax.report.charts import Chart, Section
from llfc_jax.report.numbers import Rows, clean, distinct, plain
from llfc_jax.report.points import Points, is_shown, parameter, read

if TYPE_CHECKING:
    from llfc_jax.report.figures import Figure

FIRST = 8  # sentences; more than that are folded away
MARKS = {"holds": "✓", "fails": "✗", "warning": "!", "plain": "–"}
Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A finding in one sentence of plain words, with `code` in backticks.

    Attributes:
        text: the sentence.
        tone: its mark: "holds" a tick, "fails" a cross, "warning" an exclamation mark.
    """

    text: str
    tone: Literal["plain", "holds", "fails", "warning"] = "plain"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table on the first screen.

    Attributes:
        rows: what it shows.
        columns: column of these rows -> heading; a cell that is a list of words is flags.
        caption: what the rows are.
        spread: column -> column of its deviation; shown as value ± deviation.
    """

    rows: Rows
    columns: Mapping[str, str]
    caption: str = "Summary: one row per pair and alignment"
    spread: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Report:
    """What a page shows, as data.

    Attributes:
        title: heading of the page.
        lead: a sentence or two below it.
        tables: of the first screen; the columns that say what a row is of come first.
        verdicts: what was found.
        sections: per measure its words and charts, and its rows.
        details: how it was made (config, versions, device, seed); nested mappings are folded.
        headline: name of the chart on the first screen; the first chart by default.
        links: pages that belong to this one: their names -> their addresses.
    """

    title: str
    lead: str
    tables: Sequence[Table]
    verdicts: Sequence[Verdict]
    sections: Sequence[tuple[Section, Rows]]
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    headline: str | None = None
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def plot(self, name: str, theme: style.Theme = style.SCREEN) -> "Figure":
        """Returns one of the charts, by its name, as an Altair chart; see `figures.draw`.

        Raises:
            DataError: there is no such chart; the line names the nearest.
        """
        from llfc_jax.report.figures import draw

        charts = {c.name: (c, rows) for section, rows in self.sections for c in section.charts}
        if name not in charts:
            raise DataError(unknown("figure", name, charts))
        return draw(*charts[name], theme)


def write_page(path: str | os.PathLike[str], report: Report) -> None:
    """Writes a report's page, whole or not at all."""
    sections, headline = report.sections, report.headline
    views = [_views(section, rows) for section, rows in sections]
    every = [view for several in views for view in several]
    for number, view in enumerate(every):
        view["id"] = str(number)
    data = _data(sections, every)
    text = html.environment().get_template("page.html").render(
        report=report,
        marks=MARKS,
        verdicts=[part for part in (report.verdicts[:FIRST], report.verdicts[FIRST:]) if part],
        headline=next((v for v in every if headline in (None, v["name"])), None),
        sections=[
            {"title": s.title, "text": s.text, "name": s.name, "charts": charts}
            for (s, _), charts in zip(sections, views, strict=True)
        ],
        details=_details(report.details),
        css=Markup(_colours() + _asset("page.css")),
        data=embed(data),
        vega=Markup(_asset("vega.min.js")),
        script=Markup(_asset("page.js")),
    )  # fmt: skip
    write_text(Path(path), text.strip() + "\n")


def embed(value: Any) -> str:
    """Returns a value as JSON, compressed, in characters that may stand anywhere in a page."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 6)).decode()


def records(rows: Rows, columns: Iterable[str]) -> list[Json]:
    """Returns the wanted columns of the rows as JSON holds them."""
    names = {column: clean(column) for column in columns}
    return [{names[c]: plain(row[c]) for c in names if c in row} for row in rows]


def flatten(values: Mapping[str, Any], before: str = "") -> list[dict[str, str]]:
    """Returns nested settings as rows with dotted names; lists as they are written in Python."""
    rows = []
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping) and value:
            rows += flatten(value, f"{name}.")
        else:
            text = value if isinstance(value, str) and value else repr(value)
            rows.append({"name": name, "value": text})
    return rows


def _details(details: Mapping[str, Any]) -> dict[str, list[dict[str, str]]]:
    """Returns single settings under the name "", and nested ones under theirs."""
    single = {k: v for k, v in details.items() if not isinstance(v, Mapping)}
    nested = {str(k): flatten(v) for k, v in details.items() if isinstance(v, Mapping)}
    return ({"": flatten(single)} if single else {}) | nested


def _views(section: Section, rows: Rows) -> list[Json]:
    """Returns the section's charts, without those that these rows do not need."""
    views = [_view(chart, rows) for chart in section.charts]
    return [v for v in views if not rows or is_shown(v["chart"], rows, v["read"])]


def _view(chart: Chart, rows: Rows) -> Json:
    """Returns what the page knows of a chart: its words, its spec, and with the other scale."""
    other = dataclasses.replace(chart, log=not chart.log)
    charts = [chart, other] if chart.mark in ("line", "dots") else [chart]
    points = read(chart, rows)
    return {
        "chart": chart,
        "read": points,
        "name": chart.name,
        "title": chart.title,
        "caption": chart.caption,
        "mark": chart.mark,
        "log": chart.log,
        "least": 230,  # pixels that a panel takes at least
        "margin": _margin(chart, points),
        "specs": [vega.build_spec(each, rows, style.PAGE, points, "points") for each in charts],
        "points": points.data,
    }


def _margin(chart: Chart, points: Points) -> int:
    """Returns how many pixels the vertical axis takes."""
    if chart.mark != "heat":
        return 60
    return 50 + min(130, 6 * max((len(str(line)) for line in points.lines), default=0))


def _data(sections: Sequence[tuple[Section, Rows]], views: Sequence[Json]) -> Json:
    """Returns what the page's script draws from."""
    headings = {k: v for section, _ in sections for k, v in section.columns.items()}
    choices = _choices(views, headings | numbers.KEYS)
    charts = []
    for view in views:
        mine = {
            parameter(choice["column"]): choice["column"]
            for choice in choices
            if choice["column"] in view["read"].choices
            and (choice["column"] in view["chart"].where) == (choice["value"] is not None)
        }
        shown = ("name", "mark", "log", "least", "margin", "specs", "points")
        charts.append({name: view[name] for name in shown} | {"choices": mine})
    tables = {}
    for section, rows in sections:
        columns = html.with_keys(rows, html.with_content(rows, section.columns))
        keys = [choice["column"] for choice in choices if choice["value"] is None]
        table = records(rows, [*columns, *keys])
        tables[section.name] = {"columns": columns, "keys": keys, "rows": table}
    return {
        "sections": tables,
        "charts": charts,
        "choices": choices,
        "colours": {name: light for name, (light, _) in style.variables().items()},
        "config": style.PAGE.config(),
    }


def _choices(views: Sequence[Json], headings: Mapping[str, str]) -> list[Json]:
    """Returns the page's menus: of panel columns, and of columns that charts pin alike.

    Charts that pin a column to unlike values keep theirs.
    """
    panels: dict[str, list[Any]] = {}
    pinned: dict[str, list[Any]] = {}
    starts: dict[str, list[Any]] = {}
    for view in views:
        for column, values in view["read"].choices.items():
            if column in view["chart"].where:
                pinned.setdefault(column, []).extend(values)
                starts.setdefault(column, []).append(plain(view["chart"].where[column]))
            else:
                panels.setdefault(column, []).extend(values)
    menus = [
        {"column": c, "label": headings.get(c, c), "values": [None, *distinct(v)], "value": None}
        for c, v in panels.items()
    ]
    for column, values in pinned.items():
        values = distinct(values)
        same = len(set(starts[column])) == 1 and starts[column][0] in values
        if column not in panels and same and len(values) > 1:
            label = headings.get(column, column)
            start = starts[column][0]
            menus.append({"column": column, "label": label, "values": values, "value": start})
    return menus


@functools.cache
def _asset(name: str) -> str:
    return (importlib.resources.files("llfc_jax.report") / "assets" / name).read_text("utf-8")


def _colours() -> str:
    """Returns the colours of both themes as CSS; the reader's choice wins over the system's."""
    colours = style.variables()
    light = "".join(f"--{name}:{pair[0]};" for name, pair in colours.items())
    dark = "".join(f"--{name}:{pair[1]};" for name, pair in colours.items())
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{"
        f":root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f"@media screen{{:root[data-theme=dark]{{color-scheme:dark;{dark}}}}}\n"
    )
