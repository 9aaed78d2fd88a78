"""The triangle between three modes, against plain evaluation in float64 and against the line."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax import landscape, measures
from llfc_jax.errors import DataError, GraphError, ModeError
from llfc_jax.landscape.simplex import barycentric_grid
from llfc_jax.pair import interpolate, mix
from llfc_jax.report.style import PAPER
from llfc_jax.report.triangle import build_triangle

STEPS = 4


def apply(w, x):
    return jnp.maximum(x @ w["in"] + w["bias"], 0) @ w["out"]


def mode(seed):
    random = np.random.default_rng(seed)
    shapes = {"in": (5, 8), "bias": (1, 8), "out": (8, 3)}
    return {name: random.normal(size=shape).astype("f4") for name, shape in shapes.items()}


MODES = [mode(seed) for seed in range(3)]
X = np.random.default_rng(3).normal(size=(50, 5)).astype("f4")
Y = np.random.default_rng(4).integers(0, 3, 50)
BATCHES = [(X[:32], Y[:32]), (X[32:], Y[32:])]


def evaluate(weights):
    """Loss and accuracy of a mixture, in plain float64."""
    mixed = {n: sum(w * m[n].astype("f8") for w, m in zip(weights, MODES)) for n in MODES[0]}  # noqa: B905
    logits = np.maximum(X @ mixed["in"] + mixed["bias"], 0) @ mixed["out"]
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(Y)), Y]
    return losses.mean(), (logits.argmax(1) == Y).mean()


@pytest.fixture(scope="module")
def found():
    return landscape.measure_simplex(apply, MODES, BATCHES, steps=STEPS)


def test_every_point_is_the_mixture_evaluated_plainly(found):
    assert len(found.points) == (STEPS + 1) * (STEPS + 2) // 2
    wanted = np.array([evaluate(weights) for weights in found.weights])
    np.testing.assert_allclose(found.loss, wanted[:, 0], rtol=1e-5)
    np.testing.assert_allclose(found.error, 1 - wanted[:, 1], atol=1e-9)
    assert found.samples == len(Y)


def test_an_edge_is_the_line_between_two_modes(found):
    alphas = [i / STEPS for i in range(STEPS + 1)]
    for first, second, third in ((0, 1, 2), (1, 2, 0), (0, 2, 1)):
        edge = found.weights[:, third] == 0
        order = np.argsort(found.weights[edge][:, first])
        line = measures.lmc(apply, MODES[first], MODES[second], BATCHES, alphas=alphas)
        np.testing.assert_allclose(np.asarray(found.loss)[edge][order], line.loss, rtol=1e-6)


def test_the_barrier_is_the_largest_height_above_the_plane_through_the_modes(found):
    corners = [evaluate(row)[0] for row in np.eye(3)]
    heights = [evaluate(w)[0] - np.dot(w, corners) for w in barycentric_grid(STEPS)]
    assert found.barrier("loss") == pytest.approx(max(heights), abs=1e-5)


def test_mixing_two_modes_is_interpolating_them():
    a, b = MODES[:2]
    one, other = mix([a, b], np.float32([0.25, 0.75])), interpolate(a, b, 0.25)
    for name in a:
        np.testing.assert_array_equal(one[name], other[name])
    special = {
        "mask": np.float32([-np.inf, 1]),
        "count": np.int32(3),
        "f8": jnp.ones(2, "float8_e4m3fn"),
    }
    mixed = mix([special] * 3, [0.5, 0.25, 0.25])
    np.testing.assert_array_equal(mixed["mask"], special["mask"])
    assert mixed["count"] == 3
    np.testing.assert_array_equal(mixed["f8"].astype("f4"), 1)


def repaired(weights):
    """Loss of a mixture whose hidden units have the modes' mean statistics, in plain float64."""
    mixed = {n: sum(w * m[n].astype("f8") for w, m in zip(weights, MODES)) for n in MODES[0]}  # noqa: B905
    each = np.stack([X.astype("f8") @ m["in"] for m in MODES])
    of_mean, of_std = (np.tensordot(weights, part, 1) for part in (each.mean(1), each.std(1)))
    product = X.astype("f8") @ mixed["in"]
    product = (product - product.mean(0)) / product.std(0) * of_std + of_mean
    logits = np.maximum(product + mixed["bias"], 0) @ mixed["out"]
    shifted = logits - logits.max(1, keepdims=True)
    return (np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(Y)), Y]).mean()


def test_mixtures_of_any_number_of_modes_are_repaired_to_the_mixture_of_their_statistics():
    weights = [[0.2, 0.5, 0.3], [0.5, 0.5, 0]]
    options = landscape.PointOptions(renormalise="repair")
    found = landscape.measure_mixtures(apply, MODES, (X, Y), weights, options=options)
    wanted = [evaluate(row)[0] for row in np.eye(3)] + [repaired(row) for row in weights]
    np.testing.assert_allclose(found.loss, wanted, rtol=1e-5)
    line = measures.lmc(apply, *MODES[:2], (X, Y), renormalise="repair", train_batches=(X, Y))
    assert found.loss[4] == pytest.approx(line.loss[line.alphas.index(0.5)], rel=1e-5)
    plain = landscape.measure_mixtures(apply, MODES, BATCHES)
    assert plain.points == ("modes[0]", "modes[1]", "modes[2]", "mean")
    assert plain.loss[3] == pytest.approx(evaluate([1 / 3] * 3)[0], rel=1e-5)
    assert len(found.records()) == 5 * 3
    for wrong in ([0.2, 0.8, 0.0], [[0.5, 0.5]], [[1.0, 1.0, 1.0]]):
        with pytest.raises(ModeError, match="rows of 3 numbers that add up to 1"):
            landscape.measure_mixtures(apply, MODES, BATCHES, wrong)


def test_mistakes_are_said_before_any_work():
    with pytest.raises(ModeError, match="name three modes and 1 step or more, not 2 and 4"):
        landscape.measure_simplex(apply, MODES[:2], BATCHES, steps=4)
    with pytest.raises(ModeError, match="not modes of one network"):
        landscape.measure_simplex(apply, [*MODES[:2], {"in": X}], BATCHES)
    with pytest.raises(GraphError, match="must return logits"):
        landscape.measure_simplex(lambda w, x: apply(w, x).sum(), MODES, BATCHES)
    with pytest.raises(DataError, match="the network has 3 classes"):
        landscape.measure_simplex(apply, MODES, [(X, Y + 1)])


def test_the_figure_holds_every_point_where_it_lies(found):
    altair = pytest.importorskip("altair")
    figure = found.plot("error")
    assert isinstance(figure, altair.LayerChart)
    spec = figure.to_dict()  # validated
    cells, corners = (layer["data"]["values"] for layer in spec["layer"])
    assert [cell["error"] for cell in cells] == pytest.approx([float(e) for e in found.error])
    places = {"a": (0.5, np.sqrt(3) / 2), "b": (1, 0), "c": (0, 0)}
    weights = [[cell[f"weight_{name}"] for name in places] for cell in cells]
    wanted = np.array(weights) @ np.array(list(places.values()))
    np.testing.assert_allclose([(c["u"], c["v"]) for c in cells], wanted, atol=1e-12)
    assert {corner["name"] for corner in corners} == {*places}
    assert "error" in json.dumps(build_triangle(found.records(), "error", PAPER))
