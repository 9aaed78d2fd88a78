"""What a figure and a section of the page show, as data: which column of the rows goes where.

A measure describes its charts; how they are drawn is decided in this package alone.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Chart:
    """One figure of a measure, as data: which column of its rows goes where.

    The rows of all pairs and alignments go in; `pair` and `align` are columns of every row. Each
    combination of values in `panels` is a panel of its own.

    Attributes:
        name: file stem.
        title: heading; one short phrase.
        caption: what a reader who never read the paper should see in it.
        x: column along the horizontal axis; a column of names is drawn in order of appearance.
        y: columns drawn, each with its own line style and its words in the legend: column -> words.
        x_label: words of the horizontal axis, unit included.
        y_label: words of the vertical axis, unit included.
        lines: column whose values are lines of their own colour, or None.
        band: columns with the standard deviation of a `y` column: y column -> deviation column.
        panels: columns whose combinations are panels.
        where: rows that count: column -> value (drawn only where equal; floats to 1e-6).
        log: whether the vertical axis is logarithmic.
        log_x: whether the horizontal one is; its ticks are then the values themselves.
        mark: "line" joins points; "dots" does not; "bars" for names along x; "heat" is a map of
            coloured cells: `x` across, `lines` down, the one column of `y` as colour.
        spread: how `band` is drawn: an area around a line, or error bars.
        dots: columns of single values drawn as faint dots behind a `y` column, which then repeats
            its value in the rows of a group: y column -> column.
        unless: column that makes the chart superfluous: pages and files leave it out where rows
            hold numbers there, as a chart of the loss where another shows the error.
        compares: whether it is left out, too, where `lines` has fewer than two values.
    """

    name: str
    title: str
    caption: str
    x: str
    y: Mapping[str, str]
    x_label: str
    y_label: str
    lines: str | None = None
    band: Mapping[str, str] = dataclasses.field(default_factory=dict)
    panels: tuple[str, ...] = ("pair", "align")
    where: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    log: bool = False
    log_x: bool = False
    mark: Literal["line", "dots", "bars", "heat"] = "line"
    spread: Literal["area", "bars"] = "area"
    dots: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unless: str = ""
    compares: bool = False


@dataclasses.dataclass(frozen=True)
class Section:
    """What the report says of one measure: its words and its charts.

    Attributes:
        name: the measure's name in the config; its rows are `NAME.csv`.
        title: heading of its section.
        text: what was measured and how to read it, in plain words; paragraphs are parted by blank
            lines, and `code` stands in backticks.
        charts: its figures.
        columns: columns of its table on the page, in order: column -> heading. Rows beyond a
            sensible number are folded away or left to the CSV.
    """

    name: str
    title: str
    text: str
    charts: tuple[Chart, ...]
    columns: Mapping[str, str]
