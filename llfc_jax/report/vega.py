"""A `Chart` and its rows as one Vega-Lite spec: for the page, a notebook, and SVG, PNG or PDF.

The rows go into the spec as they are; choosing, folding and clipping them is written in it as
Vega-Lite transforms. So the charts of a page share one table of rows, and a reader can turn the
choices: there is a parameter for every column in `Chart.panels` and `Chart.where`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llfc_jax.report import style
from llfc_jax.report.charts import Chart
from llfc_jax.report.content import (
    BETWEEN,
    TOLERANCE,
    Content,
    every,
    label_of,
    parameter,
    read,
)
from llfc_jax.report.marks import FORMAT, Spec, build_panel, build_selections, field_of
from llfc_jax.report.numbers import Rows, clean, describe, format_value, is_number, name_of, plain


def build_spec(
    chart: Chart,
    rows: Rows,
    theme: style.Theme,
    data: str | None = None,
    content: Content | None = None,
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
        data: name of a data set that is provided elsewhere; by default the rows are in the spec.
        content: what `read` found in the rows, where that is known.
    """
    content = content or read(chart, rows)
    columns, width = _grid(content, theme)
    panel: Spec = build_panel(chart, content, theme, width)
    spec: Spec = {
        "data": {"name": data} if data else {"values": records(rows, columns_of(chart))},
        "transform": _transforms(chart, content),
        "params": [
            *_choices(chart, content),
            {"name": "room", "value": theme.width},
            *build_selections(chart, content),
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


def _quote(value: Any) -> str:
    """Returns a value as it stands in an expression."""
    return json.dumps(clean(value) if isinstance(value, str) else value)


def _datum(column: str) -> str:
    return f"datum[{_quote(column)}]"


def _case(table: Mapping[str, str], otherwise: str = "null") -> str:
    """Returns an expression that looks the folded column up."""
    tests = (f"datum.y === {_quote(y)} ? {then} : " for y, then in table.items())
    return "".join(tests) + otherwise


def _label(content: Content, column: str) -> str:
    """Returns the expression of what a column has to say in a panel's name (`label_of`)."""
    values = content.choices[column]
    if is_number(values[0]):
        return f"{_quote(f'{name_of(column)} = ')} + {_datum(column)}"
    return f"{_quote({str(v): label_of(column, v) for v in values})}[{_datum(column)}]"


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
    steps.append({"fold": [field_of(y) for y in content.y], "as": ["y", "raw"]})
    if content.once:
        first = f"{line} === {_quote(content.lines[0])}"
        steps.append({"filter": _case(dict.fromkeys(content.once, first), "true")})
        if content.line_names != content.lines:
            line = f"{_quote(content.line_names)}[indexof({_quote(content.lines)}, {line})]"
        line = _case(dict.fromkeys(content.once, _quote(every(chart))), line)
    floor = f"{content.floor}, " if chart.log else ""
    least = "0, " if content.from_zero and chart.spread == "area" and not chart.log else floor
    made = {
        "x": _datum(chart.x) if content.names is None else f"toString({_datum(chart.x)})",
        "panel": f"join([{', '.join(_label(content, c) for c in content.panels)}], '{BETWEEN}')",
        "line": line,
        "value": f"isNumber(datum.raw) && isFinite(datum.raw) ? max({floor}datum.raw) : null",
        "column": _case({y: _quote(words) for y, words in chart.y.items()}),
    }
    if chart.mark == "line" and len(content.lines) > 1:
        made["dash"] = f"indexof({_quote([*content.line_names, every(chart)])}, datum.line)"
    elif chart.mark == "line":
        words = [clean(chart.y[y]) for y in content.y]
        made["dash"] = f"indexof({_quote(words)}, datum.column)"
    if chart.band:
        known = "isNumber(datum.raw) && isNumber(datum.spread) ?"
        made["spread"] = _case({y: _datum(column) for y, column in chart.band.items()})
        made["low"] = f"{known} max({least}datum.raw - datum.spread) : null"
        made["high"] = f"{known} max({floor}datum.raw + datum.spread) : null"
    if chart.dots:
        made["dot"] = _case({y: _datum(column) for y, column in chart.dots.items()})
    steps += [{"calculate": made[name], "as": name} for name in made]
    picked = [] if chart.mark == "heat" else content.picked
    return steps + [{"filter": {"param": f"only_{name}"}} for name in picked]


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
        parts.append(_quote(describe(column, value)))
    for column, value in chart.where.items():
        name = parameter(column)
        shown = f"format({name}, '{FORMAT}')" if is_number(value) else name
        parts.append(f"{_quote(name_of(column) + ' = ')} + {shown}")
    if content.clipped and chart.log:
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
