"""A `Chart` and its rows as one Vega-Lite spec: for the page, a notebook, and SVG, PNG or PDF.

The rows go into the spec as they are; choosing, folding and clipping them is written in it as
Vega-Lite transforms. So the charts of a page share one table of rows, and a reader can turn the
choices: there is a parameter for every column in `Chart.panels` and `Chart.where`.
"""

import json
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from llfc_jax.report import style
from llfc_jax.report.charts import Chart
from llfc_jax.report.content import BETWEEN, TOLERANCE, Content, parameter, read
from llfc_jax.report.numbers import Rows, clean, format_value, is_number, name_of, plain

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


def build_spec(chart: Chart, rows: Rows, theme: style.Theme, data: str | None = None) -> Spec:
    """Returns `rows` drawn as `chart` says, as a Vega-Lite spec.

    There is a small panel per combination of the panel columns' values. Columns of y differ by
    dash, the values of `lines` by colour and marker: along an order where they are numbers or
    many. Values that are no finite number are gaps; on a logarithmic axis values below the floor
    stand on it, and the line above the panels says so. Without anything to draw it says that.

    Args:
        chart: the description.
        rows: of all pairs and alignments.
        theme: colours and sizes.
        data: name of a data set that the page provides; by default the rows are in the spec.
    """
    content = read(chart, rows)
    columns, width = _grid(content, theme)
    panel: Spec = _panel(chart, content, theme, width)
    spec: Spec = {
        "data": {"name": data} if data else {"values": records(rows, columns_of(chart))},
        "transform": _transforms(chart, content),
        "params": [
            *_choices(chart, content),
            {"name": "room", "value": theme.width},
            *_selections(chart, content),
        ],
        **_title(chart, content, theme),
        **({} if theme.css else {"config": theme.config()}),  # the page has one for all charts
    }
    if len(content.labels) < 2:
        return _clean(spec | panel)
    header: Spec = {"title": None, "labelLimit": round(1.1 * width)}
    if max(map(len, content.labels)) * 0.6 * theme.size > 1.1 * width:
        header["labelExpr"] = f"split(datum.label, '{BETWEEN}')"  # on several lines
    facet = {"field": "panel", "type": "nominal", "sort": content.labels, "header": header}
    return _clean(spec | {"facet": facet, "columns": columns, "spec": panel})


def _clean(spec: Any) -> Any:
    """Returns a spec whose every text is one that a page and an SVG file can hold."""
    if isinstance(spec, dict):
        return {key: _clean(value) for key, value in spec.items()}
    if isinstance(spec, list):
        return [_clean(value) for value in spec]
    return clean(spec) if isinstance(spec, str) else spec


def columns_of(chart: Chart) -> list[str]:
    """Returns the columns of the rows that a chart reads."""
    lines = [chart.lines] if chart.lines else []
    values = [*chart.y, *chart.band.values(), *chart.dots.values()]
    return list(dict.fromkeys([*chart.panels, *chart.where, chart.x, *lines, *values]))


