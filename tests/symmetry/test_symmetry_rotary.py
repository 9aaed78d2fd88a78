"""Rotary embeddings, however they are written; and what only looks like one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax.symmetry import SymmetrySpec, check, symmetry_spec
from llfc_jax.symmetry.checking import double_precision

T, HEADS, WIDTH, DIM = 5, 2, 6, 7
SHAPES = {
    "q": (DIM, HEADS, WIDTH), "k": (DIM, HEADS, WIDTH), "v": (DIM, HEADS, 3), "o": (HEADS, 3, 4),
    "bias": (HEADS, WIDTH), "gain": (WIDTH,), "place": (T, WIDTH),
}  # fmt: skip


def angles(half=WIDTH // 2, base=10.0):
    return jnp.arange(float(T))[:, None] / base ** (jnp.arange(half) / half)[None]


def both(angle):
    return tuple(f(angle)[None, :, None] for f in (jnp.cos, jnp.sin))


def halves(z):
    cos, sin = both(angles())
    p, q = jnp.split(z, 2, -1)
    return jnp.concatenate([p * cos - q * sin, q * cos + p * sin], -1)


def interleaved(z):
    cos, sin = both(angles())
    p, q = z[..., ::2], z[..., 1::2]
    return jnp.stack([p * cos - q * sin, q * cos + p * sin], -1).reshape(z.shape)


def rotate_half(z):
    """As in Hugging Face's Llama."""
    cos, sin = (jnp.concatenate([f, f], -1) for f in both(angles()))
    p, q = z[..., : WIDTH // 2], z[..., WIDTH // 2 :]
    return z * cos + jnp.concatenate([-q, p], -1) * sin


def complex_numbers(z):
    """As in Meta's Llama."""
    pairs = z.reshape(*z.shape[:-1], -1, 2)
    turned = jax.lax.complex(pairs[..., 0], pairs[..., 1]) * jnp.exp(1j * angles())[None, :, None]
    return jnp.stack([turned.real, turned.imag], -1).reshape(z.shape)


def matrices(z):
    cos, sin = jnp.cos(angles()), jnp.sin(angles())
    eye = jnp.eye(WIDTH // 2)
    own = jnp.block([[cos[:, None] * eye, -sin[:, None] * eye],
                     [sin[:, None] * eye, cos[:, None] * eye]])  # fmt: skip
    return jnp.einsum("tij,bthj->bthi", own, z)


def transposed(z):
    cos, sin = (f(angles())[None, None] for f in (jnp.cos, jnp.sin))
    z = z.transpose(0, 2, 1, 3)
    p, q = jnp.split(z, 2, -1)
    return jnp.concatenate([p * cos - q * sin, q * cos + p * sin], -1).transpose(0, 2, 1, 3)


def scaled_by_position(z):
    """xPos: each pair's length depends on the position too."""
    return halves(z) * jnp.concatenate([jnp.exp(0.1 * angles())] * 2, -1)[None, :, None]


def partial(z):
    """The first two of three pairs' units; the others are left alone."""
    return jnp.concatenate([rotary_of(z[..., :4]), z[..., 4:]], -1)


def shifted(z):
    """Turned by positions, and each position handed to the next."""
    return jnp.concatenate([halves(z)[:, 1:], halves(z)[:, :1]], 1)


def rotary_of(z):
    cos, sin = both(angles(z.shape[-1] // 2))
    p, q = jnp.split(z, 2, -1)
    return jnp.concatenate([p * cos - q * sin, q * cos + p * sin], -1)


ONE = np.float32(1)
ALL = ((0, 3), (1, 4), (2, 5))
NEXT = ((0, 1), (2, 3), (4, 5))
WAYS = {
    halves: ALL, interleaved: NEXT, rotate_half: ALL, complex_numbers: NEXT, matrices: ALL,
    transposed: ALL, scaled_by_position: ALL, shifted: ALL, partial: ((0, 2), (1, 3)),
}  # fmt: skip
QUICK = (complex_numbers, partial)


def attention(turn_q, turn_k=None, before=lambda w, z: z):
    def apply(w, x):
        q, k, v = (jnp.einsum("btd,dhk->bthk", x, w[name]) for name in "qkv")
        q = q + w["bias"][None, None]
        q, k = turn_q(before(w, q)), (turn_k or turn_q)(before(w, k))
        scores = jnp.einsum("bthk,bshk->bhts", q / WIDTH**0.5, k)
        mixed = jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(scores), v)
        return jnp.einsum("bthk,hkd->btd", mixed, w["o"])

    return apply


def weights():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def batch():
    return np.random.default_rng(1).normal(size=(3, T, DIM)).astype(np.float32)


def turned_in(apply):
    """What a network's pairs may be, proved; "" and () where there are none."""
    w, x = weights(), batch()
    with jax.numpy_rank_promotion("allow"):
        spec = symmetry_spec(apply, w, x)
        assert check(spec, apply, w, x) < 1e-9
        assert SymmetrySpec.from_json(spec.to_json()) == spec
        with double_precision():
            wide = {name: leaf.astype(float) for name, leaf in w.items()}
            element = jax.tree.map(np.asarray, spec.random(jax.random.key(3)))
            folded = spec.fold(wide)
            back = spec.apply(spec.invert(element), spec.apply(element, folded))
            for name, leaf in folded.items():
                np.testing.assert_allclose(back[name], leaf, rtol=1e-4, atol=1e-4)
    return next(((a.matrix, a.pairs) for a in spec.actions if a.pairs), ("", ()))


@pytest.mark.parametrize(
    "way",
    [pytest.param(way, id=way.__name__, marks=[] if way in QUICK else [pytest.mark.slow])
     for way in WAYS],
)  # fmt: skip
def test_a_rotary_embedding_is_seen_however_it_is_written(way):
    assert turned_in(attention(way)) == ("any", WAYS[way])


def uneven(z):
    return halves(z) * jnp.arange(1.0, WIDTH + 1)


def mirrored(z):
    """Blocks [[a, b], [b, -a]]: reflections, with which no rotation commutes."""
    cos, sin = both(angles())
    p, q = jnp.split(z, 2, -1)
    return jnp.concatenate([p * cos + q * sin, p * sin - q * cos], -1)


def by_data(z):
    return halves(z) * jnp.sign(z.sum())


def moved(z):
    return halves(z) + angles(WIDTH)[None, :, None]


def normalised(w, z):
    return z * jax.lax.rsqrt((z**2).mean(-1, keepdims=True) + 1e-6) * w["gain"]


def placed(w, z):
    return z + w["place"][None, :, None]


LOOKALIKES = {
    "one factor for each unit": attention(uneven),
    "reflections": attention(mirrored),
    "angles by data": attention(by_data),
    "an offset": attention(moved),
    "pairs of queries that are not the keys'": attention(halves, interleaved),
    "a gain before": attention(halves, before=normalised),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOKALIKES)
def test_what_only_looks_like_one_is_left_alone(name):
    assert turned_in(LOOKALIKES[name]) == ("", ())


OTHERS = {
    # One array of positions for both, added before they are turned: lengths are fixed.
    "positions added": (attention(halves, before=placed), "orthogonal"),
    "a norm before": (attention(halves, before=lambda w, z: normalised(w | {"gain": ONE}, z)),
                      "orthogonal"),
    "a norm behind": (attention(lambda z: normalised({"gain": ONE}, halves(z))), "orthogonal"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_where_lengths_are_fixed_pairs_are_turned_only(name):
    apply, matrix = OTHERS[name]
    assert turned_in(apply) == (matrix, ALL)


def test_what_leaves_the_network_is_not_turned():
    def apply(w, x):
        q = halves(jnp.einsum("btd,dhk->bthk", x, w["q"]))
        return attention(halves)(w, x), q

    assert turned_in(apply) == ("", ())
