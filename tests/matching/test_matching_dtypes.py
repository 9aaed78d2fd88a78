"""Modes of every floating-point type, leaves of every size: computed in float32 or wider."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matching_nets import equal

from llfc_jax.errors import MatchingError
from llfc_jax.matching import METHODS, align, weight_matching
from llfc_jax.merging import merge_many
from llfc_jax.symmetry import permutation_spec, permutation_spec_from_axes

KEY = jax.random.key(0)


def every(dtype: Any) -> list[Any]:
    """All methods in a type; learning compiles a large program."""
    marks = {"learned": [pytest.mark.slow]}
    return [pytest.param(m, dtype, marks=marks.get(m, [])) for m in METHODS]


QUICK: dict[str, dict[str, Any]] = {
    "ste": {"epochs": 1, "start": "identity"},
    "learned": {"steps": 1, "objective": "loss", "symmetry": "heads", "start": "identity"},
    "commutativity": {"steps": 2, "rounds": 1, "start": "identity"},
    "output": {"steps": 2, "rounds": 1, "start": "identity"},
}
X = np.random.default_rng(9).normal(size=(12, 5)).astype(np.float32)
Y = np.arange(12) % 3


def network(w: Any, x: Any) -> Any:
    """Computes in the widest type of its arguments."""
    for i in range(2):
        x = jax.nn.relu(x @ w[f"w{i}"].astype(jnp.promote_types(w[f"w{i}"].dtype, x.dtype)))
    return x @ w["w2"].astype(jnp.promote_types(w["w2"].dtype, x.dtype))


def weights(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"w0": (5, 8), "w1": (8, 7), "w2": (7, 3)}
    return {k: rng.normal(size=s).astype(np.float32) / 2 for k, s in shapes.items()}


def cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(dtype), tree)


SPEC = permutation_spec(network, weights(0), X)


@pytest.mark.parametrize(
    ("method", "dtype"),
    [("weight", jnp.float16), ("weight", jnp.float8_e4m3fn), *every(jnp.bfloat16)],
)
def test_narrow_modes_have_the_objective_of_float32(method: str, dtype: Any) -> None:
    a, b = (cast(weights(seed), dtype) for seed in (0, 1))
    wide = [cast(mode, jnp.float32) for mode in (a, b)]
    options = QUICK.get(method, {})
    found = align(method, KEY, network, a, b, [(X, Y)], spec=SPEC, **options)
    expected = align(method, KEY, network, *wide, [(X, Y)], spec=SPEC, **options)
    assert equal(found.permutation, expected.permutation)
    assert float(found.objective) == pytest.approx(float(expected.objective), rel=1e-6)
    assert found.objective.dtype == jnp.float32


def test_merging_narrow_modes_is_merging_them_in_float32() -> None:
    modes = [cast(weights(seed), jnp.bfloat16) for seed in range(3)]
    found, expected = (
        merge_many(KEY, SPEC, m) for m in (modes, [cast(m, jnp.float32) for m in modes])
    )
    for p, q in zip(found.permutations, expected.permutations, strict=True):
        assert equal(p, q)
    np.testing.assert_allclose(found.history, expected.history, rtol=1e-6)
    for name, leaf in found.variables.items():
        assert leaf.dtype == jnp.bfloat16
        np.testing.assert_array_equal(leaf, expected.variables[name].astype(jnp.bfloat16))


@contextlib.contextmanager
def wide_types() -> Any:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize(("method", "dtype"), [("weight", jnp.float64), *every(jnp.float32)])
def test_under_x64_every_method_finds_what_it_finds_without(method: str, dtype: Any) -> None:
    options = QUICK.get(method, {})
    a, b = weights(0), weights(1)
    expected = align(method, KEY, network, a, b, [(X, Y)], spec=SPEC, **options)
    with wide_types():
        a, b, x = (cast(tree, dtype) for tree in (a, b, X))
        found = align(method, KEY, network, a, b, [(x, Y)], spec=SPEC, **options)
        if method == "weight" and dtype == jnp.float32:
            traced = jax.jit(lambda a, b: weight_matching(KEY, SPEC, a, b))(a, b)
            assert equal(traced.permutation, found.permutation)
            assert traced.objective.dtype == dtype
    assert equal(found.permutation, expected.permutation)
    assert float(found.objective) == pytest.approx(float(expected.objective), rel=1e-5)


def test_leaves_without_entries_do_no_harm() -> None:
    a, b = ({**weights(seed), "empty": np.zeros((0, 4), np.float32)} for seed in (0, 1))

    groups = {group.name: SPEC.where(group.name) for group in SPEC.groups}
    groups["empty"] = [("empty", 1)]
    expected = weight_matching(KEY, SPEC, weights(0), weights(1))
    spec = permutation_spec_from_axes(a, groups)
    for run in (weight_matching, jax.jit(weight_matching, static_argnums=1)):
        found = run(KEY, spec, a, b)
        found.permutation.pop("empty")
        assert equal(found.permutation, expected.permutation)
        assert float(found.objective) == pytest.approx(float(expected.objective), rel=1e-6)


def test_output_matching_refuses_a_single_output() -> None:
    a, b = ({**weights(s), "w2": weights(s)["w2"][:, :1]} for s in (0, 1))
    with pytest.raises(MatchingError, match=r"outputs of shape \(12, 1\)") as caught:
        align("output", KEY, network, a, b, [(X, Y)], start="identity")
    assert "\n" not in str(caught.value)
