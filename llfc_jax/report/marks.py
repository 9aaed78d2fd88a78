"""The marks of a chart as Vega-Lite layers: what is drawn, how it looks, what can be read."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any, TypeAlias

from llfc_jax.report import style
from llfc_jax.report.charts import Chart
from llfc_jax.report.numbers import format_value, name_of
from llfc_jax.report.points import Points, parameter

Spec: TypeAlias = dict[str, Any]
MARKED = 15  # lines with more points than that have no markers
LEGEND = 10  # about as many of many lines as the legend lists
FORMAT = ".4~g"
TICKS = 12  # so many numbers along x are ticks themselves
READ = "read"  # name of the layer that the pointer reads
_SMALL = "['¹','²','³','⁴','⁵','⁶','⁷','⁸','⁹','¹⁰','¹¹','¹²','¹³','¹⁴','¹⁵','¹⁶']"
_POWER = "ceil(-log(datum.value) / LN10 - 1e-9)"
_DIGIT = f"round(datum.value * pow(10, {_POWER}))"
_LOG_LABEL = (
    "datum.value > 0.0099 ? format(datum.value, '~g') : "
    f"({_DIGIT} > 1 ? {_DIGIT} + '·' : '') + '10⁻' + {_SMALL}[{_POWER} - 1]"
)


def build_panel(chart: Chart, points: Points, theme: style.Theme, width: float) -> Spec:
    """Returns one panel: areas below, then lines, then the points that the pointer reads."""
    height = min(230.0, max(75.0, 0.66 * width))
    if chart.mark == "heat":
        height = max(8.0, 1.3 * theme.size) * max(3, len(points.lines))
    layers = {"heat": _heat, "bars": _bars}.get(chart.mark, _lines)(chart, points, theme)
    panel = {"width": round(width), "height": round(height), "layer": layers}
    wrap_titles(panel, theme.size)
    return panel


def wrap_titles(panel: Spec, size: float) -> None:
    """Breaks the titles of a panel's axes into lines no longer than these."""
    for layer in panel["layer"]:
        for axis, room in (("x", panel["width"]), ("y", panel["height"])):
            channel = layer["encoding"][axis]
            title = channel.get("title") or ""
            words = title if isinstance(title, str) else " ".join(title)
            lines = textwrap.wrap(words, max(12, int(room / (0.5 * size))))
            layer["encoding"][axis] = channel | ({"title": lines} if len(lines) > 1 else {})


def _heat(chart: Chart, points: Points, theme: style.Theme) -> list[Spec]:
    """Returns the layer of a map of coloured cells."""
    powers = {"labelExpr": _LOG_LABEL, "values": _ticks(points)[::2]}
    label = powers if chart.log else {"format": FORMAT}
    length = {"expr": "min(200, 0.4 * room)"}
    legend = {"title": chart.y_label, "gradientLength": length, "labelOverlap": "greedy", **label}
    down = {"labelOverlap": "greedy", "labelLimit": 130, "grid": False}
    encoding = {
        "x": _x(chart, points),
        "y": {"field": "line", "type": "ordinal", "sort": points.lines, "axis": down,
              "title": name_of(chart.lines)},
        "color": {"field": "at", "type": "quantitative", "legend": legend,
                  "scale": {"scheme": "viridis", "type": "log" if chart.log else "linear"}},
        "tooltip": _tooltip(chart, points),
    }  # fmt: skip
    return [{"mark": "rect", "encoding": encoding}]


def _lines(chart: Chart, points: Points, theme: style.Theme) -> list[Spec]:
    """Returns the layers of a chart of lines or dots."""
    x, y = _x(chart, points), _y(chart, points)
    few = len(points.names or points.places) <= MARKED and not points.crowded
    marked = few or chart.mark == "dots"
    looks = _looks(chart, points, theme, marked)
    colour = {"color": looks["color"]}
    apart = [{"field": "line"}, {"field": "column"}]
    layers: list[Spec] = []
    if chart.dots:
        dot = {"type": "point", "filled": True, "size": 22, "opacity": 0.45, "clip": True}
        layers.append({"mark": dot, "encoding": {"x": x, "y": y | {"field": "dot"}, **colour}})
    if chart.band:
        area = chart.mark == "line" and chart.spread == "area"
        layers.append(_spread(x, y, {"detail": apart, **colour}, area))
    if chart.mark == "line":
        mark = {"type": "line", "clip": True, "strokeWidth": theme.line}
        dashed = {k: v for k, v in looks.items() if k != "shape"}
        layers.append({"mark": mark, "encoding": {"x": x, "y": y, "detail": apart, **dashed}})
    encoding = {
        "x": x, "y": y, "tooltip": _tooltip(chart, points),
        **{k: v for k, v in looks.items() if k != "strokeDash"},
        "opacity": _if_hovered(1, int(marked)),
        "size": _if_hovered(9 * theme.size, 2.6 * theme.size),
    }  # fmt: skip
    mark = {"type": "point", "filled": True, "clip": True}
    return [*layers, {"name": READ, "mark": mark, "encoding": encoding}]


