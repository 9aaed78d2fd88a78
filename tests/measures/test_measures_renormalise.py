"""BatchNorm reset and REPAIR: statistics against independent ones, ends, midpoints, errors."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from flax import linen as nn

from llfc_jax import measures
from llfc_jax.errors import ModeError
from llfc_jax.graph import features, trace
from llfc_jax.measures import renormalise
from llfc_jax.measures.calibration import calibrate
from llfc_jax.pair import Curve, interpolate

ALPHAS = (0.0, 0.3, 0.5, 1.0)


class Normed(nn.Module):
    """Convolution, BatchNorm, ReLU, dense, BatchNorm, ReLU, dense."""

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.0)
        x = nn.relu(norm(name="norm1")(nn.Conv(3, (3, 3), name="conv")(x)))
        x = nn.relu(norm(name="norm2")(nn.Dense(5, name="hidden")(x.reshape(len(x), -1))))
        return nn.Dense(oracle.CLASSES, name="out")(x)


NET = Normed()
SHAPE = (24, 4, 4, 2)
rng = np.random.default_rng(0)
X = rng.normal(size=SHAPE).astype(np.float32) + 0.5
Y = rng.integers(0, oracle.CLASSES, len(X), np.int32)
FULL = [(X, Y)]
PARTS = oracle.split((X, Y), 10)  # 10, 10 and 4


@functools.cache
def variables(seed: int) -> Any:
    """Parameters as initialised, with running statistics that fit nothing."""
    made = NET.init(jax.random.key(seed), X)
    noise = np.random.default_rng(seed)
    made["params"] = jax.tree.map(
        lambda leaf: leaf + 0.1 * noise.normal(size=leaf.shape).astype(np.float32), made["params"]
    )
    for norm in made["batch_stats"].values():
        shape = norm["mean"].shape
        norm["mean"] = jnp.asarray(noise.normal(size=shape) / 4, jnp.float32)
        norm["var"] = jnp.asarray(noise.uniform(0.5, 2, shape), jnp.float32)
    return made


def flax_statistics(v: Any, x: Any) -> Any:
    """What Flax itself stores after one training step with momentum 0."""
    _, changed = NET.apply(v, x, train=True, mutable=["batch_stats"])
    return changed["batch_stats"]


def reset(batches: Any, how: Any = "map") -> Any:
    return calibrate(NET.apply, Curve(variables(0), variables(1)), ALPHAS, batches, "reset", how)


def close(ours: Any, theirs: Any) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for p, q in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-4, atol=1e-5)


@functools.cache
def corrected_logits() -> list[Any]:
    """Logits of every point with the reset of the whole data set as one batch."""
    graph, found = trace(NET.apply, variables(0), X), reset(FULL)
    points = [jax.tree.map(lambda leaf, i=i: leaf[i], found) for i in range(len(ALPHAS))]
    mixed = [interpolate(variables(0), variables(1), alpha) for alpha in ALPHAS]
    return [renormalise.evaluate(graph, v, X, c).output for v, c in zip(mixed, points, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("point", range(len(ALPHAS)))
def test_a_reset_is_the_network_with_the_statistics_that_flax_computes(point: int):
    v = interpolate(variables(0), variables(1), ALPHAS[point])
    expected = NET.apply(v | {"batch_stats": flax_statistics(v, X)}, X)
    np.testing.assert_allclose(corrected_logits()[point], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [1, 5, 10, 23])
def test_statistics_are_those_of_all_data_however_they_are_cut(size: int):
    close(reset(oracle.split((X, Y), size)), reset(FULL))


@pytest.mark.parametrize("how", ["vmap", "unroll"])
def test_how_alpha_is_looped_over_does_not_matter(how: str):
    close(reset(PARTS, how), reset(PARTS))


def test_the_ends_are_reset_as_well():
    """A network against itself is linear in its features, reset or not."""
    v = variables(0)
    found = measures.llfc(
        NET.apply, v, v, FULL, alphas=(0.5,), renormalise="reset", train_batches=PARTS
    )
    np.testing.assert_allclose(found.distance, 0, atol=1e-6)


def test_a_reset_curve_is_that_of_networks_with_these_statistics():
    a, b = variables(0), variables(1)
    found = measures.lmc(
        NET.apply, a, b, PARTS, alphas=ALPHAS, renormalise="reset", train_batches=FULL
    )
    assert found.renormalise == "reset"
    assert found.records()[0]["renormalise"] == "reset"
    plain = measures.lmc(NET.apply, a, b, PARTS, alphas=ALPHAS)
    assert plain.renormalise == "none"
    for j, alpha in enumerate(ALPHAS):
        v = interpolate(a, b, alpha)
        logits = NET.apply(v | {"batch_stats": flax_statistics(v, X)}, X)
        expected = oracle.cross_entropy(np.asarray(logits, np.float64), Y)
        np.testing.assert_allclose(found.loss[j], expected, rtol=1e-4)
        assert abs(found.loss[j] - plain.loss[j]) > 1e-3


def test_llfc_reads_the_renormalised_network():
    a, b = variables(0), variables(1)
    found = measures.llfc(
        NET.apply, a, b, FULL, alphas=(0.5,), renormalise="reset", train_batches=FULL
    )
    middle = interpolate(a, b, 0.5)
    middle = middle | {"batch_stats": flax_statistics(middle, X)}
    graph = trace(NET.apply, a, X)
    ends = [v | {"batch_stats": flax_statistics(v, X)} for v in (a, b)]
    runs = [graph.evaluate(v, X) for v in (middle, *ends)]
    for i, name in enumerate(found.layers):
        u, p, q = (np.asarray(features(run, graph[name]), np.float64) for run in runs)
        distance, *_ = oracle.compare(u, (p + q) / 2)
        np.testing.assert_allclose(found.distance[i, 0], np.nanmean(distance), rtol=1e-3, atol=1e-6)


APPLY = oracle.network(oracle.CONVOLUTIONAL)
A, B = (oracle.weights(oracle.CONVOLUTIONAL, seed) for seed in (0, 1))
IMAGES = oracle.data(oracle.CONVOLUTIONAL, 40)
TRAIN = oracle.split(IMAGES, 16)


def repair(batches: Any) -> Any:
    return calibrate(APPLY, Curve(A, B), ALPHAS, batches, "repair", "map")


@pytest.mark.parametrize("size", [40, 16, 7])
def test_repair_changes_nothing_at_the_ends(size: int):
    found = repair(oracle.split(IMAGES, size))
    assert set(found.scale) == {"0", "1"}  # not the output layer
    for end in (0, -1):
        for site in found.scale:
            np.testing.assert_allclose(found.scale[site][end], 1, rtol=1e-4)
            np.testing.assert_allclose(found.shift[site][end], 0, atol=1e-4)
    plain = measures.lmc(APPLY, A, B, TRAIN, alphas=ALPHAS)
    mended = measures.lmc(
        APPLY, A, B, TRAIN, alphas=ALPHAS, renormalise="repair", train_batches=TRAIN
    )
    np.testing.assert_allclose(mended.loss[[0, -1]], plain.loss[[0, -1]], rtol=1e-4)
    assert abs(mended.loss[2] - plain.loss[2]) > 1e-3


def test_repair_brings_every_unit_to_the_mean_and_deviation_between_the_ends():
    correction = repair([IMAGES])
    x = IMAGES[0]
    of_a, of_b = (oracle.run(oracle.CONVOLUTIONAL, w, x) for w in (A, B))
    graph = trace(APPLY, A, x)
    for point, alpha in enumerate(ALPHAS):
        here = jax.tree.map(lambda leaf, i=point: leaf[i], correction)
        mixed = interpolate(oracle.device(A), oracle.device(B), alpha)
        values = renormalise.evaluate(graph, mixed, jnp.asarray(x), here)
        for site in ("0", "1"):
            ours, p, q = (
                np.asarray(v, np.float64).reshape(-1, v.shape[-1])
                for v in (values[site], of_a[site], of_b[site])
            )
            mean = alpha * p.mean(0) + (1 - alpha) * q.mean(0)
            deviation = alpha * p.std(0) + (1 - alpha) * q.std(0)
            np.testing.assert_allclose(ours.mean(0), mean, rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(ours.std(0), deviation, rtol=1e-3, atol=1e-4)


def test_repair_undoes_the_collapse_of_the_variance():
    """Two networks that are always right, whose average is not.

    Two hidden units of a are swapped in b, so that they cancel in the average. What they hand to
    the next layer's first unit is then missing, and it never passes its threshold (-1.6): REPAIR
    gives it back the mean and the deviation that it has in both ends.
    """

    def apply(v: Any, x: Any) -> Any:
        h = jax.nn.relu(x @ v["first"])
        h = jax.nn.relu(h @ v["second"] + v["threshold"][None])
        return h @ v["out"]

    def end(swapped: bool) -> Any:
        sign = -1.0 if swapped else 1.0
        carrier = [[0.0, 0.0], [2.0, 0.0]] if swapped else [[2.0, 0.0], [0.0, 0.0]]
        return {
            "first": jnp.array([[1.0, -1.0, sign, -sign]]),
            "second": jnp.array([[1.0, -1.0], [-1.0, 1.0], *carrier]),
            "threshold": jnp.array([-1.6, 0.0]),
            "out": jnp.array([[-1.0, 4.0], [1.0, -1.0]]),
        }

    noise = np.random.default_rng(0)
    y = np.arange(400, dtype=np.int32) % 2
    x = (2 * y[:, None] - 1 + 0.1 * noise.normal(size=(400, 1))).astype(np.float32)
    a, b, batches = end(False), end(True), [(x, y)]
    plain = measures.lmc(apply, a, b, batches, alphas=(0.5,))
    mended = measures.lmc(
        apply, a, b, batches, alphas=(0.5,), renormalise="repair", train_batches=batches
    )
    np.testing.assert_array_equal(plain.accuracy, [1, 0.5, 1])
    np.testing.assert_array_equal(mended.accuracy, [1, 1, 1])


class TestErrors:
    def test_a_reset_without_batchnorm(self):
        with pytest.raises(ModeError, match="needs BatchNorm"):
            measures.lmc(APPLY, A, B, TRAIN, renormalise="reset", train_batches=TRAIN)

    def test_repair_with_batchnorm(self):
        with pytest.raises(ModeError, match="without BatchNorm"):
            measures.lmc(
                NET.apply, variables(0), variables(1), PARTS, renormalise="repair",
                train_batches=PARTS,
            )  # fmt: skip

    def test_without_training_data(self):
        with pytest.raises(ModeError, match="needs train_batches"):
            measures.llfc(APPLY, A, B, TRAIN, renormalise="repair")
