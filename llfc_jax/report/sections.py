"""The sections of a page: words, figures, folded numbers, and the data that the script draws."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llfc_jax.report import figures, grammar, markup, pictures, style
from llfc_jax.report.markup import escape, inline, prose, tag
from llfc_jax.results import Chart, Section

Rows = Sequence[Mapping[str, Any]]
Files = Sequence[str | os.PathLike[str]]
ROWS = 100  # of a table that the page shows; the rest is in the section's CSV


class Book:
    """Collects what the sections' charts need: identifiers, data for the script, the headline."""

    def __init__(self, headline: str | None) -> None:
        self.headline = headline
        self.first = ""
        self.links: list[tuple[str, str]] = []
        self._charts: list[dict[str, Any]] = []
        self._tables: list[dict[str, Any]] = []

    def add(self, section: Section, rows: Rows, files: Files) -> str:
        """A section's markup; the headline chart is kept for the first screen as well."""
        number = len(self.links) + 1
        self.links.append((f"section-{number}", section.title))
        made = []
        for i, chart in enumerate(section.charts):
            svg = Path(files[i]).read_text("utf-8") if i < len(files) else None
            svg = svg or figures.to_svg(figures.draw(chart, rows))
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
