"""From a chart and its rows to what is drawn: panels, lines, points. No drawing here.

The page's script does the same from the embedded rows, so that a reader can turn the choices;
both follow the description of `llfc_jax.results.Chart`.
"""

import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from llfc_jax.results import Chart

DECADES = 8  # the most that a logarithmic axis shows: float32 has no more to say
TOLERANCE = 1e-6  # within which two numbers are the same choice, as in `Chart.where`
NAMES = 8  # more names than that along `lines` cannot be told apart but by order


@dataclass(frozen=True)
class Series:
    """One line: points in order of x, NaN where there is a gap.

    Attributes:
        y: the column drawn.
        line: its value in the chart's `lines` column; None where the column does not depend on it.
        x: numbers, or places in `Plan.names`.
        values: what stands there.
        deviation: standard deviation of each value, or None.
    """

    y: str
    line: Any
    x: tuple[float, ...]
    values: tuple[float, ...]
    deviation: tuple[float, ...] | None


@dataclass(frozen=True)
class Panel:
    """One small multiple: the values of the chart's varying panel columns, and its lines."""

    key: tuple[Any, ...]
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Plan:
    """What a chart draws.

    Attributes:
        panels: in order of appearance.
        varying: the panel columns that tell the panels apart.
        pinned: what all points share: the chart's `where`, and panel columns of a single value.
        names: labels along x where x is a column of names, else None.
        lines: values of the `lines` column: numbers ascending, names in order of appearance.
        ordered: whether the lines are drawn in sequential colours.
        floor: on a logarithmic axis, where smaller values are drawn.
        clipped: how many values were below the floor.
        bottom: where a logarithmic axis begins: at the floor, or a little below the values.
    """

    panels: tuple[Panel, ...]
    varying: tuple[str, ...]
    pinned: Mapping[str, Any]
    names: tuple[str, ...] | None
    lines: tuple[Any, ...]
    ordered: bool
    floor: float | None
    clipped: int
    bottom: float | None

    def grid(self, most: int = 4) -> tuple[tuple[int, int], ...] | None:
        """(row, column) of each panel where two panel columns make a full table, else None.

        The first panel column runs across, at most `most` wide; the second runs down.
        """
        if len(self.varying) != 2 or not self.panels:
            return None
        across = distinct(panel.key[0] for panel in self.panels)
        down = distinct(panel.key[1] for panel in self.panels)
        if len(across) > most or len(self.panels) != len(across) * len(down):
            return None
        return tuple((down.index(p.key[1]), across.index(p.key[0])) for p in self.panels)


def is_number(value: Any) -> bool:
    """Whether a cell is a number (a truth value is none)."""
    return isinstance(value, Real) and not isinstance(value, bool)


def number(value: Any) -> float:
    """A cell as a finite float, NaN where it is none."""
    if not is_number(value):
        return math.nan
    value = float(value)
    return value if math.isfinite(value) else math.nan


def same(value: Any, wanted: Any) -> bool:
    """Whether a cell is the wanted value; numbers to 1e-6."""
    if is_number(value) and is_number(wanted):
        return abs(float(value) - float(wanted)) <= TOLERANCE
    return value == wanted