def _bars(chart: Chart, points: Points, theme: style.Theme) -> list[Spec]:
    """Returns the layers of a chart of bars, side by side where there are several at a name."""
    x, y = _x(chart, points), _y(chart, points)
    by = points.picked[:1]
    offset = {"xOffset": {"field": by[0], "type": "nominal"}} if by else {}
    encoding = {"x": x, "y": y, **offset, "color": _looks(chart, points, theme, True)["color"]}
    encoding["tooltip"] = _tooltip(chart, points)
    bars = {"name": READ, "mark": {"type": "bar", "clip": True}, "encoding": encoding}
    return [bars, *([_spread(x, y, offset, False)] if chart.band else [])]


def _spread(x: Spec, y: Spec, more: Spec, area: bool) -> Spec:
    """Returns the layer of the deviations: an area around a line, or error bars."""
    look = {"type": "area", "opacity": 0.15} if area else {"type": "rule", "opacity": 0.7}
    ends = {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}}
    return {"mark": look | {"clip": True}, "encoding": ends | more}


def _if_hovered(then: float, otherwise: float) -> Spec:
    test = {"param": "hover", "empty": False, "value": then}
    return {"condition": test, "value": otherwise}


def build_selections(chart: Chart, points: Points) -> list[Spec]:
    """Returns what the pointer does: it reads the nearest point, moves and zooms, picks lines.

    Zooming is by pinch or Ctrl + wheel, since the wheel alone scrolls the page. A click on an
    entry of the legend shows that entry alone, with shift one more.
    """
    if chart.mark == "heat":
        return []
    along = [] if points.names is not None or chart.mark == "bars" else ["x"]
    zoom = {"type": "interval", "zoom": "wheel![event.ctrlKey]", "encodings": [*along, "y"]}
    made: list[Spec] = [{"name": "zoom", "select": zoom, "bind": "scales"}]
    if chart.mark != "bars":
        hover = {"type": "point", "nearest": True, "on": "pointerover", "clear": "pointerout"}
        made.append({"name": "hover", "select": hover})
    for name in points.picked:
        pick = {"type": "point", "fields": [name]}
        made.append({"name": f"only_{name}", "select": pick, "bind": "legend"})
    return [param | {"views": [READ]} for param in made]


def _x(chart: Chart, points: Points) -> Spec:
    x: Spec = {"field": "x", "title": chart.x_label}
    axis: Spec = {"labelOverlap": "greedy", "labelSeparation": 4}
    if points.names is not None:
        upright = sum(len(name) + 2 for name in points.names) > 32
        axis |= {"labelAngle": -90 if upright else 0, "labelLimit": 130}
        return x | {"type": "nominal", "sort": points.names, "axis": axis}
    axis["format"] = FORMAT
    if chart.mark in ("heat", "bars"):
        return x | {"type": "ordinal", "axis": axis | {"labelAngle": 0}}
    scale = {"nice": False, "padding": 6, **({"type": "log"} if chart.log_x else {"zero": False})}
    ticked = chart.log_x or len(points.places) <= TICKS
    axis |= {"values": points.places} if ticked else {"tickCount": 5}
    return x | {"type": "quantitative", "axis": axis, "scale": scale}


def _y(chart: Chart, points: Points) -> Spec:
    axis: Spec = {"tickCount": 5, "format": FORMAT}
    scale: Spec = {"zero": chart.mark == "bars" or points.from_zero}
    if not points.from_zero or chart.spread == "bars":
        scale["padding"] = 5
    if chart.log:
        scale = {"type": "log", "nice": False, "padding": 5}
        if points.ceiling > 10 * points.floor:  # else evenly spaced ticks are the better ones
            axis = {"labelExpr": _LOG_LABEL, "values": _ticks(points), "labelOverlap": True}
    y = {"field": "at", "type": "quantitative", "title": chart.y_label}
    return y | {"axis": axis, "scale": scale}


