"""Freedom that is there is found, in whatever way a network is written; and what is not is said."""

import collections
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import Architecture, attend, brought_back, groups_of, rotary_halves, rotary_pairs
from jax import lax
from programs import TOLERANCE, largest_changes

from llfc_jax.symmetry import permutation_spec
from llfc_jax.symmetry.checking import double_precision

NETS: dict[str, Architecture] = {}
ONE = {"a": (3, 8), "b": (8, 5)}


def net(
    shapes: dict[str, tuple[int, ...]], x: tuple[int, ...], groups: list[tuple[int, int]]
) -> Any:
    def register(apply: Any) -> Any:
        NETS[apply.__name__] = Architecture(apply, shapes, x, groups)
        return apply

    return register


def between(name: str, groups: list[tuple[int, int]], change: Callable[[Any], Any]) -> None:
    """One hidden layer with something done to it."""
    NETS[name] = Architecture(
        lambda w, x: jax.nn.gelu(change(x @ w["a"])) @ w["b"], ONE, (3,), groups
    )


# A slice of one place, spread over its axis: that unit stays, the others are free.
between("gate by one unit", [(7, 0)], lambda h: h * h[:, :1])
between("gate by one unit, indexed", [(7, 0)], lambda h: h * h[:, 0][:, None])
between("gate by one unit, split", [(7, 0)], lambda h: jnp.split(h, [1], -1)[0] + h)
between("gate, dynamic slice", [(7, 0)], lambda h: h * lax.dynamic_slice_in_dim(h, 2, 1, 1))
between("only one unit is read", [(7, 0), (8, 0)], lambda h: h[:, :1] * jnp.ones((len(h), 8)))
# What does not depend on the order of units leaves them free.
between("top_k", [(8, 0)], lambda h: jnp.where(h >= lax.top_k(h, 2)[0][:, -1:], h, 0))
between("maximum", [(8, 0)], lambda h: h - h.max(-1, keepdims=True))
between("a quantile", [(8, 0)], lambda h: h * (h >= jnp.sort(h, -1)[:, -3:-2]))
between("best unit", [(8, 0)], lambda h: jnp.take_along_axis(
    h, jnp.argmax(h, -1, keepdims=True), -1) * h)  # fmt: skip
between("order of the units", [], lambda h: h * jnp.argsort(h, -1))
between("running sum", [], lambda h: jnp.cumsum(h, -1))
between("maxout in pairs", [(4, 0), (2, 4), (2, 4)], lambda h: jnp.tile(
    h.reshape(-1, 4, 2).max(-1), 2))  # fmt: skip


@net({"a": (3, 8), "b": (8, 5)}, (6, 3), [(8, 0)])
def class_token_added(w: Any, x: Any) -> Any:
    h = x @ w["a"]
    return jax.nn.relu(h + h[:, :1]).mean(1) @ w["b"]


@net({"a": (3, 8), "b": (8, 5)}, (6, 3), [(7, 0)])
def value_and_gate(w: Any, x: Any) -> Any:
    h = jax.nn.relu(x @ w["a"])
    return jnp.concatenate([h[..., :7] * h[..., 7:], h[..., 7:]], -1).mean(1) @ w["b"]


@net({"q": (8, 24), "k": (8, 12), "v": (8, 12), "o": (24, 8), "out": (8, 5)}, (5, 8),
     [(2, 0), (8, 0), (2, 2), (6, 2), (6, 2)])  # fmt: skip
def grouped_queries(w: Any, x: Any) -> Any:
    """Four heads of queries, two of keys and values: widths are nested in those two."""
    q, k, v = ((x @ w[n]).reshape(len(x), 5, h, 6) for n, h in (("q", 4), ("k", 2), ("v", 2)))
    k, v = (jnp.repeat(z, 2, 2) for z in (k, v))
    return (attend(q, k, v) @ w["o"])[:, -1] @ w["out"]


@net({"q": (8, 4, 3), "k": (8, 2, 3), "v": (8, 2, 3), "o": (4, 3, 5)}, (5, 8), [(3, 0), (3, 0)])
def alibi(w: Any, x: Any) -> Any:
    """Slopes by head fix the heads; widths are free, in one order for all heads."""
    q, k, v = (jnp.einsum("btd,dhk->bthk", x, w[n]) for n in "qkv")
    k, v = (jnp.repeat(z, 2, 2) for z in (k, v))
    slopes = -(2.0 ** -jnp.arange(1.0, 5))[None, :, None, None]
    apart = jnp.abs(jnp.arange(5)[:, None] - jnp.arange(5)[None]).astype(float)[None, None]
    z = attend(q, k, v, lambda s: s + slopes * apart).reshape(len(x), 5, 4, 3)
    return jnp.einsum("bthk,hkd->btd", z, w["o"])[:, -1]