def show(value: Any) -> str:
    """A cell in words: numbers to four significant digits, a dash where there is nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple, set, frozenset)):
        return "; ".join(show(v) for v in value) or "–"
    if not is_number(value):
        return str(value) or "–"
    if float(value).is_integer() and abs(float(value)) < 1e7:
        return str(int(value))
    return re.sub(r"e([+-])0+", r"e\1", f"{float(value):.4g}")


def numeric(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    """Whether a column holds numbers and nothing else."""
    cells = [row[column] for row in rows if row.get(column) is not None]
    return bool(cells) and all(is_number(cell) for cell in cells)


def distinct(values: Iterable[Any]) -> list[Any]:
    """Different values in order of appearance."""
    return list(dict.fromkeys(values))


def plan(chart: Chart, rows: Sequence[Mapping[str, Any]]) -> Plan:
    """What `chart` draws from `rows`.

    Rows that do not meet `chart.where`, or have nothing at x, are left out; a value that is no
    finite number is a gap. A y column that is the same for all lines at every x is drawn once.
    On a logarithmic axis at most 8 decades are shown, and smaller values stand on its floor.
    """
    rows = [row for row in rows if all(same(row.get(c), v) for c, v in chart.where.items())]
    rows = [row for row in rows if _is_there(row.get(chart.x))]
    names = None
    if not all(is_number(row[chart.x]) for row in rows):
        names = tuple(distinct(str(row[chart.x]) for row in rows))
    lines = _lines(chart, rows)
    once = {y for y in chart.y if len(lines) > 1 and not _varies(chart, rows, y)}

    keys = distinct(tuple(_cell(row.get(c)) for c in chart.panels) for row in rows)
    vary = [i for i in range(len(chart.panels)) if len({key[i] for key in keys}) > 1]
    place = None if names is None else {name: i for i, name in enumerate(names)}
    panels = []
    for key in keys:
        mine = [row for row in rows if tuple(_cell(row.get(c)) for c in chart.panels) == key]
        series = []
        for y in chart.y:
            for line in [None] if chart.lines is None or y in once else lines:
                points = mine
                if line is not None:
                    points = [row for row in mine if _cell(row.get(chart.lines or "")) == line]
                elif y in once:
                    points = _one_per_x(chart, mine)
                made = _series(chart, y, line, points, place)
                if made is not None:
                    series.append(made)
        panels.append(Panel(tuple(key[i] for i in vary), tuple(series)))
    panels = tuple(panel for panel in panels if panel.series)
    floor, clipped, bottom = _floor(panels) if chart.log else (None, 0, None)
    return Plan(
        panels=panels,
        varying=tuple(chart.panels[i] for i in vary),
        pinned={**chart.where}
        | {c: keys[0][i] for i, c in enumerate(chart.panels) if keys and i not in vary},
        names=names,
        lines=lines,
        ordered=_ordered(chart, lines),
        floor=floor,
        clipped=clipped,
        bottom=bottom,
    )


def _is_there(value: Any) -> bool:
    return value is not None and (not is_number(value) or math.isfinite(value))


def _cell(value: Any) -> Hashable:
    """A cell that can be looked up: numbers by value, everything else as it reads."""
    if is_number(value):
        return float(value)
    return value if value is None or isinstance(value, (str, bool)) else str(value)


def _lines(chart: Chart, rows: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    if chart.lines is None:
        return ()
    values = distinct(_cell(row[chart.lines]) for row in rows if _is_there(row.get(chart.lines)))
    return tuple(sorted(values) if all(is_number(v) for v in values) else values)


def _ordered(chart: Chart, lines: Sequence[Any]) -> bool:
    """Numbers and layers (in depth) have an order to show; so have names too many to tell apart."""
    numbers = bool(lines) and all(is_number(v) for v in lines)
    return numbers or chart.lines == "layer" or len(lines) > NAMES


def _varies(chart: Chart, rows: Sequence[Mapping[str, Any]], y: str) -> bool:
    """Whether column `y` differs between lines at any one place."""
    seen: dict[Hashable, float] = {}
    for row in rows:
        value = number(row.get(y))
        place = (_cell(row[chart.x]), *(_cell(row.get(c)) for c in chart.panels))
        if math.isnan(value):
            continue
        if not math.isclose(seen.setdefault(place, value), value, rel_tol=1e-6, abs_tol=1e-12):
            return True
    return False


def _one_per_x(chart: Chart, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return list({_cell(row[chart.x]): row for row in reversed(rows)}.values())


def _series(
    chart: Chart,
    y: str,
    line: Any,
    rows: Sequence[Mapping[str, Any]],
    place: Mapping[str, int] | None,
) -> Series | None:
    points = []
    for row in rows:
        x = float(row[chart.x]) if place is None else float(place[str(row[chart.x])])
        deviation = number(row.get(chart.band[y])) if y in chart.band else math.nan
        points.append((x, number(row.get(y)), deviation))
    points.sort(key=lambda point: point[0])
    if all(math.isnan(value) for _, value, _ in points):
        return None
    x, values, deviation = (tuple(column) for column in zip(*points, strict=True))
    banded = any(not math.isnan(d) for d in deviation)
    return Series(y, line, x, values, deviation if banded else None)


def _floor(panels: Iterable[Panel]) -> tuple[float, int, float]:
    """Floor of a logarithmic axis (a power of ten), values below it, and where the axis begins."""
    values = [v for p in panels for s in p.series for v in s.values if not math.isnan(v)]
    positive = [v for v in values if v > 0]
    if not positive:
        return 10.0**-DECADES, len(values), 10.0**-DECADES
    least, most = min(positive), max(positive)
    low = math.floor(math.log10(least) + 1e-9)
    high = math.ceil(math.log10(most) - 1e-9)
    floor = 10.0 ** max(low, high - DECADES)
    clipped = sum(v < floor * (1 - 1e-9) for v in values)
    return floor, clipped, floor if clipped else least * (least / most) ** 0.06 / 1.1
