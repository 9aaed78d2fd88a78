"""The marks of a chart as Vega-Lite layers: what is drawn, how it looks, what can be read."""

import math
import re
import textwrap
from collections.abc import Sequence
from typing import Any, TypeAlias

from llfc_jax.report import style
from llfc_jax.report.charts import Chart
from llfc_jax.report.content import Content, every
from llfc_jax.report.numbers import clean, format_value, name_of

Spec: TypeAlias = dict[str, Any]
MARKED = 15  # lines with more points than that have no markers
LEGEND = 10  # about as many of many lines as the legend lists
FORMAT = ".4~g"
TICKS = 12  # so many numbers along x are ticks themselves
READ = "read"  # name of the layer that the pointer reads
_SMALL = "['¹','²','³','⁴','⁵','⁶','⁷','⁸','⁹','¹⁰','¹¹','¹²','¹³','¹⁴','¹⁵','¹⁶']"
_LOG_LABEL = (
    "datum.value > 0.0099 ? format(datum.value, '~g') : "
    f"'10⁻' + {_SMALL}[round(-log(datum.value) / LN10) - 1]"
)


def build_panel(chart: Chart, content: Content, theme: style.Theme, width: float) -> Spec:
    """Returns one panel: areas below, then lines, then the points that the pointer reads."""
    height = min(230.0, max(75.0, 0.66 * width))
    if chart.mark == "heat":
        height = max(8.0, 1.3 * theme.size) * max(3, len(content.lines))
        layers = [_heat(chart, content)]
    else:
        layers = (_bars if chart.mark == "bars" else _lines)(chart, content, theme)
    for layer in layers:
        for axis, room in (("x", width), ("y", height)):  # titles no longer than their axes
            channel = layer["encoding"][axis]
            lines = textwrap.wrap(channel["title"], max(12, int(room / (0.5 * theme.size))))
            if len(lines) > 1:
                layer["encoding"][axis] = channel | {"title": lines}
    return {"width": round(width), "height": round(height), "layer": layers}


def _heat(chart: Chart, content: Content) -> Spec:
    log = {"scale": {"scheme": "viridis", "type": "log"}} if chart.log else {}
    powers = {"labelExpr": _LOG_LABEL, "values": _ticks(content)[::2]}
    label = powers if chart.log else {"format": "~g"}
    legend = {"title": chart.y_label, "gradientLength": 200, "labelOverlap": "greedy", **label}
    down = {"labelOverlap": "greedy", "labelLimit": 130, "grid": False}
    return {
        "mark": "rect",
        "encoding": {
            "x": _x(chart, content),
            "y": {"field": "line", "type": "ordinal", "sort": content.lines, "axis": down,
                  "title": name_of(chart.lines)},
            "color": {"field": "value", "type": "quantitative", "legend": legend,
                      "scale": {"scheme": "viridis"}, **log},
            "tooltip": _tooltip(chart, content),
        },
    }  # fmt: skip


def _lines(chart: Chart, content: Content, theme: style.Theme) -> list[Spec]:
    """Returns the layers of a chart of lines or dots."""
    x, y = _x(chart, content), _y(chart, content, "value")
    marked = chart.mark == "dots" or (
        len(content.names or content.places) <= MARKED and not content.crowded
    )
    looks = _looks(chart, content, theme, marked)
    colour = {"color": looks["color"]}
    apart = [{"field": "line"}, {"field": "column"}]
    layers: list[Spec] = []
    if chart.dots:
        dot = {"type": "point", "filled": True, "size": 22, "opacity": 0.45, "clip": True}
        layers.append({"mark": dot, "encoding": {"x": x, "y": y | {"field": "dot"}, **colour}})
    if chart.band and chart.mark == "line" and chart.spread == "area":
        ends = {"y": y | {"field": "low"}, "y2": {"field": "high"}, "detail": apart}
        mark = {"type": "area", "opacity": 0.15, "clip": True}
        layers.append({"mark": mark, "encoding": {"x": x, **ends, **colour}})
    elif chart.band:
        layers.append(_error_bars(x, y, {"detail": apart, **colour}))
    if chart.mark == "line":
        mark = {"type": "line", "clip": True, "strokeWidth": theme.line}
        dashed = {k: v for k, v in looks.items() if k != "shape"}
        layers.append({"mark": mark, "encoding": {"x": x, "y": y, "detail": apart, **dashed}})
    small = 2.6 * theme.size
    points = {
        "name": READ,
        "mark": {"type": "point", "filled": True, "clip": True},
        "encoding": {
            "x": x, "y": y, "tooltip": _tooltip(chart, content),
            **{k: v for k, v in looks.items() if k != "strokeDash"},
            "opacity": _if_hovered(1, int(marked)),
            "size": _if_hovered(3.5 * small, small),
        },
    }  # fmt: skip
    return [*layers, points]


