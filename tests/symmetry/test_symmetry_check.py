"""The proof of a spec on numbers: on how much it looks, and what it says where it cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax import networks
from llfc_jax.errors import MatchingError, ModeError
from llfc_jax.frameworks import Network
from llfc_jax.graph import trace
from llfc_jax.matching import align
from llfc_jax.symmetry import check, permutation_spec, permutation_spec_from_axes

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


def weights(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(size=(6, 8)), "c": rng.normal(size=(8, 3))}


def test_a_batch_of_fixed_size_is_taken_whole() -> None:
    adjacency = RNG.random((12, 12)) < 0.3

    def convolve(w, x):  # over a graph of twelve nodes
        return adjacency @ jax.nn.relu(adjacency @ x @ w["a"]) @ w["c"]

    x, a, b = RNG.normal(size=(12, 6)), weights(0), weights(1)
    spec = permutation_spec(convolve, a, x)
    assert [group.size for group in spec.groups] == [8]
    assert check(spec, convolve, a, x) < 1e-9
    match = align("weight", KEY, convolve, a, b, [(x, np.zeros(12, int))])
    spec.validate(match.permutation)
    with pytest.raises(MatchingError, match="does not run on this batch") as caught:
        check(spec, convolve, a, x[:5])
    assert "\n" not in str(caught.value)


def test_a_rare_branch_shows_on_random_samples() -> None:
    def apply(w, x):  # an order of the units counts only where the first number is below -1
        h = jax.nn.relu(x @ w["a"])
        return jnp.where(x[:, :1] < -1, jnp.flip(h, 1), h) @ w["c"]

    x = np.abs(RNG.normal(size=(40, 6)))
    wrong = permutation_spec_from_axes(weights(0), {"a": [("a", 1), ("c", 0)]})
    with pytest.raises(MatchingError, match="the spec is wrong"):
        check(wrong, apply, weights(0), x)


def test_a_rare_tie_shows_on_many_samples() -> None:
    def apply(w, x):
        best = jax.nn.one_hot(jnp.argmax(jax.nn.relu(x @ w["a"]), -1), 8)
        return best @ w["c"]

    a = weights(0)
    a["a"] = a["a"] * 0 - 1 + 0.01 * RNG.normal(size=(6, 8))  # all are below zero but for one
    a["a"][:, 3] = 1
    x = np.abs(RNG.normal(size=(64, 6)))
    x[50] *= -0.0
    wrong = permutation_spec_from_axes(a, {"a": [("a", 1), ("c", 0)]})
    with pytest.raises(MatchingError, match="the spec is wrong"):
        check(wrong, apply, a, x)


def test_a_module_is_a_network_everywhere() -> None:
    module = networks.build("mlp", 3, widths=(6, 5))
    x = RNG.normal(size=(4, 7)).astype(np.float32)
    a = networks.init(module, KEY, x)
    expected = permutation_spec(module.apply, a, x)
    for network in (module, Network.of(module)):
        assert permutation_spec(network, a, x) == expected
        assert check(expected, network, a, x) < 1e-9
        assert trace(network, a, x).sites == trace(module.apply, a, x).sites


def test_integers_that_a_network_uses_are_the_same_in_both_modes() -> None:
    def apply(w, x):
        return jax.nn.relu(x @ w["a"])[:, w["order"]] @ w["c"]

    a, b = (weights(seed) | {"order": np.roll(np.arange(8), seed)} for seed in (0, 1))
    batches = [(RNG.normal(size=(4, 6)), np.zeros(4, int))]
    with pytest.raises(ModeError, match="differ at order"):
        align("weight", KEY, apply, a, b, batches)
    align("weight", KEY, apply, a, b | {"order": a["order"]}, batches)
