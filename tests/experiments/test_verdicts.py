"""Verdicts: thresholds, words, and that neither the grid of α nor the batch size moves them."""

import math
import pickle

import jax
import numpy as np
import pytest

import llfc_jax
from llfc_jax.errors import ModeError
from llfc_jax.experiments.verdicts import in_short, llfc_grade, lmc_grade, verdicts

ROW = {"pair": "p", "align": "none", "midpoint_barrier": 0.0, "llfc_median": 0.01,
       "llfc_ratio": 20.0, "informative": True}  # fmt: skip


@pytest.mark.parametrize(
    ("barrier", "grade"), [(0.0, 0), (0.01, 0), (0.011, 1), (0.03, 1), (0.031, 2), (math.nan, None)]
)
def test_lmc_is_graded_by_the_barrier_at_one_half(barrier, grade):
    assert lmc_grade({**ROW, "midpoint_barrier": barrier}) == grade


@pytest.mark.parametrize(
    ("distance", "ratio", "grade"),
    [(0.05, 10, 0), (0.051, 10, 1), (0.05, 9.9, 1), (0.1, 5, 1), (0.11, 5, 2), (0.1, 4.9, 2)],
)
def test_llfc_is_graded_by_distance_and_ratio(distance, ratio, grade):
    assert llfc_grade({**ROW, "llfc_median": distance, "llfc_ratio": ratio}) == grade


def test_what_is_uninformative_gets_no_verdict_on_llfc_but_keeps_that_on_lmc():
    row = {**ROW, "informative": False}
    assert llfc_grade(row) is None
    assert in_short(row) == "LMC, LLFC uninformative"
    (only,) = verdicts([row])
    assert "is linearly mode connected" in only.text
    assert "says nothing" in only.text
    assert only.tone == "warning"


def test_at_chance_nothing_is_said():
    row = {**ROW, "above_chance": False, "informative": False}
    assert lmc_grade(row) is None
    assert in_short(row) == "uninformative: an end is at chance"
    (only,) = verdicts([row])
    assert "no better than chance" in only.text
    assert "connected" not in only.text


def apply(w, x):
    return jax.nn.relu(jax.nn.relu(x @ w["in"]) @ w["mid"]) @ w["out"]


def mode(seed):
    random = np.random.default_rng(seed)
    shapes = {"in": (6, 24), "mid": (24, 24), "out": (24, 4)}
    return {n: (random.normal(size=s) / np.sqrt(s[0])).astype("f4") for n, s in shapes.items()}


@pytest.fixture(scope="module")
def data():
    x = np.random.default_rng(5).normal(size=(400, 6)).astype("f4")
    return x, np.asarray(apply(mode(0), x)).argmax(-1)


@pytest.mark.parametrize("near", [True, False])
@pytest.mark.slow
def test_the_verdict_does_not_depend_on_the_grid_or_the_batch_size(near, data):
    a = mode(0)
    b = jax.tree.map(lambda p, q: p + 0.1 * q, a, mode(1)) if near else mode(1)
    x, _ = data
    y = np.asarray(apply(a, x) + apply(b, x)).argmax(-1)  # both ends are better than chance
    said = set()
    for grid, size in (((0.0, 0.5, 1.0), 400), ((0.0, 0.1, 1.0), 150), ((0.02,), 400)):
        study = llfc_jax.study(
            apply, a, b, (x, y), measures=["lmc", "llfc"], alphas=grid, batch_size=size
        )
        said.add((study.summary[0]["verdict"], str(study)))
    assert len(said) == 1
    assert ("no LMC" in said.pop()[0]) is not near


def test_a_study_pickles_with_its_alignments(data):
    study = llfc_jax.study(
        apply, mode(0), mode(1), data, measures=["lmc"], align=["weight"], alphas=(0.0, 1.0)
    )
    again = pickle.loads(pickle.dumps(study))
    assert again.summary == study.summary
    ours, theirs = (s.aligned["pair", "weight"].model for s in (study, again))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    closed = llfc_jax.study(
        lambda w, x: apply(w, x), mode(0), mode(1), data, measures=["lmc"], align=["weight"],
        alphas=(0.0, 1.0),
    )  # fmt: skip
    lost = pickle.loads(pickle.dumps(closed)).aligned["pair", "weight"]
    jax.tree.map(np.testing.assert_array_equal, lost.variables, theirs)
    with pytest.raises(ModeError, match="could not be pickled"):
        _ = lost.model
