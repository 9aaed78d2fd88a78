"""What a measure returns: arrays with named axes, their rows, and how to draw them.

A result is a frozen dataclass, registered as a pytree, whose array fields say which axes they
have. From that alone come its flat rows (`Result.records`) and its files (`Result.save`); with
the measure's `Chart`s come its figures. A measure never formats anything, and the report never
knows how a number was made.
"""

import dataclasses
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, dataclass_transform

import numpy as np

from llfc_jax.io import Row, write_csv, write_json

T = TypeVar("T")


def axes(*names: str) -> Any:
    """A field that holds an array with these axes, in order.

    Each axis name is also the name of the `labels` field that says what stands along it.
    """
    return dataclasses.field(metadata={"axes": names})


def labels(column: str) -> Any:
    """A field that holds the labels of an axis, a tuple; `column` names it in the rows."""
    return dataclasses.field(metadata={"labels": column})


def setting(default: Any = dataclasses.MISSING) -> Any:
    """A field that says how the result was measured: the same value in every row."""
    return dataclasses.field(metadata={"setting": True}, default=default)


@dataclass_transform(frozen_default=True, field_specifiers=(axes, labels, setting))
def result(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass that is a pytree of its array fields."""
    import jax  # here, so that the report reads `Chart` and `Section` without it

    made = dataclasses.dataclass(frozen=True)(cls)
    names = {"data": [], "meta": []}
    for field in dataclasses.fields(made):  # pyright: ignore[reportArgumentType]
        names["data" if "axes" in field.metadata else "meta"].append(field.name)
    jax.tree_util.register_dataclass(made, names["data"], names["meta"])
    return made


class Result:
    """Base of every result: flat rows and files, derived from the declared axes."""

    def records(self) -> list[Row]:
        """Flat rows, one per combination of labels, ready for a table or `pandas.DataFrame`.

        A field that lacks an axis repeats along it. A row is left out where every array that
        spans all axes is NaN there (ragged axes are padded with NaN).
        """
        fields = {f.name: f for f in dataclasses.fields(self)}  # pyright: ignore[reportArgumentType]
        arrays = {n: f.metadata["axes"] for n, f in fields.items() if "axes" in f.metadata}
        settings = {n: getattr(self, n) for n, f in fields.items() if "setting" in f.metadata}
        order = list(dict.fromkeys(axis for names in arrays.values() for axis in names))
        order.sort(key=list(fields).index)
        values = {n: np.asarray(getattr(self, n)) for n in arrays}
        full = [n for n, names in arrays.items() if len(names) == len(order)]
        rows = []
        for place in itertools.product(*(range(len(getattr(self, axis))) for axis in order)):
            at = dict(zip(order, place, strict=True))
            row: Row = {
                fields[axis].metadata["labels"]: getattr(self, axis)[i] for axis, i in at.items()
            }
            for name, names in arrays.items():
                row[name] = values[name][tuple(at[axis] for axis in names)].item()
            if full and order and all(row[n] != row[n] for n in full):
                continue
            rows.append(row | settings)
        return rows

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the rows as CSV (or JSON, if `path` ends in .json), whole or not at all."""
        path = Path(path)
        write = write_json if path.suffix == ".json" else write_csv
        write(path, self.records())


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
