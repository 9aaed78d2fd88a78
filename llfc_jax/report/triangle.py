"""The triangle between three modes as a Vega-Lite spec: cells in barycentric coordinates."""

import math
from collections.abc import Mapping
from typing import Any

from llfc_jax.report import style
from llfc_jax.report.numbers import Rows

WEIGHTS = ("weight_a", "weight_b", "weight_c")
HEIGHT = math.sqrt(3) / 2  # of a triangle with edges of length 1
HEXAGON = "M0,-1L0.866,-0.5L0.866,0.5L0,1L-0.866,0.5L-0.866,-0.5Z"
MARGIN = 0.1  # around the triangle, in parts of its edge


def draw_triangle(rows: Rows, value: str, theme: style.Theme = style.SCREEN) -> Any:
    """Returns rows of `measures.SimplexResult` as an Altair chart, coloured by one column.

    Mode c is at the left corner, b at the right one, a on top; the pointer reads every cell.
    """
    import altair

    return altair.LayerChart.from_dict(build_triangle(rows, value, theme))


def build_triangle(rows: Rows, value: str, theme: style.Theme) -> dict[str, Any]:
    """Returns the triangle as a Vega-Lite spec."""
    steps = round((math.sqrt(8 * len(rows) + 1) - 3) / 2)  # of (steps + 1) (steps + 2) / 2 points
    width = 0.6 * theme.width if theme.heading else theme.width
    cells = [dict(row) | dict(zip("uv", _place(row), strict=True)) for row in rows]
    corners = [
        {"name": name[-1], "u": u, "v": v + (0.07 if v else -0.07)}
        for row in rows
        for name in WEIGHTS
        if row[name] == 1
        for u, v in [_place(row)]
    ]
    tips = [
        {"field": name, "title": name.replace("_", " of "), "format": ".3~g"} for name in WEIGHTS
    ]
    tips += [{"field": name, "title": name, "format": ".4~g"} for name in ("loss", "error")]
    axis = {"type": "quantitative", "axis": None}
    x = axis | {"field": "u", "scale": {"domain": [-MARGIN, 1 + MARGIN]}}
    y = axis | {"field": "v", "scale": {"domain": [-MARGIN, HEIGHT + MARGIN]}}
    legend = {"title": value, "orient": "right", "format": ".4~g", "titleOrient": "top"}
    colour = {"field": value, "type": "quantitative", "legend": legend,
              "scale": {"scheme": "viridis", "reverse": True}}  # fmt: skip
    # Hexagons around the points of the grid, a little larger, so that no gap shows between them.
    mark = {"type": "point", "shape": HEXAGON, "filled": True, "opacity": 1,
            "size": {"expr": f"1.4 * pow(width / {(1 + 2 * MARGIN) * steps}, 2)"}}  # fmt: skip
    text = {"type": "text", "fontSize": 1.3 * theme.size, "fontStyle": "italic"}
    return {
        "width": round(width),
        "height": round(width * (HEIGHT + 2 * MARGIN) / (1 + 2 * MARGIN)),
        "usermeta": {"scaled": True} | ({} if theme.heading else {"width": theme.width}),
        "layer": [
            {"data": {"values": cells}, "mark": mark,
             "encoding": {"x": x, "y": y, "color": colour, "tooltip": tips}},
            {"data": {"values": corners}, "mark": text,
             "encoding": {"x": x, "y": y, "text": {"field": "name"}}},
        ],
        "config": theme.config(),
    }  # fmt: skip


def _place(row: Mapping[str, Any]) -> tuple[float, float]:
    """Returns where a mixture lies: c at (0, 0), b at (1, 0), a at (½, √3/2)."""
    return row["weight_b"] + row["weight_a"] / 2, HEIGHT * row["weight_a"]
