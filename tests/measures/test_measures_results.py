"""Rows and files of results, and the list of measures."""

import csv
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import oracle
import pytest

from llfc_jax import measures
from llfc_jax.results import Result, axes, labels, result, setting

APPLY = oracle.network(oracle.MLP)
A, B = (oracle.weights(oracle.MLP, seed) for seed in (0, 1))
BATCHES = oracle.split(oracle.data(oracle.MLP))


@result
class Made(Result):
    """Two axes, one field that lacks one of them, one that lacks both, one setting."""

    layers: tuple[str, ...] = labels("layer")
    ranks: tuple[int, ...] = labels("rank")
    value: Any = axes("layers", "ranks")
    other: Any = axes("layers", "ranks")
    whole: Any = axes("layers")
    single: Any = axes()
    samples: int = setting()
    kind: str = setting("none")


NAN = float("nan")
MADE = Made(
    layers=("first", "second, with a comma"),
    ranks=(1, 2),
    value=np.array([[0.1, 1 / 3], [1e-17, NAN]]),
    other=np.array([[1.0, NAN], [3.0, NAN]]),
    whole=np.array([5.0, NAN]),
    single=np.array(True),
    samples=7,
)


def test_rows_are_one_per_combination_of_labels():
    rows = MADE.records()
    assert [(row["layer"], row["rank"]) for row in rows] == [
        ("first", 1),
        ("first", 2),  # one of the two full arrays has a value here
        ("second, with a comma", 1),
    ]  # and nothing where both are NaN, beyond the rank of that layer
    assert list(rows[0]) == [
        "layer",
        "rank",
        "value",
        "other",
        "whole",
        "single",
        "samples",
        "kind",
    ]
    assert rows[0] | {"whole": None} == {
        "layer": "first", "rank": 1, "value": 0.1, "other": 1.0, "whole": None, "single": True,
        "samples": 7, "kind": "none",
    }  # fmt: skip
    assert [row["whole"] for row in rows[:2]] == [5.0, 5.0]
    assert np.isnan(rows[2]["whole"])
    assert all(not isinstance(v, (np.generic, np.ndarray)) for row in rows for v in row.values())


def test_csv_keeps_every_digit(tmp_path: Path):
    path = tmp_path / "new folder" / "made.csv"
    MADE.save(path)
    with path.open(newline="") as file:
        read = list(csv.DictReader(file))
    rows = MADE.records()
    assert list(read[0]) == list(rows[0])
    assert [float(row["value"]) for row in read] == [row["value"] for row in rows]
    assert read[2]["layer"] == "second, with a comma"
    assert read[2]["whole"] == "nan"
    assert {row["single"] for row in read} == {"True"}
    assert [p.name for p in path.parent.iterdir()] == ["made.csv"]  # nothing aside is left


def test_json_has_null_for_what_is_not_finite(tmp_path: Path):
    MADE.save(tmp_path / "made.json")
    read = json.loads((tmp_path / "made.json").read_text())
    assert read[2]["whole"] is None
    assert [row["value"] for row in read] == [0.1, 1 / 3, 1e-17]


def test_saving_again_replaces_the_file(tmp_path: Path):
    path = tmp_path / "made.csv"
    path.write_text("old")
    MADE.save(str(path))
    assert path.read_text().startswith("layer,rank,value")


def test_a_result_is_a_pytree_of_its_arrays():
    leaves, structure = jax.tree.flatten(MADE)
    assert len(leaves) == 4
    doubled = jax.tree.map(lambda leaf: 2 * leaf, MADE)
    assert doubled.layers == MADE.layers
    np.testing.assert_array_equal(doubled.value, 2 * MADE.value)
    assert jax.tree.unflatten(structure, leaves).samples == 7


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """Every measure in the list, in one pass."""
    options = measures.EvalOptions(alphas=oracle.ALPHAS)
    pair = measures.PairEvaluator(APPLY, A, B, BATCHES, options)
    return pair.measure([measures.build(name) for name in measures.MEASURES])


@pytest.mark.parametrize("name", measures.MEASURES)
def test_every_measure_in_the_list_runs_and_its_charts_have_their_columns(
    name: str, results: dict[str, Any]
):
    measure, found = measures.build(name), results[name]
    assert measure.name == measure.section.name == name
    rows = found.records()
    assert rows
    columns = set(rows[0]) | {"pair", "align", "split"}  # those that the experiment adds
    for chart in measure.section.charts:
        needed = {chart.x, *chart.y, *chart.band, *chart.band.values(), *chart.panels, *chart.where}
        needed |= {chart.lines} - {None}
        assert needed <= columns, (chart.name, needed - columns)
        for column, value in chart.where.items():
            assert any(abs(row[column] - value) < 1e-6 for row in rows)
    assert set(measure.section.columns) <= columns
    metrics = measure.summary_metrics(found)
    assert set(measure.columns) <= set(metrics)
    for key, value in metrics.items():
        assert isinstance(value, (bool, float, int)), key


def test_rows_say_how_they_were_measured(results: dict[str, Any]):
    found = results["llfc"]
    rows = found.records()
    assert len(rows) == 5 * 5
    assert {row["samples"] for row in rows} == {23}
    assert {row["renormalise"] for row in rows} == {"none"}
    for row in rows:
        i, j = found.layers.index(row["layer"]), found.alphas.index(row["alpha"])
        assert row["distance"] == found.distance[i, j]
        assert row["baseline"] == found.baseline[i]
        assert row["informative"] is bool(found.informative[i])
    rows = results["lmc"].records()
    assert len({row["loss_barrier_max"] for row in rows}) == 1
    stitched = measures.stitching(APPLY, A, B, BATCHES, sites="linear").records()
    assert [(row["layer"], row["direction"]) for row in stitched[:3]] == [
        ("0", "a into b"), ("0", "b into a"), ("1", "a into b")
    ]  # fmt: skip
