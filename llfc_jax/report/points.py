"""What a chart draws: its rows as points, each with its panel, line, place and value."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llfc_jax.report.charts import Chart
from llfc_jax.report.numbers import (
    ADVERBS,
    Row,
    Rows,
    clean,
    describe,
    distinct,
    finite,
    is_number,
    plain,
)

DECADES = 8  # the most that a logarithmic axis shows: float32 has no more to say
SHADES = 4  # decades that the colours of a map show
NEAR = 0.25  # of the greatest value; values below that are near 0
NAMES = 8  # more lines than that have colours in order and no shapes of their own
BETWEEN = " · "  # stands between the parts of a panel's name
PANELS = 4  # the most panels in a row


@dataclass(frozen=True)
class Points:
    """The points of a chart, and what they have in common.

    Attributes:
        data: a dictionary per row and y column: where it is (`x`, `panel`, `line`, `column`), the
            `value` or None, its `spread`, the single value `dot`, and what the reader may choose
            by (`parameter` of each of `choices`).
        choices: panel column with several values, or column of `where` -> its values.
        shared: panel columns with one value -> that value.
        panels: the panel columns that have several values.
        labels: names of the panels, row by row; none if there is nothing to draw.
        across: panels in a row.
        names: names along x, in order of appearance; None where x is a number.
        places: the different numbers along x.
        lines: values of the `lines` column: numbers ascending, names in order of appearance.
        words: of the y columns that hold anything.
        floor: the power of ten where a logarithmic axis draws smaller values.
        ceiling: the power of ten above all values.
        clipped: whether any value is below the floor.
        from_zero: whether a linear axis begins at 0: no value is negative, and some are near 0 or
            have a band that may reach it.
    """

    data: list[dict[str, Any]]
    choices: Mapping[str, list[Any]]
    shared: Mapping[str, Any]
    panels: tuple[str, ...]
    labels: list[str]
    across: int
    names: list[str] | None
    places: list[float]
    lines: list[Any]
    words: list[str]
    floor: float
    ceiling: float
    clipped: bool
    from_zero: bool

    @property
    def ordered(self) -> bool:
        """Whether the lines have colours along an order: numbers, or too many names for hues."""
        return self.crowded or (bool(self.lines) and all(map(is_number, self.lines)))

    @property
    def crowded(self) -> bool:
        """Whether there are more lines than hues and shapes can set apart."""
        return len(self.lines) > NAMES

    @property
    def picked(self) -> list[str]:
        """The fields that a legend explains, and a click on it picks from."""
        several = {"line": len(self.lines) > 1, "column": len(self.words) > 1}
        return [name for name in several if several[name]]


def read(chart: Chart, rows: Rows) -> Points:
    """Returns the points that `chart` draws of `rows`.

    Rows with nothing at x are left out. Those that do not meet `chart.where` are drawn once the
    reader chooses them, and have no say in what the chart looks like.
    """
    there = [row for row in rows if plain(row.get(chart.x)) is not None]
    drawn = [row for row in there if all(_is_same(row.get(c), v) for c, v in chart.where.items())]
    drawn = [row for row in drawn if any(not math.isnan(finite(row.get(y))) for y in chart.y)]
    values = {column: _values(drawn, column) for column in chart.panels}
    panels = tuple(column for column, several in values.items() if len(several) > 1)
    choices = {c: values[c] for c in panels} | {c: _values(there, c) for c in chart.where}
    labels, across = _lay_out(panels, values, drawn)
    numbers = all(is_number(row[chart.x]) for row in drawn)
    ys = [y for y in chart.y if any(not math.isnan(finite(row.get(y))) for row in drawn)]
    least, greatest, floor, ceiling = _extent(chart, drawn)
    from_zero = least >= 0 and (bool(chart.band) or least < NEAR * greatest)
    data = []
    for row in there:
        place: dict[str, Any] = {parameter(c): plain(row.get(c)) for c in choices}
        place["x"] = row[chart.x] if numbers else str(plain(row[chart.x]))
        place["panel"] = _label(panels, row)
        place["line"] = plain(row.get(chart.lines)) if chart.lines else None
        data += [place | _point(chart, row, y) for y in ys]
    return Points(
        data=data,
        choices=choices,
        shared={c: found[0] for c, found in values.items() if len(found) == 1},
        panels=panels,
        labels=labels,
        across=across if across <= PANELS else {5: 3, 6: 3, 9: 3}.get(across, PANELS),
        names=None if numbers else distinct(str(plain(row[chart.x])) for row in drawn),
        places=sorted({float(row[chart.x]) for row in drawn}) if numbers else [],
        lines=_values(drawn, chart.lines) if chart.lines else [],
        words=[clean(chart.y[y]) for y in ys],
        floor=floor,
        ceiling=ceiling,
        clipped=least < floor * (1 - 1e-9),
        from_zero=from_zero,
    )


def is_shown(chart: Chart, rows: Rows, points: Points) -> bool:
    """Returns whether pages and files show a chart: it has something to draw, and something new."""
    if chart.unless and any(not math.isnan(finite(row.get(chart.unless))) for row in rows):
        return False
    return bool(points.labels) and not (chart.compares and len(points.lines) < 2)


def _point(chart: Chart, row: Row, y: str) -> dict[str, Any]:
    """Returns what a row has to draw of one y column."""
    point: dict[str, Any] = {"column": clean(chart.y[y]), "value": plain(finite(row.get(y)))}
    if y in chart.band:
        point["spread"] = plain(finite(row.get(chart.band[y])))
    if y in chart.dots:
        point["dot"] = plain(finite(row.get(chart.dots[y])))
    return point


def _lay_out(
    panels: Sequence[str], values: Mapping[str, list[Any]], rows: Rows
) -> tuple[list[str], int]:
    """Returns the panels' names row by row, and how many stand in a row.

    Of two columns the one with more values runs across, where they fit.
    """
    keyed = {tuple(plain(row.get(c)) for c in panels): row for row in rows}
    keys = list(keyed)
    across = len(keys)
    if len(panels) > 1:
        order = {c: {value: i for i, value in enumerate([*values[c], None])} for c in panels}
        first, second = len(values[panels[0]]), len(values[panels[1]])
        down = panels[::-1] if 3 <= first <= PANELS or first >= second else panels
        across = len(values[down[-1]])
        keys.sort(key=lambda key: [order[c][key[panels.index(c)]] for c in down])
    return [_label(panels, keyed[key]) for key in keys], across


def parameter(column: str) -> str:
    """Returns the name of the parameter that chooses among a column's values."""
    return "by_" + re.sub(r"\W", "_", column)