def _ticks(points: Points) -> list[float]:
    """Returns where a logarithmic axis has ticks: at powers of ten, at 2 and 5 too if few."""
    low, high = (round(math.log10(end)) for end in (points.floor, points.ceiling))
    digits = (1,) if high - low > 3 else (1, 2, 5)
    step = max(1, (high - low) // 5)
    return [float(f"{d}e{k}") for k in range(high, low - 1, -step) for d in digits]


def _tooltip(chart: Chart, points: Points) -> list[Spec]:
    """Returns what the pointer reads: where it is, and the value as it was measured."""
    names = [(parameter(column), name_of(column)) for column in points.panels]
    numbers = [("x", chart.x_label, FORMAT)] if points.names is None else []
    names += [("x", chart.x_label)] if points.names is not None else []
    names += [("line", name_of(chart.lines))] if len(points.lines) > 1 else []
    several = len(points.words) > 1
    names += [("column", "shown")] if several else []
    numbers.append(("value", chart.y_label if several else "".join(points.words[:1]), FORMAT))
    numbers += [("spread", "±", ".2~g")] if chart.band else []
    # Under the pointer is a cell around a point, whose `datum` is the point. Vega-Lite 6.4 knows
    # this only of what it formats, so that names, too, have a format.
    named = {"type": "nominal", "formatType": "toString", "format": ""}
    return [{"field": field, "title": title} | named for field, title in names] + [
        {"field": field, "title": title, "type": "quantitative", "format": digits}
        for field, title, digits in numbers
    ]


def _looks(chart: Chart, points: Points, theme: style.Theme, marked: bool) -> Spec:
    """Returns the encodings that set lines apart: by colour, by dash, and by marker if marked."""
    lines, words = points.lines, points.words
    kinds = ("color", "strokeDash", "shape") if marked else ("color", "strokeDash")
    if not points.picked:
        return {"color": {"value": theme.colour("c0")}}
    if len(lines) < 2:
        legend = _legend(None, words, theme, marked)
        return _channels(kinds, "column", words, theme.hues(len(words)), legend)
    ordered = points.ordered
    colours = theme.along(len(lines)) if ordered else theme.hues(len(lines))
    listed = lines[:: -(-len(lines) // LEGEND) if len(lines) > LEGEND + 2 else 1]
    legend = _legend(name_of(chart.lines), listed, theme, marked or ordered or len(words) > 1)
    looks = _channels(("color",) if ordered else kinds, "line", lines, colours, legend)
    if len(words) > 1:
        looks |= _channels(("strokeDash",), "column", words, [], _legend(None, words, theme, False))
    return looks


def _channels(
    kinds: Sequence[str], field: str, names: list[Any], colours: list[str], legend: Spec
) -> Spec:
    """Returns the encodings of a field; the dash is in the legend where no marker is."""
    ranges = {
        "color": colours,
        "strokeDash": [style.DASHES[i % len(style.DASHES)] for i in range(len(names))],
        "shape": [style.SHAPES[i % len(style.SHAPES)] for i in range(len(names))],
    }
    made: Spec = {
        kind: {"field": field, "type": "nominal", "legend": legend,
               "scale": {"domain": names, "range": ranges[kind]}}
        for kind in kinds
    }  # fmt: skip
    if "shape" in made:  # with a domain of its own, or the legend's markers would be dashed
        scale = {"domain": list(range(len(names))), "range": ranges["strokeDash"]}
        made["strokeDash"] = {"field": "dash", "type": "nominal", "legend": None, "scale": scale}
    return made


def _legend(title: str | None, names: Sequence[Any], theme: style.Theme, marked: bool) -> Spec:
    """Returns a legend below the panels, in as many columns as fit: of markers, or of strokes."""
    longest = max(len(format_value(name)) for name in names)
    entry = round((0.52 * longest + 4.5) * theme.size)
    room = f"(room - {round((0.6 * len(title or '') + 2) * theme.size)})"
    return {
        "title": title,
        "values": list(names),
        "columns": {"expr": f"max(1, floor({room} / {entry}))"},
        "labelLimit": {"expr": "room - 50"},
        "labelExpr": f"isNumber(datum.value) ? format(datum.value, '{FORMAT}') : datum.label",
        "symbolOpacity": 1,
        **({} if marked else {"symbolType": "stroke", "symbolSize": 40 * theme.size}),
    }
