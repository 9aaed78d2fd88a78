"""Colours, dashes and type of every chart: quiet, and distinct without colour vision or in grey.

A theme is a Vega-Lite configuration with the colours that a chart's scales use. The page's theme
names CSS variables instead of colours, so that a chart drawn once follows light, dark and print.
"""

import dataclasses
from typing import Any

INK = {
    "page": ("#ffffff", "#15181b"),
    "ink": ("#1d2126", "#e6e4df"),
    "soft": ("#5f666e", "#9ba1a8"),
    "rule": ("#dedcd6", "#34383d"),
}
"""CSS variable -> (light, dark): background, text, secondary text, grid lines."""

# Contrast 3 to their page; the first five stay apart for every kind of colour vision.
CATEGORICAL = (
    ("#1a62ab", "#5aa9e6"),
    ("#d2610c", "#f5903f"),
    ("#2a9d8f", "#9be8d8"),
    ("#7b2d6b", "#b45aa8"),
    ("#9b1d20", "#e04f5f"),
    ("#6b7480", "#a3abb3"),
    ("#3a2a78", "#8f86e8"),
    ("#a07800", "#ecd06a"),
)
DASHES = ([1, 0], [5, 2.5], [1.5, 2], [7, 2, 1.5, 2], [9, 3])
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "stroke", "arrow")
# Viridis, without its palest end on a light page and without its darkest on a dark one.
_LIGHT = (
    "440154 461264 482374 45327d 404185 3b4f8a 365d8c 306a8e 2b758e 27818e 238d8c 20998a "
    "25a585 2eb07e 3dba74 56c466 6fce57"
)
_DARK = (
    "355f8c 306a8e 2c758e 277f8e 248a8d 21958b 20a088 29a982 32b37b 43bd71 59c664 70ce57 "
    "8cd545 a8db33 c4e02a e1e327 fde725"
)
SEQUENTIAL = tuple(
    (f"#{light}", f"#{dark}") for light, dark in zip(_LIGHT.split(), _DARK.split(), strict=True)
)


def variables() -> dict[str, tuple[str, str]]:
    """Returns every colour as a CSS variable: name -> (light, dark)."""
    named = {f"c{i}": pair for i, pair in enumerate(CATEGORICAL)}
    return INK | named | {f"s{i}": pair for i, pair in enumerate(SEQUENTIAL)}


@dataclasses.dataclass(frozen=True)
class Theme:
    """How charts look in one place.

    Attributes:
        css: whether colours are CSS variables of the page instead of their light values.
        width: width of a whole figure, in units of 1/72 inch for files.
        heading: whether the chart's title stands above it.
        font: names of the typeface.
        size: size of the type.
        line: width of lines.
    """

    css: bool = False
    width: float = 720
    heading: bool = True
    font: str = "Helvetica, Arial, Liberation Sans, sans-serif"
    size: float = 11
    line: float = 1.7

    def colour(self, name: str) -> str:
        """Returns a colour of `variables` by its name."""
        return f"var(--{name})" if self.css else variables()[name][0]

    def along(self, count: int) -> list[str]:
        """Returns `count` colours along an order."""
        steps = (round(i * (len(SEQUENTIAL) - 1) / max(1, count - 1)) for i in range(count))
        return [self.colour(f"s{step}") for step in steps]

    def hues(self, count: int) -> list[str]:
        """Returns `count` colours for names."""
        return [self.colour(f"c{i % len(CATEGORICAL)}") for i in range(count)]

    def config(self) -> dict[str, Any]:
        """Returns the Vega-Lite configuration."""
        ink, soft, rule = (self.colour(name) for name in ("ink", "soft", "rule"))
        words = {"titleColor": ink, "labelColor": soft, "titleFontWeight": "normal",
                 "titleFontSize": self.size, "labelFontSize": 0.9 * self.size}  # fmt: skip
        return {
            "background": "transparent" if self.css else "white",
            "font": "system-ui, Segoe UI, Roboto, sans-serif" if self.css else self.font,
            "axis": words | {"domainColor": soft, "tickColor": soft, "gridColor": rule},
            "axisX": {"grid": False},
            "legend": words
            | {"orient": "bottom", "labelColor": ink, "columnPadding": 14,
               "symbolSize": 5.5 * self.size,
               "titleOrient": "left", "offset": 6,
               "layout": {"expr": "{bottom: {anchor: 'start', direction: 'vertical'}}"}},
            "header": {"labelColor": ink, "labelFontSize": self.size, "labelFontWeight": "bold",
                       "labelAnchor": "start", "labelPadding": 3},
            "title": {"anchor": "start", "color": ink, "fontSize": 1.1 * self.size, "offset": 8,
                      "fontWeight": "normal", "lineHeight": 1.4 * self.size},
            "view": {"stroke": None},
            "customFormatTypes": True,  # for names in tooltips, see `vega`
        }  # fmt: skip


SCREEN = Theme()
"""For notebooks and files to look at."""

PAGE = Theme(css=True, heading=False)
"""For the page."""

PAPER = Theme(width=3.25 * 72, heading=False, size=8, line=1.1)
"""For a column of a paper, 3.25 inches: 8 point type, no title, since the caption says it."""

PAPER_WIDE = dataclasses.replace(PAPER, width=6.75 * 72)
"""For both columns of a paper, 6.75 inches."""
