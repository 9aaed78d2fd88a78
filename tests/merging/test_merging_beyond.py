"""Several networks merged over more than permutations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax import matching, merging, symmetry
from llfc_jax.errors import MatchingError
from llfc_jax.merging import merge_many

KEY = jax.random.key(0)
X = np.random.default_rng(9).normal(size=(6, 3)).astype(np.float32)
SHAPES = {"embed": (3, 6), "gain": (6,), "up": (6, 5), "down": (5, 6), "out": (6, 2)}


def apply(w, x):
    """A stream with a norm and its gain, a hidden layer, an output."""
    h = x @ w["embed"]
    z = h * jax.lax.rsqrt((h**2).mean(-1, keepdims=True) + 1e-6) * w["gain"][None]
    return (h + jax.nn.gelu(z @ w["up"]) @ w["down"]) @ w["out"]


def make(seed):
    rng = np.random.default_rng(seed)
    made = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    return made | {"gain": np.abs(made["gain"]) + 0.5}


SPEC = symmetry.symmetry_spec(apply, make(0), X)


@pytest.mark.parametrize("place", ["mean", "chain"])
def test_moved_copies_come_together_and_the_first_stays(place):
    first, rng = make(0), np.random.default_rng(1)
    modes = [first]
    for seed in range(1, 4):
        moved = SPEC.apply(SPEC.random(jax.random.key(seed)), SPEC.fold(first))
        moved = SPEC.unfold(moved, {"gain": make(seed)["gain"]})
        modes.append(jax.tree.map(lambda p: p + 1e-3 * rng.normal(size=p.shape), moved))
    merged = merge_many(KEY, SPEC, modes, place=place)
    for name, leaf in merged.variables.items():
        np.testing.assert_allclose(leaf, first[name], atol=2e-2)
    np.testing.assert_array_equal(merged.modes[0]["gain"], first["gain"])


def test_strangers_keep_their_functions_and_come_nearer_than_by_permutations():
    modes = [make(i) for i in range(3)]
    merged = merge_many(KEY, SPEC, modes)
    for mode, moved, transport in zip(modes, merged.modes, merged.transports, strict=True):
        np.testing.assert_allclose(apply(moved, X), apply(mode, X), rtol=2e-3, atol=2e-3)
        again = transport.apply(mode)
        jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, atol=1e-4), again, moved)
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, 0), *merged.modes)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, atol=1e-5), merged.variables, mean)
    assert np.all(np.diff(merged.history) <= 0)
    plain = merge_many(KEY, SPEC.permutations, [SPEC.fold(mode) for mode in modes])
    assert merged.history[-1] < plain.history[-1]


def test_the_rule_takes_a_symmetry_and_the_joint_search_refuses_it():
    modes = [make(i) for i in range(2)]
    part = matching.restrict(SPEC, "stream")
    merged = merging.merge(modes, rule="git_rebasin", spec=part)
    whole = merge_many(KEY, part, modes)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, atol=1e-5), merged, whole.variables)
    narrow = [jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), mode) for mode in modes]
    assert merging.merge(narrow, rule="git_rebasin", spec=part)["up"].dtype == jnp.bfloat16
    with pytest.raises(MatchingError, match="units only"):
        merging.merge(modes, rule="c2m3", spec=SPEC)
