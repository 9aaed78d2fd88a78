"""One page that shows a run: it opens offline, alone, on any screen, with or without scripts."""

import dataclasses
import importlib.resources
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from llfc_jax.report import figures as drawing
from llfc_jax.report import grammar, markup, pictures, style
from llfc_jax.report.markup import escape, inline, prose, tag
from llfc_jax.results import Chart, Section, write_text

Rows = Sequence[Mapping[str, Any]]
ROWS = 100  # of a table that the page shows; the rest is in the section's CSV
SCRIPTS = ("grammar.js", "draw.js", "page.js")
READ_DATA = "const DATA = JSON.parse(document.getElementById('data').textContent);"
TONES = {"holds": "✓", "fails": "✗", "warning": "!", "plain": "–"}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A finding in one sentence of plain words, with `code` in backticks.

    Attributes:
        text: the sentence.
        tone: its mark: "holds" a tick, "fails" a cross, "warning" an exclamation mark.
    """

    text: str
    tone: Literal["plain", "holds", "fails", "warning"] = "plain"


def write_page(
    path: str | os.PathLike[str],
    *,
    title: str,
    lead: str,
    summary_rows: Rows,
    summary_columns: Mapping[str, str],
    verdicts: Iterable[Verdict | str],
    sections: Iterable[tuple[Section, Rows, Sequence[str | os.PathLike[str]]]],
    details: Mapping[str, Any],
    headline: str | None = None,
) -> None:
    """Write the page of a run, whole or not at all.

    Args:
        path: the HTML file.
        title: heading of the page.
        lead: a sentence or two below it.
        summary_rows: one row per pair and alignment.
        summary_columns: column of these rows -> heading; a cell that is a list of words is flags.
        verdicts: what was found, in words.
        sections: per measure its words and charts, its rows, and the SVG files of its charts in
            order (`figures.save_all`); a chart without a file is drawn here.
        details: how it was made (config, versions, device, seed); nested mappings are folded.
        headline: name of the chart on the first screen; the first chart by default.
    """
    book = _Book(headline)
    parts = [book.add(*section) for section in sections]
    head = tag(
        "header",
        tag("h1", escape(title)),
        tag("div", prose(lead), class_="lead"),
    )
    first = tag(
        "div",
        tag("ul", *(_verdict(v) for v in verdicts), class_="verdicts"),
        book.first,
        class_="first",
    )
    summary = markup.table(summary_rows, summary_columns, "Summary: one row per pair and alignment")
    _write(
        path,
        title,
        nav=[*book.links, ("details", "Details")],
        main=head + first + tag("div", summary, class_="summary") + "".join(parts),
        details=details,
        data=book.data(),
    )


def _write(
    path: str | os.PathLike[str],
    title: str,
    *,
    nav: Iterable[tuple[str, str]],
    main: str,
    details: Mapping[str, Any],
    data: Any,
) -> None:
    """Put the parts into one file with its styles, script and data."""
    assets = importlib.resources.files(__package__ or "llfc_jax.report") / "assets"
    css = _variables() + (assets / "page.css").read_text("utf-8")
    script = "".join((assets / name).read_text("utf-8") for name in SCRIPTS)
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    links = "".join(tag("li", tag("a", escape(text), href=f"#{name}")) for name, text in nav)
    bar = tag(
        "nav",
        tag("ul", links),
        tag("button", "Dark", type="button", id="theme", hidden=True),
        aria_label="Sections",
    )
    write_text(
        Path(path),
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}; img-src data:">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="data:,">\n'
        f"{tag('title', escape(title))}\n<style>\n{css}</style>\n</head>\n<body>\n"
        f"{tag('a', 'Skip to the results', class_='skip', href='#main')}\n{bar}\n"
        f"{tag('main', main, _details(details), id='main')}\n"
        f'<script type="application/json" id="data">{markup.embed(data)}</script>\n'
        f"<script>\n(() => {{\n'use strict';\n{READ_DATA}\n{script}}})();\n</script>\n"
        "</body>\n</html>\n",
    )


class _Book:
    """Collects what the sections' charts need: identifiers, data for the script, the headline."""

    def __init__(self, headline: str | None) -> None:
        self.headline = headline
        self.first = ""
        self.links: list[tuple[str, str]] = []
        self._charts: list[dict[str, Any]] = []
        self._tables: list[dict[str, Any]] = []

    def add(self, section: Section, rows: Rows, files: Sequence[str | os.PathLike[str]]) -> str:
        """A section's markup; the headline chart is kept for the first screen as well."""
        number = len(self.links) + 1
        self.links.append((f"section-{number}", section.title))
        made = []
        for i, chart in enumerate(section.charts):
            svg = Path(files[i]).read_text("utf-8") if i < len(files) else None
            svg = svg or drawing.to_svg(drawing.draw(chart, rows))
            if chart.name == self.headline or (self.headline is None and not self.first):
                self.first = self._figure(chart, svg, plain=True)
            made.append(self._figure(chart, svg))
        folded = _folded(section, rows, len(self._tables))
        self._tables.append(_table_data(section, rows))
        words = tag("div", tag("h2", escape(section.title)), prose(section.text), class_="words")
        content = tag("div", *made, folded, class_="figures")
        return tag("section", words, content, id=f"section-{number}")

    def _figure(self, chart: Chart, svg: str, *, plain: bool = False) -> str:
        number = len(self._charts) + 1
        self._charts.append(
            {**dataclasses.asdict(chart), "id": f"figure-{number}", "table": len(self._tables)}
        )
        label = f"{chart.title}. {chart.caption}"
        return tag(
            "figure",
            tag("figcaption", tag("b", inline(chart.title)), " ", inline(chart.caption)),
            tag("div", pictures.inline(svg, f"f{number}", label), class_="plot"),
            id=f"figure-{number}",
            data_plain=plain,
        )

    def data(self) -> dict[str, Any]:
        """What the script draws from."""
        return {
            "charts": _plain(self._charts),
            "tables": self._tables,
            "rows": ROWS,
            "levels": style.LEVELS,
            "hues": len(style.CATEGORICAL),
            "names": grammar.NAMES,
            "decades": grammar.DECADES,
        }