def fused(take: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def apply(w: Any, x: Any) -> Any:
        q, k, v = take(x @ w["qkv"])
        return attend(q, k, v).mean(1) @ w["o"] @ w["out"]

    return apply


FUSED = {"qkv": (12, 36), "o": (12, 12), "out": (12, 5)}
for _name, _take in {
    "split in three": lambda z: (i.reshape(*z.shape[:2], 2, 6) for i in jnp.split(z, 3, -1)),
    "reshaped to three": lambda z: jnp.moveaxis(z.reshape(*z.shape[:2], 3, 2, 6), 2, 0),
    "heads before three": lambda z: (z.reshape(*z.shape[:2], 2, 3, 6)[..., i, :] for i in range(3)),
    "three at the end": lambda z: jnp.moveaxis(z.reshape(*z.shape[:2], 2, 6, 3), -1, 0),
}.items():
    _groups = [(2, 0), (12, 0), (6, 2), (6, 2)]
    NETS[_name] = Architecture(fused(_take), FUSED, (4, 12), _groups)


for _name, _turn in (("rotary in halves", rotary_halves), ("rotary in pairs", rotary_pairs)):

    def _rotary(w: Any, x: Any, turn: Any = _turn) -> Any:
        q, k, v = ((x @ w[n]).reshape(*x.shape[:2], 2, 4) for n in "qkv")
        return attend(turn(q), turn(k), v).mean(1) @ w["o"]

    NETS[_name] = Architecture(
        _rotary, {"q": (8, 8), "k": (8, 8), "v": (8, 8), "o": (8, 5)}, (4, 8), [(2, 0), (4, 2)]
    )


@net({"a": (3, 3, 3, 8), "b": (3, 3, 8, 8), "s": (8,), "t": (8,), "o": (8, 5)}, (6, 6, 3),
     [(2, 0), (4, 2)])  # fmt: skip
def group_norm_in_a_stream(w: Any, x: Any) -> Any:
    def norm(h: Any, scale: Any) -> Any:
        z = h.reshape(*h.shape[:-1], 2, 4)
        z = z * lax.rsqrt((z**2).mean((1, 2, 4), keepdims=True) + 1e-3)
        return z.reshape(h.shape) * scale[None, None, None]

    def conv(h: Any, k: Any) -> Any:
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(h, k, (1, 1), "SAME", dimension_numbers=numbers)

    h = jax.nn.relu(norm(conv(x, w["a"]), w["s"]))
    h = h + jax.nn.relu(norm(conv(h, w["b"]), w["t"]))
    return h.mean((1, 2)) @ w["o"]


@net({"a": (3, 12), "o": (9, 5)}, (3,), [(3, 0), (4, 0)])
def best_of_each_in_all(w: Any, x: Any) -> Any:
    """Places named in one row are looked up in all rows: one order for all of them."""
    h = jnp.tanh((x @ w["a"]).reshape(len(x), 3, 4))
    z = jax.vmap(lambda rows: rows[:, jnp.argmax(rows, -1)])(h)
    return z.reshape(len(x), 9) @ w["o"]


@net({"a": (3, 12), "o": (9, 5)}, (3,), [(3, 0), (4, 0)])
def same_best_place(w: Any, x: Any) -> Any:
    h = jnp.tanh((x @ w["a"]).reshape(len(x), 3, 4))
    best = jnp.argmax(h, -1)
    same = (best[:, :, None] == best[:, None, :]).astype(h.dtype)
    return same.reshape(len(x), 9) @ w["o"] + h.max((1, 2))[:, None]


def _layer(h: Any, up: Any, down: Any) -> Any:
    return h + jnp.tanh(h @ up) @ down


LAYERS = {"a": (3, 6), "up": (3, 6, 7), "down": (3, 7, 6), "o": (6, 5)}
STACKED: dict[str, Callable[[Any, Any], Any]] = {
    "layers in a scan": lambda h, w: lax.scan(
        lambda h, v: (_layer(h, *v), None), h, (w["up"], w["down"])
    )[0],
    "layers in a loop": lambda h, w: lax.fori_loop(
        0, 3, lambda i, h: _layer(h, w["up"][i], w["down"][i]), h
    ),
    "layers by index": lambda h, w: _layer(
        _layer(_layer(h, w["up"][0], w["down"][0]), w["up"][1], w["down"][1]),
        w["up"][2],
        w["down"][2],
    ),
}
for _name, _run in STACKED.items():
    NETS[_name] = Architecture(
        lambda w, x, run=_run: run(x @ w["a"], w) @ w["o"], LAYERS, (3,), [(6, 0)] + [(7, 0)] * 3
    )


@net({"wi": (3, 12), "wh": (4, 12), "b": (12,), "o": (4, 5)}, (6, 3), [(4, 0)])
def gru(w: Any, x: Any) -> Any:
    def cell(h: Any, now: Any) -> Any:
        ir, iz, i_n = jnp.split(now @ w["wi"] + w["b"][None], 3, -1)
        hr, hz, hn = jnp.split(h @ w["wh"], 3, -1)
        z, n = jax.nn.sigmoid(iz + hz), jnp.tanh(i_n + jax.nn.sigmoid(ir + hr) * hn)
        return (1 - z) * n + z * h, None

    return lax.scan(cell, jnp.zeros((len(x), 4)), jnp.swapaxes(x, 0, 1))[0] @ w["o"]


@net({"a": (3, 4), "m": (4, 4), "u": (4, 6), "v": (6, 4), "o": (4, 5)}, (3,), [(4, 0), (6, 0)])
def loops_and_branches(w: Any, x: Any) -> Any:
    h = jnp.tanh(x @ w["a"])
    h = lax.while_loop(lambda z: jnp.abs(z).max() > 0.1, lambda z: jnp.tanh(z @ w["m"]) / 2, h)
    h = lax.cond(h.sum() > 0, lambda z: jnp.sin(z @ w["u"]), lambda z: jnp.cos(z @ w["v"].T), h)
    return h @ w["v"] @ w["o"]


@net({"a": (3, 4), "b": (3, 4), "o": (8, 5)}, (3,), [(4, 0), (4, 0)])
def stacked_layers(w: Any, x: Any) -> Any:
    """Two layers laid out unit by unit."""
    z = jnp.stack([jax.nn.relu(x @ w["a"]), jnp.tanh(x @ w["b"])], -1)
    return z.reshape(len(x), 8) @ w["o"]


@net({"a": (3, 12), "m": (4, 4), "o": (12, 5)}, (3,), [(4, 0), (3, 0)])
def a_sum_over_the_parent(w: Any, x: Any) -> Any:
    """The places that come out of m are not those that went in: nothing is inside them."""
    h = jnp.tanh((x @ w["a"]).reshape(len(x), 3, 4) @ w["m"]) @ w["m"]
    return h.reshape(len(x), 12) @ w["o"]


@pytest.mark.parametrize("name", list(NETS))
def test_freedom_is_found(name: str) -> None:
    architecture = NETS[name]
    variables, x = architecture.variables(), architecture.batch()
    spec = permutation_spec(architecture.apply, variables, x)
    assert groups_of(spec) == collections.Counter(architecture.groups), spec.explain()
    with double_precision():
        wide = {k: v.astype(float) for k, v in variables.items()}
        jaxpr = jax.make_jaxpr(architecture.apply)(wide, x.astype(float))
        changes = largest_changes(jaxpr, spec, wide, x.astype(float), np.random.default_rng(0))
    assert changes is not None
    assert max(changes.values(), default=0.0) < TOLERANCE, changes
    if spec.groups:
        assert all(brought_back(architecture, spec, seed, 1e-3) for seed in range(2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: jnp.abs(jnp.fft.fft(h)), "fft has no rule"),
        (
            lambda h: jnp.pad(
                h[:, :6].reshape(-1, 2, 3).swapaxes(1, 2).reshape(-1, 2, 3).sum(1), ((0, 0), (0, 5))
            ),
            "reshape cuts across",
        ),
        (lambda h: h * lax.dynamic_slice_in_dim(h, jnp.int32(h.sum()), 3, 1).sum(), "computed"),
        (lambda h: h[:, np.array([3, 1, 0, 2, 4, 5, 6, 7])], "looked up by constant"),
    ],
)
def test_freedom_that_is_given_up_is_said(change: Any, words: str) -> None:
    w = {"a": jnp.ones((3, 8)), "b": jnp.ones((8, 5))}
    spec = permutation_spec(lambda w, x: change(x @ w["a"]) @ w["b"], w, jnp.ones((2, 3)))
    assert any(words in note and "a axis 1" in note for note in spec.notes), spec.notes
    assert words in spec.explain()


