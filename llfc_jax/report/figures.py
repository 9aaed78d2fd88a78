"""Charts as Matplotlib figures, in the manner of a paper; the same rows give the same bytes."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from llfc_jax.io import aside, write_text
from llfc_jax.report import grammar, legends, style
from llfc_jax.results import Chart, Section

DPI = 200
MARKED = 25  # lines with more points than that go unmarked
PANEL = (2.3, 1.65)  # plotting area of a panel, inches
NAME = 0.135  # width of a name written upright along x, inches
LONGEST = 30  # characters of a name along x


def draw(chart: Chart, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw `rows` as `chart` says: one small panel per value of its panel columns.

    Columns of y differ by dash, the values of `lines` by colour: sequential where they have an
    order (numbers, layers in depth), else told apart by hue; a y column that is the same for all
    lines is drawn once, in ink. Bands are ± 1 standard deviation. Values that are no finite number
    are gaps; on a logarithmic axis the floor, where smaller values stand, is written below the
    title, and a band that reaches zero goes down to where the axis begins. Without anything to draw
    the figure says so.
    """
    plan = grammar.plan(chart, rows)
    with style.paper():
        figure = Figure(dpi=DPI)
        FigureCanvasAgg(figure)
        places = _places(plan)
        count, columns = (1 + max(place[i] for place in places) for i in (0, 1))
        width = columns * _panel_width(plan, columns) + 0.75
        entries = legends.entries(chart, plan)
        legend = legends.height(entries, width)
        head = 0.42 if words(plan) else 0.27
        foot = legend + 0.24
        height = count * (PANEL[1] + 0.3) + _label_height(plan) + head + foot
        figure.set_size_inches(width, height)

        def at(x: float, y: float) -> tuple[float, float]:  # inches from the top left corner
            return x / width, 1 - y / height

        heading = figure.text(*at(0.08, 0.19), style.drawable(chart.title), size=9, weight="bold")
        heading.set_gid(style.HEADING)  # the page has its own, and hides this one
        figure.text(*at(0.08, 0.36), style.drawable(words(plan)), size=7.5, color=style.SOFT)
        if not plan.panels:
            figure.text(0.5, 0.45, "No finite values to draw", ha="center", color=style.SOFT)
            return figure
        figure.set_layout_engine(
            ConstrainedLayoutEngine(
                rect=(0.22 / width, foot / height, 1 - 0.22 / width, 1 - (head + foot) / height)
            )
        )
        axes = figure.subplots(count, columns, sharex=True, sharey=True, squeeze=False)
        for panel, place in zip(plan.panels, places, strict=True):
            _draw_panel(axes[place], chart, plan, panel)
        for place, ax in np.ndenumerate(axes):
            if place not in places:
                ax.set_axis_off()
            else:
                last = (place[0] + 1, place[1]) not in places
                ax.tick_params(axis="x", labelbottom=last, bottom=last)
        _draw_axes(axes, chart, plan)
        figure.text(
            *at(width / 2, height - legend - 0.1), style.drawable(chart.x_label), ha="center"
        )
        middle = (height + head - foot - _label_height(plan)) / 2
        figure.text(
            *at(0.2, middle), style.drawable(chart.y_label), ha="right", va="center", rotation=90
        )
        legends.draw(figure, chart, plan, entries, axes)
        figure.draw_without_rendering()  # lays out once, for every file it is saved to
        figure.set_layout_engine("none")
        for ax in figure.axes:  # the solver's last bits depend on what was drawn before
            left, bottom, width, height = ax.get_position(original=True).bounds
            ax.set_position((round(left, 6), round(bottom, 6), round(width, 6), round(height, 6)))
    return figure


def save(figure: Figure, directory: str | os.PathLike[str], stem: str) -> tuple[Path, Path]:
    """Write `directory/stem.png` (200 dots per inch) and `.svg`; returns both paths.

    The bytes depend on the figure alone: no times, no versions, no random identifiers.
    """
    directory = Path(directory)
    png, svg = directory / f"{stem}.png", directory / f"{stem}.svg"
    with style.paper(), aside(png) as place:
        figure.savefig(place, metadata={"Software": None})
    write_text(svg, to_svg(figure))
    return png, svg


def to_svg(figure: Figure) -> str:
    """The figure as the text of an SVG file."""
    out = io.StringIO()
    with style.paper():
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def save_all(
    section: Section, rows: Sequence[Mapping[str, Any]], directory: str | os.PathLike[str]
) -> list[Path]:
    """Draw and save every chart of a section; returns the SVG paths, as the page wants them."""
    return [save(draw(chart, rows), directory, chart.name)[1] for chart in section.charts]


