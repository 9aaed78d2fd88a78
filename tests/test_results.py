"""Results as rows, data frames and labelled arrays; how they look."""

import pickle

import numpy as np
import pytest

from llfc_jax.errors import DataError
from llfc_jax.results import Result, axes, axis_columns, labels, result, setting


@result
class Measured(Result):
    """A table of layers and alphas, with a ragged value."""

    layers: tuple[str, ...] = labels("layer")
    alphas: tuple[float, ...] = labels("alpha")
    distance: np.ndarray = axes("layers", "alphas")
    width: np.ndarray = axes("layers")
    samples: int = setting()


def made():
    distance = np.array([[0.0, 0.25], [np.nan, 0.5], [np.nan, np.nan]])
    return Measured(("a", "b", "c"), (0.0, 1.0), distance, np.array([4, 8, 16]), 7)


def test_a_row_for_every_combination_of_labels_that_was_measured():
    rows = made().records()
    assert [(r["layer"], r["alpha"], r["width"], r["samples"]) for r in rows] == [
        ("a", 0.0, 4, 7), ("a", 1.0, 4, 7), ("b", 1.0, 8, 7),
    ]  # fmt: skip
    assert axis_columns(Measured) == {"layers": "layer", "alphas": "alpha"}


def test_the_same_numbers_in_pandas_and_in_xarray():
    pytest.importorskip("pandas")
    pytest.importorskip("xarray")
    frame = made().to_pandas()
    assert frame["distance"].tolist() == [0.0, 0.25, 0.5]
    array = made().to_xarray()
    assert array["distance"].sel(layer="b", alpha=1.0).item() == 0.5
    assert array["width"].dims == ("layer",)
    assert array.attrs == {"samples": 7}


def test_what_is_printed_is_short_and_what_a_notebook_shows_is_a_table():
    assert repr(made()) == "Measured(layer: 3, alpha: 2; distance, width)"
    assert "<table" in made()._repr_html_()


def test_a_result_without_charts_says_what_to_do_instead():
    with pytest.raises(DataError, match="to_pandas"):
        made().plot()


def test_results_pickle():
    again = pickle.loads(pickle.dumps(made()))
    np.testing.assert_array_equal(again.distance, made().distance)
    assert again.layers == made().layers