def records(rows: Rows, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the wanted columns of the rows as JSON holds them."""
    names = {column: clean(column) for column in columns}
    return [{names[c]: plain(row[c]) for c in columns if c in row} for row in rows]


def _grid(content: Content, theme: style.Theme) -> tuple[int, float]:
    """Returns how many panels stand side by side, and the width of each."""
    room = theme.width - 5 * theme.size  # without the vertical axis
    between = 1.6 * theme.size
    columns = min(content.across, len(content.labels), int(room / (75 + between)))
    return max(1, columns), max(75.0, room / max(1, columns) - between)


# --- The rows ---------------------------------------------------------------------------------


def _quote(value: Any) -> str:
    """Returns a value as it stands in an expression."""
    return json.dumps(clean(value) if isinstance(value, str) else value)


def _datum(column: str) -> str:
    return f"datum[{_quote(column)}]"


def _field(column: str) -> str:
    """Returns a column's name as Vega-Lite reads it: dots and brackets are part of it."""
    return re.sub(r"([\\.\[\]'\"])", r"\\\1", clean(column))


def _case(table: Mapping[str, str], otherwise: str = "null") -> str:
    """Returns an expression that looks the folded column up."""
    tests = (f"datum.y === {_quote(y)} ? {then} : " for y, then in table.items())
    return "".join(tests) + otherwise


def _is_chosen(chart: Chart, column: str) -> str:
    """Returns the test of whether a row is among the reader's choice."""
    name = parameter(column)
    if column not in chart.where:
        return f"{name} === null || {_datum(column)} === {name}"
    if is_number(chart.where[column]):
        return f"abs({_datum(column)} - {name}) <= {TOLERANCE}"
    return f"{_datum(column)} === {name}"


def _transforms(chart: Chart, content: Content) -> list[Spec]:
    """Returns the way from the rows to what is drawn: one datum per row and y column."""
    line = _datum(chart.lines) if chart.lines else "null"
    steps: list[Spec] = [{"filter": _is_chosen(chart, column)} for column in content.choices]
    steps.append({"fold": [_field(y) for y in content.y], "as": ["y", "raw"]})
    if content.once:
        first = f"{line} === {_quote(content.lines[0])}"
        steps.append({"filter": _case(dict.fromkeys(content.once, first), "true")})
        if _line_names(content) != content.lines:
            line = f"{_quote(_line_names(content))}[indexof({_quote(content.lines)}, {line})]"
        line = _case(dict.fromkeys(content.once, _quote(every(chart))), line)
    floor = "" if content.floor is None else f"{content.floor}, "
    panel = [
        f"{_quote(f'{name_of(column)} = ')} + {_datum(column)}"
        if is_number(content.choices[column][0])
        else _datum(column)
        for column in content.panels
    ]
    made = {
        "x": _datum(chart.x) if content.names is None else f"toString({_datum(chart.x)})",
        "panel": f"join([{', '.join(panel)}], '{BETWEEN}')",
        "line": line,
        "value": f"isNumber(datum.raw) && isFinite(datum.raw) ? max({floor}datum.raw) : null",
        "column": _case({y: _quote(words) for y, words in chart.y.items()}),
    }
    if chart.mark == "line" and len(content.lines) > 1:
        made["dash"] = f"indexof({_quote([*_line_names(content), every(chart)])}, datum.line)"
    elif chart.mark == "line":
        words = [clean(chart.y[y]) for y in content.y]
        made["dash"] = f"indexof({_quote(words)}, datum.column)"
    if chart.band:
        known = "isNumber(datum.raw) && isNumber(datum.spread) ?"
        made["spread"] = _case({y: _datum(column) for y, column in chart.band.items()})
        made["low"] = f"{known} max({floor}datum.raw - datum.spread) : null"
        made["high"] = f"{known} max({floor}datum.raw + datum.spread) : null"
    if chart.dots:
        made["dot"] = _case({y: _datum(column) for y, column in chart.dots.items()})
    steps += [{"calculate": made[name], "as": name} for name in made]
    picked = [] if chart.mark == "heat" else _picked(content)
    return steps + [{"filter": {"param": f"only_{name}"}} for name in picked]


def _line_names(content: Content) -> list[Any]:
    """Returns the lines as the spec has them: numbers as texts where another line has a name."""
    numbers = bool(content.lines) and all(map(is_number, content.lines))
    return [f"{x:g}" for x in content.lines] if numbers and content.once else content.lines


def every(chart: Chart) -> str:
    """Returns the name of the line of a column that is the same for all lines."""
    return f"every {name_of(chart.lines)}"


def _choices(chart: Chart, content: Content) -> list[Spec]:
    """Returns a parameter per choice, with a menu for notebooks; the page has menus of its own."""
    made = []
    for column, values in content.choices.items():
        options = values if column in chart.where else [None, *values]
        labels = ["all" if value is None else format_value(value) for value in options]
        menu = {
            "input": "select",
            "options": options,
            "labels": labels,
            "name": f"{name_of(column)} ",
        }
        value = plain(chart.where.get(column))
        made.append({"name": parameter(column), "value": value, "bind": menu})
    return made


def _title(chart: Chart, content: Content, theme: style.Theme) -> Spec:
    """Returns the chart's title and below it what all of its points share."""
    parts = []
    for column, value in content.shared.items():
        parts.append(_quote(f"{name_of(column)} = {format_value(value)}"))
    for column, value in chart.where.items():
        name = parameter(column)
        shown = f"format({name}, '{FORMAT}')" if is_number(value) else name
        parts.append(f"{_quote(name_of(column) + ' = ')} + {shown}")
    if content.clipped:
        parts.append(_quote(content.floor_words))
    if not content.labels:
        parts = [_quote("no finite values to draw")]
    note = ' + "  ·  " + '.join(parts)
    if theme.heading:
        lines = [_quote(chart.title), *([note] if parts else [])]
        return {"title": {"text": {"expr": f"[{', '.join(lines)}]"}}}
    if not parts or not (theme.css or not content.labels):
        return {}
    soft = {"fontSize": theme.size, "color": theme.colour("soft")}
    return {"title": {"text": {"expr": note}, **soft}}


# --- The marks --------------------------------------------------------------------------------


def _panel(chart: Chart, content: Content, theme: style.Theme, width: float) -> Spec:
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
    label = {"labelExpr": _LOG_LABEL, "values": _ticks(content)} if chart.log else {"format": "~g"}
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


def _selections(chart: Chart, content: Content) -> list[Spec]:
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
    for name in _picked(content):
        pick = {"type": "point", "fields": [name]}
        made.append({"name": f"only_{name}", "select": pick, "bind": "legend"})
    return [param | {"views": [READ]} for param in made]


def _picked(content: Content) -> list[str]:
    """Returns the fields that a legend explains, and a click on it picks from."""
    several = {"line": len(content.lines) > 1, "column": len(content.y) > 1}
    return [name for name in several if several[name]]


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
    scale: Spec = {"zero": chart.mark == "bars", "padding": 5}
    if chart.log:
        axis = {"labelExpr": _LOG_LABEL, "values": _ticks(content), "labelOverlap": True}
        scale = {"type": "log", "nice": False, "padding": 5}
    return {"field": field, "type": "quantitative", "title": chart.y_label, "axis": axis,
            "scale": scale}  # fmt: skip


def _ticks(content: Content) -> list[float]:
    """Returns where a logarithmic axis has ticks: at powers of ten, at 2 and 5 too if few."""
    low, high = (round(math.log10(end)) for end in (content.floor or 1, content.ceiling or 1))
    digits = (1,) if high - low > 3 else (1, 2, 5)
    step = max(1, (high - low) // 5)
    return [float(f"{d}e{k}") for k in range(high, low - 1, -step) for d in digits]


def _tooltip(chart: Chart, content: Content) -> list[Spec]:
    """Returns what the pointer reads: where it is, and the value as it was measured."""
    number: Spec = {"type": "quantitative", "format": FORMAT}
    shown = [_name(_field(column), name_of(column)) for column in content.panels]
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


# --- Colours, dashes, markers, and the legend that explains them ----------------------------------


def _looks(chart: Chart, content: Content, theme: style.Theme, marked: bool) -> Spec:
    """Returns the encodings that set lines apart: by colour, by dash, and by marker if marked."""
    words = [clean(chart.y[y]) for y in content.y]
    kinds = ("color", "strokeDash", "shape") if marked else ("color", "strokeDash")
    if len(content.lines) < 2:
        if len(words) < 2:
            return {"color": {"value": theme.colour("c0")}}
        legend = _legend(None, words, theme, marked)
        return _channels(kinds, "column", words, theme.hues(len(words)), legend)
    lines, colours = _line_names(content), theme.hues(len(content.lines))
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