def words(plan: grammar.Plan) -> str:
    """What all points of a chart share, and what a logarithmic axis does to small values."""
    parts = [f"{column} = {grammar.show(value)}" for column, value in plan.pinned.items()]
    if plan.floor is not None and plan.clipped:
        power = style.power_of_ten(plan.floor)
        parts.append(f"values below {power} are drawn at {power}")
    return "  ·  ".join(parts)


def _places(plan: grammar.Plan) -> tuple[tuple[int, int], ...]:
    """(row, column) of each panel: a table of the two panel columns, or wrapped."""
    most = 2 if NAME * len(plan.names or ()) > PANEL[0] else 4
    table = plan.grid(most)
    if table is not None:
        return table
    count = max(1, len(plan.panels))
    columns = min(most, {5: 3, 6: 3, 9: 3}.get(count, count))
    return tuple(divmod(i, columns) for i in range(count))


def _panel_width(plan: grammar.Plan, columns: int) -> float:
    wanted = max(PANEL[0], NAME * len(plan.names or ()))
    return min(max(wanted, 3.0 if columns == 1 else 0), 7.0)


def _label_height(plan: grammar.Plan) -> float:
    """Room for names written upright along x, inches."""
    longest = max((len(name) for name in plan.names or ()), default=0)
    return 0.058 * min(longest, LONGEST) if _upright(plan) else 0.0


def _upright(plan: grammar.Plan) -> bool:
    return sum(len(name) + 2 for name in plan.names or ()) > 32


def _draw_panel(ax: Axes, chart: Chart, plan: grammar.Plan, panel: grammar.Panel) -> None:
    if panel.key:
        ax.set_title(style.drawable(" · ".join(grammar.show(value) for value in panel.key)))
    keys = grammar.distinct((s.y, s.line) for p in plan.panels for s in p.series)
    floor = -np.inf if plan.floor is None else plan.floor
    for series in panel.series:
        look = legends.look(chart, plan, series.y, series.line)
        x, y = np.array(series.x), np.maximum(np.array(series.values), floor)
        spread = np.nan_to_num(np.array(series.deviation or np.zeros_like(y)))
        low, high = y - spread, y + spread
        if plan.floor is not None:
            low = np.maximum(low, plan.bottom or floor)
        if chart.mark == "bars":
            width = 0.8 / len(keys)
            x = x + (keys.index((series.y, series.line)) - (len(keys) - 1) / 2) * width
            ax.bar(x, y, 0.94 * width, color=look.colour, hatch=look.hatch, edgecolor="white", lw=0)
        else:
            marked = len(x) <= MARKED and len(plan.lines) <= grammar.NAMES
            alone = bool(np.isfinite(y).sum() <= 1) or chart.mark == "dots"
            ax.plot(
                x,
                y,
                color=look.colour,
                linestyle=look.dash if chart.mark == "line" else "none",
                marker=look.marker if marked or alone else None,
                markerfacecolor=look.fill,
                zorder=3,
            )
        if series.deviation is None:
            continue
        if chart.mark == "line":
            ax.fill_between(x, low, high, color=look.colour, alpha=0.12, lw=0)
        else:
            ax.vlines(
                x, low, high, color=style.SOFT if chart.mark == "bars" else look.colour, lw=0.8
            )


def _draw_axes(axes: np.ndarray, chart: Chart, plan: grammar.Plan) -> None:
    """Scales, limits and ticks: the same in all panels."""
    first: Axes = axes[0, 0]
    if plan.names is not None:
        room = max(1, int(_panel_width(plan, axes.shape[1]) / 0.125))
        step = -(-len(plan.names) // room)
        places = list(range(0, len(plan.names), step))
        first.set_xticks(places, [style.drawable(_short(plan.names[i])) for i in places])
        first.set_xlim(-0.6, len(plan.names) - 0.4)
        if _upright(plan):
            for ax in axes.flat:
                ax.tick_params(axis="x", labelrotation=90)
    elif chart.log_x:
        values = sorted({x for panel in plan.panels for s in panel.series for x in s.x})
        first.set_xscale("log")
        first.set_xticks(values, [grammar.show(x) for x in values])
        first.xaxis.set_minor_locator(NullLocator())
    else:
        first.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    if plan.floor is not None:
        first.set_yscale("log")
        first.set_ylim(bottom=plan.bottom)
        low, high = first.get_ylim()
        whole = high / low >= 100  # else there are too few powers of ten to read a value by
        first.yaxis.set_major_locator(LogLocator(subs=(1.0,) if whole else (1, 2, 5), numticks=6))
        first.yaxis.set_minor_locator(NullLocator())
        write = style.power_of_ten if whole else "{:g}".format
        first.yaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    else:
        first.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"