def test_labels_and_words_stay() -> None:
    """A permutation of words or of labels would ask for other data: these axes are fixed."""
    w = {"embed": jnp.ones((7, 4)), "out": jnp.ones((4, 5)), "bias": jnp.ones(5)}
    tokens = jnp.zeros((2, 3), int)
    spec = permutation_spec(
        lambda w, x: jnp.tanh(w["embed"][x].sum(1)) @ w["out"] + w["bias"][None], w, tokens
    )
    assert [(g.size, g.parent) for g in spec.groups] == [(4, "")]
    assert spec.where(spec.groups[0].name) == [("embed", 1), ("out", 0)]
    assert not spec.notes


def test_rows_that_no_text_reaches_are_no_group():
    def apply(w, tokens):
        x = w["tokens"][tokens] + w["positions"][: tokens.shape[1]][None]
        return (x + jax.nn.relu(x @ w["up"]) @ w["down"])[:, -1] @ w["head"]

    shapes = {"tokens": (9, 6), "positions": (20, 6), "up": (6, 5), "down": (5, 6), "head": (6, 9),
              "empty": (0, 4)}  # fmt: skip
    w = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    spec = permutation_spec(apply, w, np.zeros((2, 7), np.int32))
    assert sorted((group.size, group.parent) for group in spec.groups) == [(5, ""), (6, "")]
    assert [axis.size for axis in dict(spec.leaves)["empty"]] == [0, 4]
