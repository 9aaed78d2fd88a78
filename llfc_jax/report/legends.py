"""What a line looks like, and the legend that says so: entries, or a strip of colours."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from llfc_jax.report import grammar, style
from llfc_jax.results import Chart

Entry = Line2D | Patch
_NOTHING = object()
LINE = 0.17  # height of one line of the legend, inches


@dataclass(frozen=True)
class Look:
    """How a line is drawn.

    The y column shows in dash, hatch and whether markers are filled; the value in the `lines`
    column in colour and, where that is a name, in the shape of the markers.
    """

    colour: str
    dash: Any
    marker: str
    fill: str
    hatch: str | None


def look(chart: Chart, plan: grammar.Plan, y: str, line: Any) -> Look:
    """How the line of column `y` at the value `line` is drawn."""
    index = list(chart.y).index(y)
    if line is None:
        colour = style.INK["ink"][0] if len(plan.lines) > 1 else style.categorical(index)
        return _look(colour, index, index)
    place = plan.lines.index(line)
    if plan.ordered:
        return _look(style.sequential(place / max(1, len(plan.lines) - 1)), index, index)
    return _look(style.categorical(place), index, place)


def _look(colour: str, index: int, shape: int) -> Look:
    kind = index % len(style.DASHES)
    return Look(
        colour=colour,
        dash=style.DASHES[kind],
        marker=style.MARKERS[shape % len(style.MARKERS)],
        fill=colour if kind == 0 else "white",
        hatch=style.HATCHES[kind],
    )


def entries(chart: Chart, plan: grammar.Plan) -> list[Entry]:
    """The legend's entries: the y columns, then the lines unless a strip of colours shows them."""
    shown = [(s.y, s.line) for panel in plan.panels for s in panel.series]
    several = len(plan.lines) > 1
    made: list[Entry] = []
    for index, (y, label) in enumerate(chart.y.items()):
        first = next((line for column, line in shown if column == y), _NOTHING)
        if first is _NOTHING or (len(chart.y) == 1 and first is not None):
            continue
        if first is None:
            words = f"{label}, for every {chart.lines}" if several else label
            made.append(_entry(chart, look(chart, plan, y, None), words))
        else:
            colour = style.SOFT if several else look(chart, plan, y, first).colour
            made.append(_entry(chart, _look(colour, index, index), label))
    if several and len(plan.lines) <= grammar.NAMES:
        drawn = {line for _, line in shown}
        for line in plan.lines:
            if line in drawn:
                how = look(chart, plan, next(iter(chart.y)), line)
                made.append(_entry(chart, how, label_of(chart, line)))
    return made if len(made) > 1 or several else []


def label_of(chart: Chart, line: Any) -> str:
    """Words for a value of the chart's `lines` column."""
    words = grammar.show(line)
    return f"{chart.lines} = {words}" if grammar.is_number(line) else words


def _entry(chart: Chart, how: Look, label: str) -> Entry:
    label = style.drawable(label) or " "
    if chart.mark == "bars":
        return Patch(facecolor=how.colour, hatch=how.hatch, edgecolor="white", lw=0, label=label)
    return Line2D(
        [],
        [],
        color=how.colour,
        linestyle=how.dash if chart.mark == "line" else "none",
        marker=how.marker,
        markerfacecolor=how.fill,
        label=label,
    )


def _columns(made: Sequence[Entry], width: float) -> int:
    longest = max(len(str(entry.get_label())) for entry in made)
    return max(1, min(len(made), int(width / (0.072 * longest + 0.6))))


def height(made: Sequence[Entry], width: float) -> float:
    """Inches that the legend takes below a figure of `width` inches."""
    return LINE * -(-len(made) // _columns(made, width)) + 0.08 if made else 0.0


def draw(
    figure: Figure, chart: Chart, plan: grammar.Plan, made: Sequence[Entry], axes: np.ndarray
) -> None:
    """Draw the legend at the foot and, for many ordered lines, a strip of colours at the right."""
    if len(plan.lines) > grammar.NAMES:
        _draw_strip(figure, chart, plan, axes)
    if not made:
        return
    columns = _columns(made, figure.get_size_inches()[0])
    rows = [made[i : i + columns] for i in range(0, len(made), columns)]
    by_column = itertools.chain(*itertools.zip_longest(*rows))  # Matplotlib fills columns first
    legend = figure.legend(
        handles=[entry for entry in by_column if entry is not None],
        loc="lower center",
        bbox_to_anchor=(0.5, 0),
        ncols=columns,
        borderaxespad=0.3,
    )
    legend.set_in_layout(False)


def _draw_strip(figure: Figure, chart: Chart, plan: grammar.Plan, axes: np.ndarray) -> None:
    count = len(plan.lines)
    colours = ListedColormap([style.sequential(i / (count - 1)) for i in range(count)])
    strip = figure.colorbar(
        ScalarMappable(BoundaryNorm(np.arange(count + 1) - 0.5, count), colours),
        ax=list(axes.flat),
        fraction=0.04,
        pad=0.01,
        aspect=30,
    )
    step = -(-count // 8)
    places = list(range(0, count, step))
    strip.set_ticks(places, labels=[style.drawable(grammar.show(plan.lines[i])) for i in places])
    strip.ax.set_title(style.drawable(chart.lines or ""), weight="normal")
    strip.ax.tick_params(size=0)
    strip.ax.grid(visible=False)
    strip.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
