"""Results of measures: arrays with named axes, their rows, tables and figures.

A result is a frozen dataclass, registered as a pytree, whose array fields say which axes they
have. From that alone come its flat rows (`Result.records`) and its files (`Result.save`); with
the measure's `Chart`s come its figures. A measure never formats anything, and the report never
knows how a number was made.
"""

import dataclasses
import importlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, dataclass_transform

import numpy as np

from llfc_jax.errors import DataError, unknown
from llfc_jax.io import Row, write_csv, write_json
from llfc_jax.report.charts import Chart
from llfc_jax.report.style import SCREEN, Theme

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

T = TypeVar("T")
HTML_ROWS = 20  # of a result, in a notebook


def axes(*names: str) -> Any:
    """Declares a field that holds an array with these axes, in order.

    Each axis name is also the name of the `labels` field that says what stands along it.
    """
    return dataclasses.field(metadata={"axes": names})


def tables(*names: str) -> Any:
    """Declares a field that maps names to arrays with these axes: each name is a column."""
    return dataclasses.field(metadata={"tables": names}, default_factory=dict)


def labels(column: str) -> Any:
    """Declares a field that holds the labels of an axis; `column` names it in the rows."""
    return dataclasses.field(metadata={"labels": column})


def setting(default: object = dataclasses.MISSING) -> Any:
    """Declares a field that says how the result was measured: one value for all rows."""
    return dataclasses.field(metadata={"setting": True}, default=default)


@dataclass_transform(frozen_default=True, field_specifiers=(axes, tables, labels, setting))
def result(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass that is a pytree of its array fields."""
    import jax  # here, so that the report reads `Chart` and `Section` without it

    made = dataclasses.dataclass(frozen=True, repr=False)(cls)
    names = {"data": [], "meta": []}
    for field in dataclasses.fields(made):  # pyright: ignore[reportArgumentType]
        is_data = "axes" in field.metadata or "tables" in field.metadata
        names["data" if is_data else "meta"].append(field.name)
    jax.tree_util.register_dataclass(made, names["data"], names["meta"])
    return made


class Result:
    """Base of every result: flat rows, files, tables and figures, from the declared axes."""

    charts: ClassVar[tuple[Chart, ...]] = ()

    def records(self) -> list[Row]:
        """Returns flat rows, one per combination of labels.

        A field that lacks an axis repeats along it. A row is left out where every array that
        spans all axes is NaN there (ragged axes are padded with NaN).
        """
        columns = axis_columns(type(self))
        arrays, values = self._arrays()
        settings = {name: getattr(self, name) for name in _fields_with(type(self), "setting")}
        used = {axis for axes in arrays.values() for axis in axes}
        order = [axis for axis in columns if axis in used]
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
        """Writes the rows as CSV (or JSON, if `path` ends in .json), whole or not at all."""
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
        arrays, values = self._arrays()
        used = {axis for axes in arrays.values() for axis in axes}
        return _import("xarray").Dataset(
            {
                name: ([columns[axis] for axis in axes], values[name])
                for name, axes in arrays.items()
            },
            {columns[axis]: list(getattr(self, axis)) for axis in columns if axis in used},
            {name: getattr(self, name) for name in _fields_with(type(self), "setting")},
        )

    def _arrays(self) -> tuple[dict[str, tuple[str, ...]], dict[str, np.ndarray]]:
        """Returns the axes and the values of every array, those of `tables` by their own names."""
        axes = _fields_with(type(self), "axes")
        values = {name: np.asarray(getattr(self, name)) for name in axes}
        for field, along in _fields_with(type(self), "tables").items():
            table = getattr(self, field)
            axes |= dict.fromkeys(table, along)
            values |= {name: np.asarray(value) for name, value in table.items()}
        return axes, values

    def plot(self, name: str | None = None, theme: Theme = SCREEN) -> Any:
        """Returns one of the result's charts as an Altair chart; the first if no name is given.

        Raises:
            DataError: there is no such chart; the line names the nearest.
        """
        from llfc_jax.report.figures import draw

        charts = {chart.name: chart for chart in self.charts}
        if not charts:
            raise DataError(f"a {type(self).__name__} has no chart; use to_pandas()")
        if name is not None and name not in charts:
            raise DataError(unknown("figure", name, charts))
        return draw(charts[name] if name else self.charts[0], self.records(), theme)

    def __repr__(self) -> str:
        columns, (arrays, _) = axis_columns(type(self)), self._arrays()
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
