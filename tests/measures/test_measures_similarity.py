"""Cosine distance, coefficient and relative distance against float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llfc_jax.measures import Rows, compare
from llfc_jax.measures.accumulate import Products, moments
from llfc_jax.measures.similarity import absolute, pool, pooled, sums

EPS = float(np.finfo(np.float32).eps)
ROWS, WIDTH = 6, 40
check = jax.jit(compare)


def exact(u: np.ndarray, v: np.ndarray) -> Rows:
    """The definitions, in extended precision."""
    u, v = u.astype(np.longdouble), v.astype(np.longdouble)
    uu, vv, uv = (u * u).sum(-1), (v * v).sum(-1), (u * v).sum(-1)
    lengths = np.sqrt(uu) * np.sqrt(vv)
    # 1 - cos of the unit vectors, in the form that loses no digits.
    unit = u / np.sqrt(uu)[..., None] - v / np.sqrt(vv)[..., None]
    return Rows((unit**2).sum(-1) / 2, uv / vv, ((u - v) ** 2).sum(-1) / lengths)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.floats(-20, 20),
    ratio=st.floats(-14, 14) | st.floats(-0.01, 0.01),
    angle=st.floats(-6, 2),
)
def test_against_float64_over_forty_orders_of_magnitude(
    seed: int, size: float, ratio: float, angle: float
):
    """Lengths 10^size and 10^(size + ratio), at angles from 1e-6 to a right angle and beyond."""
    rng = np.random.default_rng(seed)
    u, other = rng.normal(size=(2, ROWS, WIDTH))
    v = (u + 10**angle * other) * 10**ratio
    u, v = ((part * 10**size).astype(np.float32) for part in (u, v))
    found, true = Rows(*map(np.asarray, check(u, v))), exact(u, v)
    of_u, of_v = (np.linalg.norm(part.astype(float), axis=-1) for part in (u, v))
    # float32 rounds |u - v|² and the two lengths: that much of 1 - cos is lost, and no more.
    unlike = np.minimum(1, np.abs(of_u - of_v) / np.minimum(of_u, of_v))
    lost = 8 * EPS * (np.minimum(1, true.relative.astype(float)) + unlike) + EPS**2
    assert (np.abs(found.distance - true.distance) < lost + 1e-5 * true.distance).all()
    assert (np.abs(found.coefficient - true.coefficient) < 16 * EPS * of_u / of_v).all()
    np.testing.assert_allclose(found.relative, true.relative.astype(float), rtol=1e-5)


def test_parallel_vectors_have_distance_zero_and_antiparallel_two():
    u = np.random.default_rng(0).normal(size=(4, 500)).astype(np.float32)
    for factor in (1, 2, 1e-3, 1e3, 1e10):
        found = compare(u, (factor * u).astype(np.float32))
        np.testing.assert_allclose(found.distance, 0, atol=4e-7)
        np.testing.assert_allclose(found.coefficient, 1 / factor, rtol=1e-6)
        found = compare(u, (-factor * u).astype(np.float32))
        np.testing.assert_allclose(found.distance, 2, atol=1e-6)
        np.testing.assert_allclose(absolute(found.distance), 0, atol=1e-6)
        np.testing.assert_allclose(found.coefficient, -1 / factor, rtol=1e-6)
    assert (np.asarray(compare(u, u).distance) == 0).all()


def test_zero_vectors_have_no_direction():
    u = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    v = jnp.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    found = compare(u, v)
    assert np.isnan(found.distance).tolist() == [True, True, True, False]
    assert np.isnan(found.relative).tolist() == [True, True, True, False]
    assert np.isnan(found.coefficient).tolist() == [False, True, True, False]
    assert float(found.coefficient[0]) == 0


def test_a_derivative_exists_where_a_row_is_zero():
    """Where masks hide a division by zero, its derivative must be hidden too."""
    u = jnp.array([[0.0, 0.0], [1.0, 2.0]])
    gradient = jax.grad(lambda u: jnp.nansum(compare(u, jnp.ones((2, 2))).distance))(u)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_features_are_summed_in_single(dtype: jnp.dtype):
    rng = np.random.default_rng(0)
    u = jnp.asarray(rng.normal(size=(3, 4096)) * 100, dtype)  # 4096 * 100² overflows float16
    v = jnp.asarray(rng.normal(size=(3, 4096)) * 100, dtype)
    found = compare(u, v)
    true = exact(*(np.asarray(part.astype(jnp.float32)) for part in (u, v)))
    np.testing.assert_allclose(found.distance, true.distance.astype(float), rtol=1e-5)


pool_rows = jax.jit(lambda u, v, weight: pool(sums(u, v), weight))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.floats(-20, 20), cut=st.integers(1, ROWS - 1))
def test_pooling_over_batches_is_one_long_vector(seed: int, size: float, cut: int):
    rng = np.random.default_rng(seed)
    u, v = (rng.normal(size=(2, ROWS, WIDTH)) * 10**size).astype(np.float32)
    u *= np.float32(10) ** rng.integers(-6, 6, size=(ROWS, 1))  # samples of unlike size
    v = (u + 0.1 * v).astype(np.float32)

    def part(weight: np.ndarray) -> Products:
        found = pool_rows(u, v, weight.astype(np.float32))
        return jax.tree.map(lambda x: np.asarray(x, np.float64), found)

    first = np.arange(ROWS) < cut
    found = pooled(part(first).merge(part(~first)))
    true = exact(u.reshape(-1), v.reshape(-1))
    np.testing.assert_allclose(found.distance, float(true.distance), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.coefficient, float(true.coefficient), rtol=1e-5)
    np.testing.assert_allclose(found.relative, float(true.relative), rtol=1e-4)


def test_samples_of_weight_zero_do_not_count_in_a_pool():
    u = jnp.array([[1.0, 0.0], [1e30, 1e30]])
    v = jnp.array([[1.0, 1.0], [-1e30, 1e30]])
    one = pooled(jax.tree.map(np.asarray, pool(sums(u, v), jnp.array([1.0, 0.0]))))
    np.testing.assert_allclose(one.distance, 1 - 1 / np.sqrt(2), rtol=1e-6)


moments_of = jax.jit(moments)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), cuts=st.lists(st.integers(0, 30), max_size=4))
def test_moments_merge_to_those_of_all_samples(seed: int, cuts: list[int]):
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=30) + 1e3).astype(np.float32)  # deviation far below the mean
    values[rng.random(30) < 0.2] = np.nan
    edges = [0, *sorted(cuts), 30]
    merged = None
    for start, stop in itertools.pairwise(edges):
        one = np.zeros(31, np.float32)  # every part padded to one size, as batches are
        weight = np.zeros(31, np.float32)
        one[: stop - start], weight[: stop - start] = values[start:stop], 1
        part = jax.tree.map(lambda x: np.asarray(x, np.float64), moments_of(one, weight))
        merged = part if merged is None else merged.merge(part)
    assert merged is not None
    some = values[np.isfinite(values)].astype(np.float64)
    assert merged.count == len(some)
    if len(some):
        np.testing.assert_allclose(merged.average, some.mean(), rtol=1e-6)
    if len(some) > 1:
        np.testing.assert_allclose(merged.std, some.std(ddof=1), rtol=1e-3)


def test_moments_of_nothing_are_not_a_number():
    nothing = jax.tree.map(np.asarray, moments(jnp.full(3, jnp.nan), jnp.ones(3)))
    assert nothing.count == 0
    assert np.isnan(nothing.average)
    assert np.isnan(nothing.std)
    one = jax.tree.map(np.asarray, moments(jnp.array([2.0, 3.0]), jnp.array([1.0, 0.0])))
    assert one.average == 2
    assert np.isnan(one.std)