def _bars(chart: Chart, content: Content, theme: style.Theme) -> list[Spec]:
    """Returns the layers of a chart of bars, side by side where there are several at a name."""
    x, y = _x(chart, content), _y(chart, content, "value")
    looks = _looks(chart, content, theme, marked=True)
    by = "line" if len(content.lines) > 1 else "column"
    beside = len(content.lines) > 1 or len(content.y) > 1
    offset = {"xOffset": {"field": by, "type": "nominal"}} if beside else {}
    encoding = {"x": x, "y": y, **offset, "color": looks["color"]}
    bars = {
        "name": READ,
        "mark": {"type": "bar", "clip": True},
        "encoding": encoding | {"tooltip": _tooltip(chart, content)},
    }
    return [bars, *([_error_bars(x, y, offset)] if chart.band else [])]


def _error_bars(x: Spec, y: Spec, more: Spec) -> Spec:
    ends = {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}}
    return {"mark": {"type": "rule", "clip": True, "opacity": 0.7}, "encoding": ends | more}


def _if_hovered(then: float, otherwise: float) -> Spec:
    test = {"param": "hover", "empty": False, "value": then}
    return {"condition": test, "value": otherwise}


def build_selections(chart: Chart, content: Content) -> list[Spec]:
    """Returns what the pointer does: it reads the nearest point, moves and zooms, picks lines.

    Zooming is by pinch or Ctrl + wheel, since the wheel alone scrolls the page. A click on an
    entry of the legend shows that entry alone, with shift one more.
    """
    if chart.mark == "heat":
        return []
    along = [] if content.names is not None or chart.mark == "bars" else ["x"]
    zoom = {"type": "interval", "zoom": "wheel![event.ctrlKey]", "encodings": [*along, "y"]}
    made: list[Spec] = [{"name": "zoom", "select": zoom, "bind": "scales"}]
    if chart.mark != "bars":
        hover = {"type": "point", "nearest": True, "on": "pointerover", "clear": "pointerout"}
        made.append({"name": "hover", "select": hover})
    for name in content.picked:
        pick = {"type": "point", "fields": [name]}
        made.append({"name": f"only_{name}", "select": pick, "bind": "legend"})
    return [param | {"views": [READ]} for param in made]


def _x(chart: Chart, content: Content) -> Spec:
    axis: Spec = {"labelOverlap": "greedy", "format": FORMAT}
    scale: Spec = {"zero": False, "nice": False, "padding": 6}
    kind = "quantitative"
    if content.names is not None:
        upright = sum(len(name) + 2 for name in content.names) > 32
        axis = {"labelOverlap": "greedy", "labelAngle": -90 if upright else 0, "labelLimit": 130}
        return {"field": "x", "type": "nominal", "sort": content.names, "title": chart.x_label,
                "axis": axis}  # fmt: skip
    if chart.mark in ("heat", "bars"):
        kind, scale, axis = "ordinal", {}, axis | {"labelAngle": 0}
    elif chart.log_x:
        scale, axis = (
            {"type": "log", "nice": False, "padding": 6},
            axis | {"values": content.places},
        )
    else:
        axis |= {"values": content.places} if len(content.places) <= TICKS else {"tickCount": 5}
    return {"field": "x", "type": kind, "title": chart.x_label, "axis": axis, "scale": scale}


