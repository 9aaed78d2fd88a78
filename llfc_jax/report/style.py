"""Colours, dashes and type of every picture: quiet, and told apart without colour vision.

Each colour has a twin for dark pages; the page holds both as CSS variables, so a figure drawn
once follows the reader's theme.
"""

import contextlib
import functools
import math
import unicodedata
from collections.abc import Iterator

import matplotlib
import matplotlib.font_manager
import matplotlib.ft2font
from matplotlib.colors import to_hex

INK = {
    "page": ("#ffffff", "#15181b"),
    "ink": ("#1d2126", "#e6e4df"),
    "soft": ("#5f666e", "#9ba1a8"),
    "rule": ("#dedcd6", "#34383d"),
}
"""CSS variable -> (light, dark): background, text, secondary text, grid lines."""

SOFT = INK["soft"][0]

# Each has contrast 3 to its page; the first five stay apart for every kind of colour vision.
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
LEVELS = 33
DASHES = ("solid", (0, (4, 2)), (0, (1, 1.6)), (0, (5, 1.5, 1, 1.5)), (0, (7, 2.5)))
MARKERS = ("o", "s", "^", "D", "v")
HATCHES = (None, "////", "....", "xxxx", "----")
HEADING = "heading"  # identifier of a figure's own title, which the page hides: it has one itself
FONT = "DejaVu Sans"  # ships with Matplotlib: the same bytes on every machine


def categorical(index: int) -> str:
    """Colour of the `index`-th of a few names."""
    return CATEGORICAL[index % len(CATEGORICAL)][0]


def sequential(t: float) -> str:
    """Colour of a place `t` in [0, 1] along an order: viridis without its palest end."""
    return SEQUENTIAL[round(t * (LEVELS - 1))][0]


def _viridis(t: float) -> str:
    return to_hex(matplotlib.colormaps["viridis"](t))


SEQUENTIAL = tuple(
    (_viridis(0.78 * i / (LEVELS - 1)), _viridis(0.30 + 0.70 * i / (LEVELS - 1)))
    for i in range(LEVELS)
)


def variables() -> dict[str, tuple[str, str]]:
    """Every colour as a CSS variable: name -> (light, dark)."""
    return (
        INK
        | {f"c{i}": pair for i, pair in enumerate(CATEGORICAL)}
        | {f"s{i}": pair for i, pair in enumerate(SEQUENTIAL)}
    )


@contextlib.contextmanager
def paper() -> Iterator[None]:
    """Matplotlib set up for our figures, whatever the user's own settings are, and put back."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "axes.axisbelow": True,
                "axes.edgecolor": INK["soft"][0],
                "axes.grid": True,
                "axes.grid.axis": "y",
                "axes.labelcolor": INK["ink"][0],
                "axes.labelsize": 8,
                "axes.linewidth": 0.6,
                "axes.spines.right": False,
                "axes.spines.top": False,
                "axes.titlelocation": "left",
                "axes.titlesize": 8,
                "axes.titleweight": "bold",
                "font.family": "sans-serif",
                "font.sans-serif": [FONT],
                "font.size": 8,
                "grid.color": INK["rule"][0],
                "grid.linewidth": 0.5,
                "hatch.linewidth": 0.8,
                "legend.fontsize": 7.5,
                "legend.frameon": False,
                "lines.linewidth": 1.3,
                "lines.markeredgewidth": 0.9,
                "lines.markersize": 3.2,
                "savefig.facecolor": "white",
                "svg.fonttype": "none",  # words stay words: small, searchable, editable
                "svg.hashsalt": "llfc_jax",
                "text.color": INK["ink"][0],
                "text.hinting": "no_hinting",
                "text.parse_math": False,
                "xtick.color": INK["soft"][0],
                "xtick.labelsize": 7,
                "xtick.major.size": 2.5,
                "xtick.major.width": 0.6,
                "ytick.color": INK["soft"][0],
                "ytick.labelsize": 7,
                "ytick.major.size": 2.5,
                "ytick.major.width": 0.6,
                "ytick.minor.size": 0,
            }
        )
        yield


def power_of_ten(value: float) -> str:
    """A power of ten as it is written: 10⁻³."""
    digits = str(round(math.log10(value)))
    return "10" + digits.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


@functools.cache
def _glyphs() -> frozenset[int]:
    path = matplotlib.font_manager.findfont(FONT)
    return frozenset(matplotlib.ft2font.FT2Font(path).get_charmap())


def drawable(text: str) -> str:
    """`text` on one line, with the replacement mark for what the figures' font cannot draw."""
    plain = (" " if unicodedata.category(c).startswith(("C", "Z")) else c for c in text)
    return "".join(c if ord(c) in _glyphs() else "�" for c in plain)
