"""What a measure returns: arrays with named axes, their rows, and how to draw them.

A result is a frozen dataclass, registered as a pytree, whose array fields say which axes they
have. From that alone come its flat rows (`Result.records`) and its files (`Result.save`); with
the measure's `Chart`s come its figures. A measure never formats anything, and the report never
knows how a number was made.
"""

import dataclasses
import importlib
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, dataclass_transform

import numpy as np

from llfc_jax.errors import DataError, unknown
from llfc_jax.io import Row, write_csv, write_json

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

T = TypeVar("T")
HTML_ROWS = 20  # of a result, in a notebook


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

    made = dataclasses.dataclass(frozen=True, repr=False)(cls)
    names = {"data": [], "meta": []}
    for field in dataclasses.fields(made):  # pyright: ignore[reportArgumentType]
        names["data" if "axes" in field.metadata else "meta"].append(field.name)
    jax.tree_util.register_dataclass(made, names["data"], names["meta"])
    return made


class Result:
    """Base of every result: flat rows, files, tables and figures, from the declared axes."""

    charts: ClassVar[tuple["Chart", ...]] = ()

    def records(self) -> list[Row]:
        """Returns flat rows, one per combination of labels.

        A field that lacks an axis repeats along it. A row is left out where every array that
        spans all axes is NaN there (ragged axes are padded with NaN).
        """
        columns = axis_columns(type(self))
        arrays = _fields_with(type(self), "axes")
        settings = {name: getattr(self, name) for name in _fields_with(type(self), "setting")}
        used = {axis for axes in arrays.values() for axis in axes}
        order = [axis for axis in columns if axis in used]
        values = {name: np.asarray(getattr(self, name)) for name in arrays}
        full = [name for name, axes in arrays.items() if len(axes) == len(order)]
        rows = []
        for place in itertools.product(*(range(len(getattr(self, axis))) for axis in order)):
            at = dict(zip(order, place, strict=True))
            row: Row = {columns[axis]: getattr(self, axis)[i] for axis, i in at.items()}
            for name, axes in arrays.items():
                row[name] = values[name][tuple(at[axis] for axis in axes)].item()
            if full and order and all(row[n] != row[n] for n in full):
                continue
            rows.append(row | settings)
        return rows

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the rows as CSV (or JSON, if `path` ends in .json), whole or not at all."""
        path = Path(path)
        write = write_json if path.suffix == ".json" else write_csv
        write(path, self.records())

    def to_pandas(self) -> "pd.DataFrame":
        """Returns the rows as a `pandas.DataFrame`.

        Raises:
            DataError: pandas is not installed.
        """
        return rows_to_pandas(self.records())

    def to_xarray(self) -> "xr.Dataset":
        """Returns the arrays as an `xarray.Dataset` with labelled axes.

        Raises:
            DataError: xarray is not installed.
        """
        columns = axis_columns(type(self))
        arrays = _fields_with(type(self), "axes")
        used = {axis for axes in arrays.values() for axis in axes}
        return _import("xarray").Dataset(
            {
                name: ([columns[axis] for axis in axes], np.asarray(getattr(self, name)))
                for name, axes in arrays.items()
            },
            {columns[axis]: list(getattr(self, axis)) for axis in columns if axis in used},
            {name: getattr(self, name) for name in _fields_with(type(self), "setting")},
        )

    def plot(self, name: str | None = None) -> Any:
        """Returns one of the result's charts; the first if no name is given.

        Raises:
            DataError: there is no such chart; the line names the nearest.
        """
        from llfc_jax.report.figures import draw

        charts = {chart.name: chart for chart in self.charts}
        if not charts:
            raise DataError(f"a {type(self).__name__} has no chart; use to_pandas()")
        if name is not None and name not in charts:
            raise DataError(unknown("figure", name, charts))
        return draw(charts[name] if name else self.charts[0], self.records())

    def __repr__(self) -> str:
        columns, arrays = axis_columns(type(self)), _fields_with(type(self), "axes")
        used = {axis for axes in arrays.values() for axis in axes}
        sizes = [f"{columns[axis]}: {len(getattr(self, axis))}" for axis in columns if axis in used]
        return f"{type(self).__name__}({', '.join(sizes)}; {', '.join(arrays)})"

    def _repr_html_(self) -> str:
        """Returns the first rows as a table, for notebooks."""
        from llfc_jax.report.html import summary

        rows = self.records()[:HTML_ROWS]
        return summary([], rows, {name: name for name in rows[0]} if rows else {})


def axis_columns(result_type: type[Result]) -> dict[str, str]:
    """Returns the axes of a type of result, in order: field of the labels -> column in rows."""
    return _fields_with(result_type, "labels")


def _fields_with(result_type: type[Result], kind: str) -> dict[str, Any]:
    """Returns the fields of one kind ("axes", "labels", "setting"), with what they declare."""
    every = dataclasses.fields(result_type)  # pyright: ignore[reportArgumentType]
    return {field.name: field.metadata[kind] for field in every if kind in field.metadata}


def rows_to_pandas(rows: Sequence[Row]) -> "pd.DataFrame":
    """Returns rows as a `pandas.DataFrame`.

    Raises:
        DataError: pandas is not installed.
    """
    return _import("pandas").DataFrame(list(rows))


def rows_to_xarray(rows: Sequence[Row], axes: Sequence[str]) -> "xr.Dataset":
    """Returns rows as an `xarray.Dataset`; the columns `axes` become its dimensions.

    Raises:
        DataError: pandas or xarray is not installed.
    """
    _import("xarray")
    return rows_to_pandas(rows).set_index(list(axes)).to_xarray()


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise DataError(f"this needs {package}; install it: pip install {package}") from error


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