def _y(chart: Chart, content: Content, field: str) -> Spec:
    axis: Spec = {"tickCount": 5, "format": "~g"}
    scale: Spec = {"zero": chart.mark == "bars" or content.from_zero}
    if not content.from_zero or chart.spread == "bars":
        scale["padding"] = 5
    if chart.log:
        scale = {"type": "log", "nice": False, "padding": 5}
        if content.ceiling > 10 * content.floor:  # else evenly spaced ticks are the better ones
            axis = {"labelExpr": _LOG_LABEL, "values": _ticks(content), "labelOverlap": True}
    return {"field": field, "type": "quantitative", "title": chart.y_label, "axis": axis,
            "scale": scale}  # fmt: skip


def _ticks(content: Content) -> list[float]:
    """Returns where a logarithmic axis has ticks: at powers of ten, at 2 and 5 too if few."""
    low, high = (round(math.log10(end)) for end in (content.floor, content.ceiling))
    digits = (1,) if high - low > 3 else (1, 2, 5)
    step = max(1, (high - low) // 5)
    return [float(f"{d}e{k}") for k in range(high, low - 1, -step) for d in digits]


def _tooltip(chart: Chart, content: Content) -> list[Spec]:
    """Returns what the pointer reads: where it is, and the value as it was measured."""
    number: Spec = {"type": "quantitative", "format": FORMAT}
    shown = [_name(field_of(column), name_of(column)) for column in content.panels]
    names = content.names is not None
    shown.append(
        _name("x", chart.x_label) if names else {"field": "x", "title": chart.x_label, **number}
    )
    if len(content.lines) > 1:
        shown.append(_name("line", name_of(chart.lines)))
    several = len(content.y) > 1
    if several:
        shown.append(_name("column", "shown"))
    words = chart.y_label if several else next(iter(chart.y.values()))
    shown.append({"field": "raw", "title": words, **number})
    if chart.band:
        shown.append({"field": "spread", "title": "±", **number, "format": ".2~g"})
    return shown


def _name(field: str, title: str) -> Spec:
    """Returns a name in a tooltip.

    Under the pointer is a cell around a point, whose `datum` is the point. Vega-Lite 6.4 knows this
    only of what it formats, so that names, too, have a format.
    """
    return {
        "field": field,
        "type": "nominal",
        "title": title,
        "formatType": "toString",
        "format": "",
    }


def _looks(chart: Chart, content: Content, theme: style.Theme, marked: bool) -> Spec:
    """Returns the encodings that set lines apart: by colour, by dash, and by marker if marked."""
    words = [clean(chart.y[y]) for y in content.y]
    kinds = ("color", "strokeDash", "shape") if marked else ("color", "strokeDash")
    if len(content.lines) < 2:
        if len(words) < 2:
            return {"color": {"value": theme.colour("c0")}}
        legend = _legend(None, words, theme, marked)
        return _channels(kinds, "column", words, theme.hues(len(words)), legend)
    lines, colours = content.line_names, theme.hues(len(content.lines))
    if content.ordered:
        colours = theme.along(len(lines))
    listed = lines[:: -(-len(lines) // LEGEND) if len(lines) > LEGEND + 2 else 1]
    if content.once:
        lines, listed = [*lines, every(chart)], [*listed, every(chart)]
        colours.append(theme.colour("ink"))
    legend = _legend(
        name_of(chart.lines), listed, theme, marked or content.ordered or len(words) > 1
    )
    looks = _channels(("color",) if content.ordered else kinds, "line", lines, colours, legend)
    if len(words) > 1:
        dashed = _legend(None, words, theme, False)
        looks |= _channels(("strokeDash",), "column", words, [], dashed)
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
        domain = list(range(len(names)))
        scale = {"domain": domain, "range": ranges["strokeDash"]}
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


def field_of(column: str) -> str:
    """Returns a column's name as Vega-Lite reads it: dots and brackets are part of it."""
    return re.sub(r"([\\.\[\]'\"])", r"\\\1", clean(column))
