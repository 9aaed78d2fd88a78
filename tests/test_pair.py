"""The line between two modes, and what is no pair."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax.errors import ModeError
from llfc_jax.pair import check_pair, interpolate


def tree(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return {
        "params": {"w": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)},
        "batch_stats": {"mean": jnp.asarray(rng.normal(size=4), jnp.float32)},
        "half": jnp.asarray(rng.normal(size=4), jnp.bfloat16),
        "counter": jnp.int32(10 * seed),
    }


A, B = tree(1), tree(2)


def test_alpha_multiplies_a():
    found = interpolate(A, B, 0.25)
    w = 0.25 * np.asarray(A["params"]["w"], float) + 0.75 * np.asarray(B["params"]["w"], float)
    np.testing.assert_allclose(found["params"]["w"], w, rtol=1e-6)
    mean = 0.25 * A["batch_stats"]["mean"] + 0.75 * B["batch_stats"]["mean"]
    np.testing.assert_allclose(found["batch_stats"]["mean"], mean, rtol=1e-6)


def test_the_ends_come_back_exactly_and_counters_are_as():
    for alpha, end in ((1, A), (0.0, B)):
        found = interpolate(A, B, alpha)
        for key in ("params", "batch_stats", "half"):
            jax.tree.map(np.testing.assert_array_equal, found[key], end[key])
        assert found["counter"] == A["counter"]


def test_types_stay():
    found = interpolate(A, B, jnp.float32(0.3))
    assert jax.tree.map(lambda leaf: leaf.dtype, found) == jax.tree.map(lambda leaf: leaf.dtype, A)


def test_alpha_may_be_traced():
    alphas = jnp.array([0.0, 0.5, 1.0])
    many = jax.jit(jax.vmap(lambda alpha: interpolate(A, B, alpha)["params"]["w"]))(alphas)
    np.testing.assert_allclose(many[1], (A["params"]["w"] + B["params"]["w"]) / 2, rtol=1e-6)
    slope = jax.jacobian(lambda alpha: interpolate(A, B, alpha)["params"]["w"])(0.3)
    np.testing.assert_allclose(slope, A["params"]["w"] - B["params"]["w"], rtol=1e-6)


def test_a_pair_passes():
    check_pair(A, B)
    check_pair([1.0, np.zeros(3)], [2.0, np.ones(3)])
    check_pair({"key": jax.random.key(0), "w": jnp.ones(2)}, {"key": jax.random.key(1),
                                                              "w": jnp.ones(2)})  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ({}, {}, "no arrays"),
        ({"w": np.ones(3)}, {"w": np.ones(4)}, "differ at w: shape (3,) against (4,)"),
        ({"w": np.ones(3)}, {"v": np.ones(3)}, "only one of them has v, w"),
        ({"w": np.ones(3)}, {"w": np.ones(3), "b": np.ones(3)}, "only one of them has b"),
        ([np.ones(3)], (np.ones(3),), "containers differ"),
        ({"w": np.ones(3)}, {"w": np.array([1, np.nan, 1])}, "mode b holds NaN or infinity at w"),
        ({"w": np.array([np.inf])}, {"w": np.ones(1)}, "mode a holds NaN or infinity at w"),
    ],
)
def test_what_is_no_pair_says_where(a: Any, b: Any, words: str):
    with pytest.raises(ModeError) as caught:
        check_pair(a, b)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "leaf", ["x", len, object(), np.array([None]), np.array(["x"])], ids=range(5)
)
def test_what_is_no_number_is_told(leaf: Any):
    with pytest.raises(ModeError, match=r"mode a holds a \w+ at n") as caught:
        check_pair({"w": np.ones(2), "n": leaf}, {"w": np.ones(2), "n": leaf})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("leaf", [1, True, np.arange(2), jnp.ones(1, jnp.bfloat16)], ids=str)
def test_numbers_of_any_kind_are_leaves(leaf: Any):
    check_pair({"n": leaf}, {"n": leaf})
