"""Tied weights taken apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax.errors import MatchingError
from llfc_jax.symmetry import check, symmetry_spec, untie

SHAPES = {"embed": (7, 6), "gain": (6,), "up": (6, 5), "down": (5, 6)}
X = np.random.default_rng(0).integers(0, 7, (4, 3))


def tied(w, x):
    h = w["embed"][x]
    h = h + jax.nn.gelu(h @ w["up"]) @ w["down"]
    z = h * jax.lax.rsqrt((h**2).mean(-1, keepdims=True) + 1e-6) * w["gain"][None, None]
    return z @ w["embed"].T


def weights(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def test_a_tied_network_untied_is_the_same_function_with_more_symmetry():
    w = weights(0)
    network, held, added = untie(tied, w, X, "embed")
    assert added == 7 * 6
    np.testing.assert_allclose(network(held, X), tied(w, X), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(network)(held, X[:1]), tied(w, X[:1]), rtol=1e-5)
    spec = symmetry_spec(network, held, X)
    stream = next(a for a in spec.actions if spec.shape(a.group) == (6,))
    assert stream.matrix == "orthogonal"
    assert check(spec, network, held, X) < 1e-9
    before = symmetry_spec(tied, w, X)
    assert any("gain cannot be moved" in note for note in before.notes)
    assert [fold.leaf for fold in before.folds] == []


def test_each_use_reads_its_own_array():
    w = weights(0)
    network, held, _ = untie(tied, w, X, "embed")
    other = held | {"copies": [2 * held["copies"][0]]}
    np.testing.assert_allclose(network(other, X), 2 * tied(w, X), rtol=1e-5)


def test_what_cannot_be_untied_gets_one_line():
    w = weights(0)
    with pytest.raises(MatchingError, match="read once"):
        untie(tied, w, X, "up")
    with pytest.raises(MatchingError, match=r"embd.*did you mean 'embed'"):
        untie(tied, w, X, "embd")
    network, held, _ = untie(tied, w, X, "embed")
    with pytest.raises(MatchingError, match="2 times, and there are 2 copies"):
        network(held | {"copies": [jnp.ones((7, 6))] * 2}, X)