def _plain(value: Any) -> Any:
    """For JSON: what is no plain value as it reads."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (str, bool)):
        return value
    if grammar.is_number(value):
        return value if isinstance(value, int) else float(value)
    return str(value)


def _table_data(section: Section, rows: Rows) -> dict[str, Any]:
    keys: set[str] = set()
    wanted = list(section.columns)
    for chart in section.charts:
        keys |= {chart.x, *chart.panels, *chart.where, *([chart.lines] if chart.lines else [])}
        wanted += [*chart.y, *chart.band.values()]
    return {
        "name": section.name,
        "title": section.title,
        "keys": [column for column in section.columns if column in keys],
        "headings": dict(section.columns),
        "count": len(rows),
        "columns": markup.columns_of(rows, [*sorted(keys), *wanted]),
    }


def _folded(section: Section, rows: Rows, number: int) -> str:
    shown = rows[:ROWS]
    caption = f"{section.title}: {len(rows):,} rows"
    if len(rows) > len(shown):
        caption = f"{section.title}: the first {len(shown)} of {len(rows):,} rows"
        caption += f"; all of them are in {section.name}.csv"
    return tag(
        "details",
        tag("summary", "Numbers"),
        markup.table(shown, section.columns, caption),
        class_="numbers",
        data_table=str(number),
    )


def _verdict(verdict: Verdict | str) -> str:
    verdict = Verdict(verdict) if isinstance(verdict, str) else verdict
    spoken = "" if verdict.tone == "plain" else f"{verdict.tone.capitalize()}: "
    return tag(
        "li",
        tag("span", TONES[verdict.tone], class_="mark", aria_hidden="true"),
        tag("span", tag("span", spoken, class_="hidden"), inline(verdict.text)),
        class_=verdict.tone,
    )


def _details(details: Mapping[str, Any]) -> str:
    plain = {k: v for k, v in details.items() if not isinstance(v, Mapping)}
    nested = {k: v for k, v in details.items() if isinstance(v, Mapping)}
    columns = {"name": "setting", "value": "value"}
    tables = [markup.table(_flat(plain), columns, "How this was made")] if plain else []
    tables += [
        tag(
            "details",
            tag("summary", escape(name)),
            markup.table(_flat(values), columns, f"{name}: every value"),
        )
        for name, values in nested.items()
    ]
    words = tag("div", tag("h2", "Details"), class_="words")
    return tag("section", words, tag("div", *tables, class_="figures"), id="details")


def _flat(values: Mapping[str, Any], before: str = "") -> list[dict[str, str]]:
    """Nested settings as rows with dotted names; lists as they are written in Python."""
    rows = []
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{name}.")
        else:
            text = value if isinstance(value, str) and value else repr(value)
            rows.append({"name": name, "value": text})
    return rows


def _variables() -> str:
    """The colours of both themes; the reader's choice wins over the system's."""
    colours = style.variables()
    light = "".join(f"--{name}:{pair[0]};" for name, pair in colours.items())
    dark = "".join(f"--{name}:{pair[1]};" for name, pair in colours.items())
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{"
        f":root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f"@media screen{{:root[data-theme=dark]{{color-scheme:dark;{dark}}}}}\n"
    )
