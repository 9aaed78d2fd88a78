"""What a chart finds in its rows: its panels, lines, places and floor. No drawing here."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llfc_jax.report.charts import Chart
from llfc_jax.report.numbers import (
    ADVERBS,
    Rows,
    clean,
    describe,
    distinct,
    finite,
    format_number,
    is_number,
    name_of,
    plain,
)

DECADES = 8  # the most that a logarithmic axis shows: float32 has no more to say
SHADES = 4  # decades that the colours of a map show
NEAR = 0.25  # of the greatest value; values below that are near 0
TOLERANCE = 1e-6  # within which two numbers are the same choice, as in `Chart.where`
NAMES = 8  # more lines than that have colours in order and no shapes of their own
BETWEEN = " · "  # stands between the parts of a panel's name
PANELS = 4  # the most panels in a row


@dataclass(frozen=True)
class Content:
    """What a chart finds in its rows.

    Attributes:
        choices: panel column with several values, or column of `where` -> its values.
        shared: panel columns with one value -> that value.
        panels: the panel columns that have several values.
        labels: names of the panels, row by row; none if there is nothing to draw.
        across: panels in a row.
        names: names along x, in order of appearance; None where x is a number.
        places: the different numbers along x.
        lines: values of the `lines` column: numbers ascending, names in order of appearance.
        once: y columns that are the same for all lines, drawn once.
        y: y columns that hold anything.
        floor: the power of ten where a logarithmic axis draws smaller values.
        ceiling: the power of ten above all values.
        least: the least value.
        from_zero: whether a linear axis begins at 0: no value is negative, and some are near 0 or
            have a band that may reach it.
    """

    choices: Mapping[str, list[Any]]
    shared: Mapping[str, Any]
    panels: tuple[str, ...]
    labels: list[str]
    across: int
    names: list[str] | None
    places: list[float]
    lines: list[Any]
    once: list[str]
    y: list[str]
    floor: float
    ceiling: float
    least: float
    from_zero: bool

    @property
    def clipped(self) -> bool:
        """Whether any value is below the floor."""
        return self.least < self.floor * (1 - 1e-9)

    @property
    def ordered(self) -> bool:
        """Whether the lines have colours along an order: numbers, or too many names for hues."""
        return self.crowded or (bool(self.lines) and all(map(is_number, self.lines)))

    @property
    def crowded(self) -> bool:
        """Whether there are more lines than hues and shapes can set apart."""
        return len(self.lines) > NAMES

    @property
    def line_names(self) -> list[Any]:
        """The lines as a spec has them: numbers as texts where another line has a name."""
        numbers = bool(self.lines) and all(map(is_number, self.lines))
        return [f"{x:g}" for x in self.lines] if numbers and self.once else list(self.lines)

    @property
    def picked(self) -> list[str]:
        """The fields that a legend explains, and a click on it picks from."""
        several = {"line": len(self.lines) > 1, "column": len(self.y) > 1}
        return [name for name in several if several[name]]

    @property
    def floor_words(self) -> str:
        """What a logarithmic axis does to small values."""
        floor = format_number(self.floor)
        return f"values below {floor} are drawn at {floor}"


def read(chart: Chart, rows: Rows) -> Content:
    """Returns what `chart` finds in `rows`.

    Rows that do not meet `chart.where`, have nothing at x, or hold no finite number are left out.
    """
    there = [row for row in rows if plain(row.get(chart.x)) is not None]
    rows = [row for row in there if all(_is_same(row.get(c), v) for c, v in chart.where.items())]
    rows = [row for row in rows if any(not math.isnan(finite(row.get(y))) for y in chart.y)]
    values = {column: _values(rows, column) for column in chart.panels}
    panels = tuple(column for column, several in values.items() if len(several) > 1)
    keys = distinct(tuple(plain(row.get(c)) for c in panels) for row in rows)
    across = len(keys)
    if len(panels) > 1:  # the one with more values runs across, where they fit
        order = {c: {value: i for i, value in enumerate([*values[c], None])} for c in panels}
        first = 3 <= len(values[panels[0]]) <= PANELS or len(values[panels[0]]) >= len(
            values[panels[1]]
        )
        down = panels[::-1] if first else panels
        across = len(values[down[-1]])
        keys.sort(key=lambda key: [order[c][key[panels.index(c)]] for c in down])
    numbers = all(is_number(row[chart.x]) for row in rows)
    lines = _values(rows, chart.lines) if chart.lines else []
    least, greatest, floor, ceiling = _extent(chart, rows)
    return Content(
        choices={c: values[c] for c in panels} | {c: _values(there, c) for c in chart.where},
        shared={c: found[0] for c, found in values.items() if len(found) == 1},
        panels=panels,
        labels=[BETWEEN.join(map(label_of, panels, key)) for key in keys],
        across=across if across <= PANELS else {5: 3, 6: 3, 9: 3}.get(across, PANELS),
        names=None if numbers else distinct(str(plain(row[chart.x])) for row in rows),
        places=sorted({float(row[chart.x]) for row in rows}) if numbers else [],
        lines=lines,
        once=[]
        if chart.mark == "heat" or len(lines) < 2
        else [y for y in chart.y if not _varies(chart, rows, y, lines[0])],
        y=[y for y in chart.y if any(not math.isnan(finite(row.get(y))) for row in rows)],
        floor=floor,
        ceiling=ceiling,
        least=least,
        from_zero=least >= 0 and (bool(chart.band) or least < NEAR * greatest),
    )


def every(chart: Chart) -> str:
    """Returns the name of the line of a column that is the same for all lines."""
    return f"every {name_of(chart.lines)}"


def parameter(column: str) -> str:
    """Returns the name of the parameter that chooses among a column's values."""
    return "by_" + re.sub(r"\W", "_", column)


