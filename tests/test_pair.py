"""The line between two modes, and what is no pair."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax import measures
from llfc_jax.errors import ModeError
from llfc_jax.graph import trace
from llfc_jax.graph.queries import check_used_leaves
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


NARROW = [jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn, jnp.float8_e5m2, jnp.float8_e4m3b11fnuz]


@pytest.mark.parametrize("dtype", NARROW, ids=lambda d: d.__name__)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_narrow_floats_are_mixed_in_float32_and_rounded_once(dtype: Any, alpha: float):
    rng = np.random.default_rng(0)
    a, b = ({"w": jnp.asarray(rng.normal(size=40), dtype)} for _ in range(2))
    check_pair(a, b)
    found = interpolate(a, b, alpha)["w"]
    assert found.dtype == dtype
    p, q = (np.asarray(v["w"]).astype(np.float32) for v in (a, b))
    exact = np.float32(alpha) * p + (np.float32(1) - np.float32(alpha)) * q
    expected = np.asarray(jnp.asarray(exact).astype(dtype))
    np.testing.assert_array_equal(np.asarray(found), expected)


def test_a_mask_of_infinities_passes_and_stays():
    mask = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
    a, b = ({"mask": mask, "w": np.full(2, value, np.float32)} for value in (1, 3))
    check_pair(a, b)
    for alpha in (0.0, 0.25, 1.0):
        found = interpolate(a, b, alpha)
        np.testing.assert_array_equal(found["mask"], mask)
        np.testing.assert_allclose(found["w"], alpha + 3 * (1 - alpha))


@pytest.mark.parametrize(
    "other", [np.array([-np.inf, 1]), np.array([np.inf, 0]), np.array([-np.inf, np.nan])]
)
def test_a_mask_that_differs_does_not_pass(other: Any):
    with pytest.raises(ModeError, match="NaN or infinity at m"):
        check_pair({"m": np.array([-np.inf, 0.0])}, {"m": other})


def test_leaves_without_entries_and_random_keys_pass():
    a, b = ({"none": np.zeros((0, 3)), "key": jax.random.key(i), "w": np.ones(2)} for i in range(2))
    check_pair(a, b)
    assert interpolate(a, b, 0.5)["none"].shape == (0, 3)


X = jnp.ones((3, 6))


def quantised(v: Any, x: Any) -> Any:
    return x @ (v["q"].astype(jnp.float32) * v["scale"])


FIXED = {
    "q": (quantised, np.int8),
    "order": (lambda v, x: (x @ v["w"])[:, v["order"]], np.int32),
    "mask": (lambda v, x: jnp.where(v["mask"], x @ v["w"], 0), bool),
    "bits": (lambda v, x: x @ (v["bits"].astype(jnp.float32) - 8), np.uint8),
    "shift": (lambda v, x: jnp.roll(x @ v["w"], v["shift"][0, 0], 1), np.int32),
    "depth": (
        lambda v, x: jax.lax.fori_loop(0, v["depth"][0, 0], lambda _, h: h / 2, x @ v["w"]),
        np.int32,
    ),
}


@pytest.mark.parametrize("name", FIXED)
def test_used_leaves_that_cannot_be_interpolated_must_be_alike(name: str):
    apply, dtype = FIXED[name]
    shape = {"order": (4,), "shift": (1, 1), "depth": (1, 1), "mask": (3, 4)}.get(name, (6, 4))

    def mode(value: int) -> Any:
        return {
            name: np.full(shape, value).astype(dtype),
            "w": np.ones((6, 4), np.float32),
            "scale": np.float32(0.1),
            "unused": np.full(3, value),
            "step": np.int32(value),
            "key": jax.random.key(value),
        }

    a, b = mode(1), mode(0)
    check_pair(a, b)
    graph = trace(apply, a, X)
    with pytest.raises(ModeError, match=f"differ at {name}, which is .* cannot be") as caught:
        check_used_leaves(graph, a, b)
    assert "\n" not in str(caught.value)
    check_used_leaves(graph, a, b | {name: a[name]})
    with pytest.raises(ModeError, match=f"differ at {name}"):
        measures.lmc(apply, a, b, [(np.asarray(X), np.arange(3))], alphas=(0.5,))
