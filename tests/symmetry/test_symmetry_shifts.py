"""Gains stored as their distance from a number, as Gemma's `x * (1 + w)`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax.errors import MatchingError
from llfc_jax.symmetry import SymmetrySpec, check, symmetry_spec
from llfc_jax.symmetry.checking import double_precision

DIM = 6
SHAPES = {"embed": (4, DIM), "first": (DIM,), "up": (DIM, 8), "down": (8, DIM),
          "last": (DIM,), "head": (DIM, 3)}  # fmt: skip


def scaled(x, gain):
    return x * jnp.reshape(gain, (1, -1))


def rms(x):
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6)


def network(gain):
    """A residual network whose norms are multiplied by `gain(w)`."""

    def apply(w, x):
        h = x @ w["embed"]
        h = h + jax.nn.gelu(scaled(rms(h), gain(w["first"])) @ w["up"]) @ w["down"]
        return scaled(rms(h), gain(w["last"])) @ w["head"]

    return apply


def values(seed=0, **changed):
    rng = np.random.default_rng(seed)
    w = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    w["first"], w["last"] = (0.3 * rng.normal(size=DIM) for _ in range(2))
    return w | changed, rng.normal(size=(5, 4))


WAYS = {
    "1 + w": lambda w: 1 + w,
    "w + 1": lambda w: w + 1.0,
    "w - -1": lambda w: w - (-1.0),
    "w + 0.5": lambda w: w + 0.5,
    "w - 2": lambda w: w - 2,
    "an array of one number": lambda w: w + jnp.asarray(1.0),
    "laid out before": lambda w: 1 + w[None],
    "laid out behind": lambda w: (1 + w).reshape(1, -1),
    "converted": lambda w: 1 + w.astype(jnp.result_type(float)),
    "under jit": jax.jit(lambda w: 1 + w),
}


QUICK = ("1 + w", "converted", "under jit")


@pytest.mark.parametrize(
    "way", [w if w in QUICK else pytest.param(w, marks=pytest.mark.slow) for w in WAYS]
)
def test_the_sum_is_folded_and_the_stream_may_be_rotated(way):
    apply = network(WAYS[way])
    w, x = values()
    with double_precision():
        w, x = jax.tree.map(jnp.asarray, w), jnp.asarray(x)
        spec = symmetry_spec(apply, w, x)
        check(spec, apply, w, x)
        assert spec.action["embed"].matrix == "orthogonal"
        assert len(spec.folds) == 2
        folded = spec.fold(w)
        assert spec.is_folded(folded)
        assert not spec.is_folded(w)
        np.testing.assert_allclose(WAYS[way](folded["first"]).ravel(), np.ones(DIM), atol=1e-15)
        moved = spec.apply(spec.random(jax.random.key(0)), folded)
        back = spec.unfold(moved, {name: w[name] for name in ("first", "last")})
        np.testing.assert_array_equal(back["first"], w["first"])
        for other in (folded, moved, back):
            np.testing.assert_allclose(apply(other, x), apply(w, x), rtol=1e-9, atol=1e-11)
    assert SymmetrySpec.from_json(spec.to_json()) == spec


def twice(w, x):
    """A gain that is read a second time, without the number."""
    return network(lambda v: 1 + v)(w, x) + (jnp.tanh(w["last"]) @ w["head"])[None]


def as_a_bias(w, x):
    h = x @ w["embed"] + (1 + w["first"])[None]
    h = h + jnp.tanh(rms(h) @ w["up"]) @ w["down"]
    return scaled(rms(h), w["last"]) @ w["head"]


LOOKALIKES = {
    "used elsewhere": (twice, "last"),
    "another number for each unit": (network(lambda w: w + jnp.arange(1.0, DIM + 1)), "first"),
    "behind a nonlinearity": (network(lambda w: 1 + jnp.tanh(w)), "first"),
    "a number less the leaf": (network(lambda w: 2 - w), "first"),
    "a bias": (as_a_bias, "first"),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_what_looks_alike_is_not_folded(name):
    apply, leaf = LOOKALIKES[name]
    w, x = values()
    with double_precision():
        w, x = jax.tree.map(jnp.asarray, w), jnp.asarray(x)
        spec = symmetry_spec(apply, w, x)
        check(spec, apply, w, x)
        moved = spec.apply(spec.random(jax.random.key(1)), spec.fold(w))
        np.testing.assert_allclose(apply(moved, x), apply(w, x), rtol=1e-9, atol=1e-11)
    assert leaf not in {spec.unfolded.leaves[fold.leaf][0] for fold in spec.folds}


def test_a_sum_of_zero_is_refused_in_one_line():
    apply = network(lambda w: 1 + w)
    w, x = values()
    w["first"][2] = -1.0
    spec = symmetry_spec(apply, w, x)
    with pytest.raises(MatchingError, match=r"1 \+ first holds zeros"):
        spec.fold(jax.tree.map(jnp.asarray, w))