def _label(panels: Sequence[str], row: Row) -> str:
    """Returns the name of a row's panel: pairs and texts as they are, the rest with its column."""
    values = ((column, plain(row.get(column))) for column in panels)
    return BETWEEN.join(
        clean(v) if isinstance(v, str) and c not in ADVERBS else describe(c, v) for c, v in values
    )


def _is_same(value: object, wanted: object) -> bool:
    return plain(value) == plain(wanted)


def _values(rows: Rows, column: str) -> list[Any]:
    """Returns what stands in a column: numbers ascending, names in order of appearance."""
    different = distinct(v for row in rows if (v := plain(row.get(column))) is not None)
    return sorted(different) if all(map(is_number, different)) else different


def _extent(chart: Chart, rows: Rows) -> tuple[float, float, float, float]:
    """Returns the least and greatest value, and the powers of ten that a logarithmic axis spans."""
    columns = (*chart.y, *chart.dots.values())
    values = [v for row in rows for y in columns if not math.isnan(v := finite(row.get(y)))]
    positive = [v for v in values if v > 0]
    if not positive:
        return min(values, default=1.0), max(values, default=1.0), 10.0**-DECADES, 1.0
    low = math.floor(math.log10(min(positive)) + 1e-9)
    high = min(308, math.ceil(math.log10(max(positive)) - 1e-9))  # what a float can hold
    decades = SHADES if chart.mark == "heat" else DECADES
    return min(values), max(values), 10.0 ** max(low, high - decades), 10.0**high
