"""A `Chart` and its rows as one Vega-Lite spec: for the page, a notebook, and SVG, PNG or PDF.

The spec has a parameter for every column in `Chart.panels` and `Chart.where`, so that a reader can
turn the choices.
"""

import json
from typing import Any

from llfc_jax.report import style
from llfc_jax.report.charts import Chart
from llfc_jax.report.marks import FORMAT, Spec, build_panel, build_selections
from llfc_jax.report.numbers import (
    Rows,
    clean,
    describe,
    format_number,
    format_value,
    is_number,
    name_of,
    plain,
)
from llfc_jax.report.points import BETWEEN, Points, parameter, read


def build_spec(
    chart: Chart, rows: Rows, theme: style.Theme, points: Points | None = None, data: str = ""
) -> Spec:
    """Returns `rows` drawn as `chart` says, as a Vega-Lite spec.

    There is a small panel per combination of the panel columns' values. Columns of y differ by
    dash, the values of `lines` by colour and marker: along an order where they are numbers or
    many. Values that are no finite number are gaps; on a logarithmic axis values below the floor
    stand on it, and the line above the panels says so. Without anything to draw it says that.

    Args:
        chart: the description.
        rows: of all pairs and alignments.
        theme: colours and sizes.
        points: what `read` made of the rows, where that is known.
        data: name under which the points are provided; by default they are in the spec.
    """
    points = points or read(chart, rows)
    columns, width = _grid(points, theme)
    panel = build_panel(chart, points, theme, width)
    spec: Spec = {
        "data": {"name": data} if data else {"values": points.data},
        "transform": _transforms(chart, points),
        "params": [
            *_choices(chart, points),
            {"name": "room", "value": theme.width},
            *build_selections(chart, points),
        ],
        **_title(chart, points, theme),
        **({} if theme.css else {"config": theme.config()}),  # the page has one for all charts
        **({} if theme.css or theme.heading else {"usermeta": {"width": theme.width}}),
    }
    if len(points.labels) < 2:
        return _clean(spec | panel)
    header: Spec = {"title": None, "labelLimit": round(1.1 * width)}
    if max(map(len, points.labels)) * 0.6 * theme.size > 1.1 * width:
        header["labelExpr"] = f"split(datum.label, '{BETWEEN}')"  # on several lines
    facet = {"field": "panel", "type": "nominal", "sort": points.labels, "header": header}
    return _clean(spec | {"facet": facet, "columns": columns, "spec": panel})


def _clean(spec: Any) -> Any:
    """Returns a spec whose every text is one that a page and an SVG file can hold."""
    if isinstance(spec, dict):
        return {key: _clean(value) for key, value in spec.items()}
    if isinstance(spec, list):
        return [_clean(value) for value in spec]
    return clean(spec) if isinstance(spec, str) else spec


def _grid(points: Points, theme: style.Theme) -> tuple[int, float]:
    """Returns how many panels stand side by side, and the width of each."""
    room = theme.width - 5 * theme.size  # without the vertical axis
    between = 1.6 * theme.size
    columns = max(1, min(points.across, len(points.labels), int(room / (75 + between))))
    return columns, max(75.0, room / columns - between)


def _transforms(chart: Chart, points: Points) -> list[Spec]:
    """Returns the way from the points to those that are drawn."""
    steps: list[Spec] = []
    for name in map(parameter, points.choices):
        steps.append({"filter": f"{name} === null || datum.{name} === {name}"})
    floor = str(points.floor) if chart.log else "-MAX_VALUE"  # what is below stands on it
    zero = "0" if points.from_zero and chart.spread == "area" and not chart.log else floor
    steps.append({"calculate": _at_least(floor, "value"), "as": "at"})
    if chart.dots:
        steps.append({"calculate": _at_least(floor, "dot"), "as": "dot"})
    if chart.band:
        steps.append({"calculate": _at_least(zero, "value", "-", "spread"), "as": "low"})
        steps.append({"calculate": _at_least(floor, "value", "+", "spread"), "as": "high"})
    if points.picked and chart.mark == "line":
        name = points.picked[0]
        names = json.dumps(points.lines if name == "line" else points.words)
        steps.append({"calculate": f"indexof({names}, datum.{name})", "as": "dash"})
    picked = [] if chart.mark == "heat" else points.picked
    return steps + [{"filter": {"param": f"only_{name}"}} for name in picked]


def _at_least(least: str, field: str, sign: str = "", spread: str = "") -> str:
    """Returns the expression of a field, more or less its spread; null where that is unknown."""
    known = " && ".join(f"isNumber(datum.{name})" for name in (field, spread) if name)
    value = f"datum.{field} {sign} datum.{spread}" if spread else f"datum.{field}"
    return f"{known} ? max({least}, {value}) : null"


def _choices(chart: Chart, points: Points) -> list[Spec]:
    """Returns a parameter per choice, with a menu for notebooks; the page has menus of its own."""
    made = []
    for column, values in points.choices.items():
        options = values if column in chart.where else [None, *values]
        labels = ["all" if value is None else format_value(value) for value in options]
        menu = {"input": "select", "options": options, "labels": labels}
        menu["name"] = f"{name_of(column)} "
        value = plain(chart.where.get(column))
        made.append({"name": parameter(column), "value": value, "bind": menu})
    return made


def floor_words(points: Points) -> str:
    """Returns what a logarithmic axis does to small values."""
    floor = format_number(points.floor)
    return f"values below {floor} are drawn at {floor}"


def _title(chart: Chart, points: Points, theme: style.Theme) -> Spec:
    """Returns the chart's title and below it what all of its points share."""
    parts = [json.dumps(clean(describe(column, v))) for column, v in points.shared.items()]
    for column, value in chart.where.items():
        name = parameter(column)
        shown = f"format({name}, '{FORMAT}')" if is_number(value) else name
        parts.append(f"{json.dumps(f'{clean(name_of(column))} = ')} + {shown}")
    if points.clipped and chart.log:
        parts.append(json.dumps(floor_words(points)))
    if not points.labels:
        parts = [json.dumps("no finite values to draw")]
    note = ' + "  ·  " + '.join(parts)
    if theme.heading:
        lines = [json.dumps(clean(chart.title)), *([note] if parts else [])]
        return {"title": {"text": {"expr": f"[{', '.join(lines)}]"}}}
    if not parts or not (theme.css or not points.labels):
        return {}
    soft = {"fontSize": theme.size, "color": theme.colour("soft")}
    return {"title": {"text": {"expr": note}, **soft}}