def _is_same(value: Any, wanted: Any) -> bool:
    if is_number(value) and is_number(wanted):
        return abs(float(value) - float(wanted)) <= TOLERANCE
    return value == wanted


def _values(rows: Rows, column: str) -> list[Any]:
    """Returns what stands in a column: numbers ascending, names in order of appearance."""
    values = [value for row in rows if (value := plain(row.get(column))) is not None]
    different = distinct(values)
    return sorted(different) if all(map(is_number, different)) else different


def label_of(column: str, value: Any) -> str:
    """Returns a panel's name: a pair or a text as it is, anything else with its column."""
    if isinstance(value, str) and column not in ADVERBS:
        return clean(value)
    return describe(column, value)


def _extent(chart: Chart, rows: Rows) -> tuple[float, float, float, float]:
    """Returns the least and greatest value, and the powers of ten that a logarithmic axis spans."""
    values = [v for row in rows for y in chart.y if not math.isnan(v := finite(row.get(y)))]
    positive = [v for v in values if v > 0]
    if not positive:
        return min(values, default=1.0), max(values, default=1.0), 10.0**-DECADES, 1.0
    low = math.floor(math.log10(min(positive)) + 1e-9)
    high = min(308, math.ceil(math.log10(max(positive)) - 1e-9))  # what a float can hold
    decades = SHADES if chart.mark == "heat" else DECADES
    return min(values), max(values), 10.0 ** max(low, high - decades), 10.0**high


def _varies(chart: Chart, rows: Rows, y: str, first: Any) -> bool:
    """Returns whether column `y` differs between lines, or is missing for the first of them."""
    seen: dict[tuple[Any, ...], float] = {}
    for is_first in (True, False):
        for row in rows:
            value = finite(row.get(y))
            if math.isnan(value) or (plain(row.get(chart.lines or "")) == first) != is_first:
                continue
            place = tuple(plain(row.get(column)) for column in (chart.x, *chart.panels))
            if not is_first and place not in seen:
                return True
            if not math.isclose(seen.setdefault(place, value), value, rel_tol=1e-6, abs_tol=1e-12):
                return True
    return False
