"""Each rule by itself: permuting the inputs as its terms say permutes the outputs as theirs say.

Inputs are random arrays; along some axes they are the same all along, and their terms are wild
there. What is left unknown is permuted at random, and the primitive evaluated in NumPy.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evaluate import evaluate
from jax import lax

from llfc_jax.symmetry.axes import permute
from llfc_jax.symmetry.naming import describe
from llfc_jax.symmetry.reading import Reading
from llfc_jax.symmetry.terms import Wild, atoms, each, find, fresh, pinned
from llfc_jax.symmetry.values import Value

TRIES = 12
Case = tuple[Callable[..., Any], list[tuple[int, ...]]]


def window(h: Any, reach: tuple[int, ...], steps: tuple[int, ...]) -> Any:
    return lax.reduce_window(h, -jnp.inf, lax.max, reach, steps, "VALID")


def conv(h: Any, w: Any, **options: Any) -> Any:
    numbers = ("NWC", "WIO", "NWC")
    return lax.conv_general_dilated(h, w, (1,), "SAME", dimension_numbers=numbers, **options)


CASES: dict[str, Case] = {
    "add": (lambda p, q: p + q, [(3, 4), (3, 4)]),
    "broadcast add": (lambda p, q: p + q[:, :1], [(3, 4), (3, 4)]),
    "select": (lambda p, q: jnp.where(p > 0, q, p), [(3, 4), (3, 4)]),
    "clamp": (lambda p: lax.clamp(-0.5, p, 0.5), [(3, 4)]),
    "contraction": (lambda p, q: jnp.einsum("ij,jk->ik", p, q), [(3, 4), (4, 5)]),
    "batch": (lambda p, q: jnp.einsum("bij,bkj->bik", p, q), [(2, 3, 4), (2, 5, 4)]),
    "two contracted": (lambda p, q: jnp.einsum("bij,kij->kb", p, q), [(2, 3, 4), (5, 3, 4)]),
    "with itself": (lambda p: p @ p @ p.T, [(4, 4)]),
    "outer": (lambda p: jnp.einsum("bi,bj->bij", p, p).reshape(2, 9), [(2, 3)]),
    "turned outer": (
        lambda p: jnp.einsum("gc,hd->gdhc", p, p).reshape(6, 6) @ jnp.ones((6, 2)),
        [(2, 3)],
    ),
    "sum": (lambda p: p.sum(1), [(2, 3, 4)]),
    "max": (lambda p: p.max((0, 2)), [(2, 3, 4)]),
    "argmax": (lambda p: jax.nn.one_hot(jnp.argmax(p, 1), 4), [(3, 4)]),
    "argmax as number": (lambda p: jnp.argmax(p, 1) * 1.0, [(3, 4)]),
    "argmax of relu": (lambda p: jax.nn.one_hot(jnp.argmax(jax.nn.relu(p - 2), 1), 4), [(3, 4)]),
    "top_k": (lambda p: lax.top_k(p, 2)[0], [(3, 4)]),
    "top_k places": (lambda p: jax.nn.one_hot(lax.top_k(p, 2)[1], 4), [(3, 4)]),
    "sort": (lambda p: jnp.sort(p, 1), [(3, 4)]),
    "argsort": (lambda p: jnp.take_along_axis(p, jnp.argsort(p, 1), 1), [(3, 4)]),
    "argsort as number": (lambda p: jnp.argsort(p, 1) * p, [(3, 4)]),
    "sorted beside": (lambda p, q: lax.sort((p, q), dimension=1, num_keys=1)[1], [(2, 4), (2, 4)]),
    "cumsum": (lambda p: jnp.cumsum(p, 1), [(2, 3, 4)]),
    "rev": (lambda p: jnp.flip(p, 1), [(2, 3, 4)]),
    "iota": (lambda p: p * lax.broadcasted_iota(p.dtype, (3, 4), 1), [(3, 4)]),
    "eye": (lambda p: p * jnp.eye(4)[None], [(2, 4, 4)]),
    "window": (lambda p: window(p, (1, 2, 1), (1, 2, 1)), [(2, 4, 3)]),
    "convolution": (conv, [(2, 4, 3), (2, 3, 5)]),
    "grouped convolution": (lambda h, w: conv(h, w, feature_group_count=2), [(2, 4, 6), (2, 3, 4)]),
    "depthwise": (lambda h, w: conv(h, w, feature_group_count=3), [(2, 4, 3), (2, 1, 6)]),
    "dilated": (lambda h, w: lax.conv_transpose(h, w, (2,), "SAME"), [(2, 4, 3), (2, 3, 2)]),
    "transpose": (lambda p: p.transpose(1, 2, 0), [(2, 3, 4)]),
    "broadcast": (lambda p: jnp.broadcast_to(p[:, None], (3, 2, 4)), [(3, 4)]),
    "tile": (lambda p: jnp.tile(p, (2, 3)), [(3, 4)]),
    "repeat": (lambda p: jnp.repeat(p, 2, 1), [(3, 4)]),
    "repeat, added": (lambda p, q: jnp.repeat(p, 2, 1) + q, [(2, 3), (2, 6)]),
    "tile, added": (lambda p, q: jnp.tile(p, 2) + q, [(2, 3), (2, 6)]),
    "repeat, marked": (lambda p: jnp.repeat(p, 2, 1) * jnp.arange(1.0, 7)[None], [(2, 3)]),
    "repeat, summed up": (lambda p: jnp.cumsum(jnp.repeat(p, 2, 1), 1), [(2, 3)]),
    "merge": (lambda p: p.reshape(6, 4), [(2, 3, 4)]),
    "split": (lambda p: p.reshape(2, 3, 4), [(6, 4)]),
    "cut across": (lambda p: p.reshape(3, 4), [(2, 6)]),
    "split and turned": (lambda p: p.reshape(2, 3, 4).swapaxes(0, 1).reshape(6, 4), [(6, 4)]),
    "there and back": (lambda p, q: p.reshape(2, 12).reshape(6, 4) * q, [(6, 4), (6, 4)]),
    "two ways to split": (lambda p: p.reshape(2, 6).sum() + p.reshape(6, 2), [(12,)]),
    "concatenation": (lambda p, q: jnp.concatenate([p, q], 1), [(2, 3), (2, 4)]),
    "constants joined": (
        lambda p: p + jnp.concatenate([jnp.ones(2), jnp.zeros(2)])[None],
        [(3, 4)],
    ),
    "stack": (lambda p, q: jnp.stack([p, q], 1), [(2, 3), (2, 3)]),
    "stack, flattened": (lambda p, q: jnp.stack([p, q], 2).reshape(2, 6), [(2, 3), (2, 3)]),
    "stack, weighed": (
        lambda p, q, w: jnp.stack([p, q], 1) * w,
        [(2, 3), (2, 3), (2, 2, 3)],
    ),
    "slice": (lambda p: p[:, 1:3], [(2, 5)]),
    "strided slice": (lambda p: p[:, ::2] * p[:, 1::2], [(2, 6)]),
    "slice of a product": (lambda p: p.reshape(2, 12)[:, :8], [(2, 3, 4)]),
    "slice across a product": (lambda p: p.reshape(2, 12)[:, :7], [(2, 3, 4)]),
    "split in three": (lambda p: sum(jnp.split(p, 3, 1)), [(2, 6)]),
    "pad": (lambda p: lax.pad(p, 0.0, [(0, 0, 0), (1, 2, 0)]), [(2, 3)]),
    "pad between": (lambda p: lax.pad(p, 0.0, [(1, 0, 1), (0, 0, 0)]), [(2, 3)]),
    "crop": (lambda p: lax.pad(p, 0.0, [(0, 0, 0), (-1, 2, 0)]), [(2, 4)]),
    "dynamic slice": (
        lambda p, q: lax.dynamic_slice_in_dim(p, jnp.argmax(q), 2, 0),
        [(4, 3), (4,)],
    ),
    "update": (lambda p, q: lax.dynamic_update_slice_in_dim(p, q, 1, 1), [(2, 5), (2, 3)]),
    "look up": (lambda p, q: p[jnp.argmax(q, 1)], [(4, 3), (2, 4)]),
    "take along": (lambda p: jnp.take_along_axis(p, jnp.argmax(p, 1)[:, None], 1), [(3, 4)]),
    "constant places": (lambda p: p[:, np.array([2, 0])], [(2, 4)]),
    "segments": (lambda p: jax.ops.segment_sum(p, np.array([0, 1, 0]), 2), [(3, 4)]),
    "scatter": (lambda p, q: p.at[:, 1].set(q), [(2, 4), (2,)]),
    "scatter by rank": (lambda p, q: p.at[jnp.argsort(q)].add(1.0), [(4, 2), (4,)]),
    "scan of layers": (
        lambda h, w: lax.scan(lambda h, w: (jnp.tanh(h @ w), h), h, w),
        [(2, 3), (3, 3, 3)],
    ),
    "recurrence": (
        lambda x, w: lax.scan(lambda c, x: (jnp.tanh(c @ w + x), c), jnp.zeros(3), x, reverse=True),
        [(4, 3), (3, 3)],
    ),
    "while": (
        lambda h, w: lax.while_loop(
            lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.tanh(c[1] @ w)), (0, h)
        )[1],
        [(2, 3), (3, 3)],
    ),
    "cond": (
        lambda h, w: lax.cond(h.sum() > 0, lambda: h @ w, lambda: -w @ h.T @ h),
        [(3, 3), (3, 3)],
    ),
    "unknown": (lambda p: jnp.linalg.inv(p), [(3, 3)]),
    "random": (lambda p: p + jax.random.normal(jax.random.key(0), p.shape), [(2, 3)]),
}


def value_and_array(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Value, np.ndarray]:
    """A random input: wild along some axes, pinned along some, stacked along its first."""
    kinds = [str(k) for k in rng.choice(["free", "free", "free", "wild", "pinned"], len(shape))]
    drawn = [1 if kind == "wild" else n for kind, n in zip(kinds, shape, strict=True)]
    array = np.array(np.broadcast_to(rng.normal(size=drawn), shape))
    if len(shape) == 3 and rng.integers(2) and min(shape) > 1:
        over = pinned(shape[0], "stacked", apart=True)
        rest = [each(over, [fresh(n) for _ in range(shape[0])]) for n in shape[1:]]
        return Value((over, *rest), distinct=True), rng.normal(size=shape)
    made = {"free": fresh, "wild": Wild, "pinned": lambda n: pinned(n, "for a reason")}
    axes = tuple(made[kind](n) for kind, n in zip(kinds, shape, strict=True))
    return Value(axes, distinct="wild" not in kinds), array


@pytest.mark.parametrize("name", list(CASES))
def test_a_rule_keeps_what_it_says(name: str) -> None:
    function, shapes = CASES[name]
    jaxpr = jax.make_jaxpr(function)(*(np.zeros(shape, np.float32) for shape in shapes))
    rng = np.random.default_rng(sum(map(ord, name)))
    free = 0
    for _ in range(TRIES):
        given = [value_and_array(rng, shape) for shape in shapes]
        reading = Reading(None, frozenset())  # pyright: ignore
        outputs = reading.inside(jaxpr, [value for value, _ in given], "", "test")
        reading.settle_all()
        for value in outputs:
            for term in (value.points,) if value.points is not None else ():
                pytest.fail(f"an output names places of {find(term)}")
        inputs = [value.axes for value, _ in given]
        held = [a for axes in (*inputs, *(v.axes for v in outputs)) for t in axes for a in atoms(t)]
        names = {term: f"g{i}" for i, term in enumerate(dict.fromkeys(held))}
        permutation = {names[term]: rng.permutation(term.size) for term in names}
        free += sum(term.size > 1 for term in names)

        def moved(array: Any, axes: Any, by: Any = permutation, names: Any = names) -> Any:
            return permute(np.asarray(array), describe(axes, names), by, {})

        arrays = [array for _, array in given]
        before = evaluate(jaxpr, arrays)
        after = evaluate(jaxpr, [moved(a, axes) for a, axes in zip(arrays, inputs, strict=True)])
        for p, q, value in zip(before, after, outputs, strict=True):
            np.testing.assert_allclose(q, moved(p, value.axes), rtol=1e-5, atol=1e-5)
    nothing = ("unknown", "random", "cut across", "slice across a product", "repeat, marked",
               "repeat, summed up", "eye")  # fmt: skip
    assert free or name in nothing, name
