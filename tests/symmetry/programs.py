"""Random programs: no group of any spec may change what they compute.

    python tests/symmetry/programs.py 2000 --seed 7

Each program is a random chain of layers and of odd things that networks do to arrays. Its spec is
derived; then every unit of every group is moved by that group's permutation alone (inside every
place of its parent, for a nested group), and the outputs are compared in float64. So they are for
each matrix, scale and sign of the whole symmetry alone, for all of them at once, and for gains that
are moved into other weights.
"""

import argparse
import collections
import dataclasses
import time
import traceback
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from evaluate import evaluate, saturates
from jax import lax

from llfc_jax.errors import LlfcError
from llfc_jax.graph.graph import Graph
from llfc_jax.graph.trace import flatten
from llfc_jax.symmetry import PermutationSpec, derive
from llfc_jax.symmetry.beyond.derive import derive_symmetry
from llfc_jax.symmetry.beyond.spec import SymmetrySpec
from llfc_jax.symmetry.checking import (
    derange,
    double_precision,
    identity,
    parts_of,
    random_element,
)

SIZES = (2, 3, 4, 6, 8)
BATCH = 2
MANY = 24  # samples on which programs that choose by order are run: ties show on some of them
ORDERS = ("argmax", "argmin", "top_k", "sort")
TOLERANCE = 1e-9
COARSE = 0.1  # where something is cast to bfloat16


class Builder:
    """Makes one program: hands out weights, remembers values, draws choices."""

    def __init__(self, seed: Any, weights: list[Any] | None) -> None:
        self.rng = np.random.default_rng(seed)
        self.given = None if weights is None else iter(weights)
        self.shapes: list[tuple[int, ...]] = []
        self.saved: list[Any] = []

    def weight(self, *shape: int) -> Any:
        """The next weight of the program."""
        self.shapes.append(shape)
        return jnp.zeros(shape) if self.given is None else next(self.given)

    def pick(self, *options: Any) -> Any:
        """One of the options."""
        return options[self.rng.integers(len(options))]

    def size(self) -> int:
        """A width."""
        return self.pick(*SIZES)

    def axis(self, h: Any) -> int:
        """An axis other than the samples'."""
        return int(self.rng.integers(1, h.ndim))

    def divisor(self, n: int) -> int:
        """A divisor of a size."""
        return self.pick(*(d for d in range(1, n + 1) if n % d == 0))


Layer = Callable[[Builder, Any], Any]
LAYERS: list[Layer] = []


def layer(function: Layer) -> Layer:
    """Register a layer."""
    LAYERS.append(function)
    return function


def nonlinear(b: Builder, h: Any) -> Any:
    """Some activation."""
    return b.pick(
        jax.nn.relu, jnp.tanh, jax.nn.gelu, jax.nn.silu, jnp.sin, jax.nn.softplus,
        jax.nn.leaky_relu, jax.checkpoint(jnp.tanh), jax.jit(jax.nn.elu), lambda h: h,
        jax.nn.relu6, jnp.square, jnp.abs, jax.nn.hard_swish,
    )(h)  # fmt: skip


@layer
def dense(b: Builder, h: Any) -> Any:
    out = nonlinear(b, h @ b.weight(h.shape[-1], b.size()))
    return out + b.weight(out.shape[-1]) if b.pick(0, 1) else out


@layer
def dense_again(b: Builder, h: Any) -> Any:
    return dense(b, h)


@layer
def dense_other_axis(b: Builder, h: Any) -> Any:
    i = b.axis(h)
    return jnp.moveaxis(jnp.tensordot(h, b.weight(h.shape[i], b.size()), (i, 0)), -1, i)


@layer
def tied_twice(b: Builder, h: Any) -> Any:
    w = b.weight(h.shape[-1], h.shape[-1])
    h = jnp.tanh(h @ w)
    return h @ b.pick(w, w.T)


@layer
def weight_normed(b: Builder, h: Any) -> Any:
    w = b.weight(h.shape[-1], b.size())
    return h @ (w / jnp.linalg.norm(w, axis=b.pick(0, 1), keepdims=True)) * b.weight(w.shape[1])


@layer
def norm(b: Builder, h: Any) -> Any:
    axes = b.pick((-1,), tuple(range(1, h.ndim)), (1,))
    mean = h.mean(axes, keepdims=True) if b.pick(0, 1) else 0.0
    h = (h - mean) / jnp.sqrt(((h - mean) ** 2).mean(axes, keepdims=True) + 1e-2)
    gain = b.pick("none", "weight", "sum")
    if gain == "sum":
        return h * (b.weight(h.shape[-1]) + b.pick(1.0, -0.5, 2.0))
    return h * b.weight(h.shape[-1]) if gain == "weight" else h


@layer
def group_norm(b: Builder, h: Any) -> Any:
    n = h.shape[-1]
    groups = b.divisor(n)
    z = h.reshape(*h.shape[:-1], groups, n // groups)
    style = b.pick("reshape", "repeat")
    if style == "reshape":
        z = z / jnp.sqrt((z**2).mean(-1, keepdims=True) + 1e-2)
        return z.reshape(h.shape) * b.weight(n)
    scale = jnp.repeat(lax.rsqrt((z**2).mean(-1) + 1e-2), n // groups, -1)
    return h * scale * b.weight(n)


@layer
def folded_statistics(b: Builder, h: Any) -> Any:
    n = h.shape[-1]
    mean, var = b.weight(n), b.weight(n)
    return (h - mean) * lax.rsqrt(var**2 + 0.1) * b.weight(n)


@layer
def residual(b: Builder, h: Any) -> Any:
    n = h.shape[-1]
    z = nonlinear(b, h @ b.weight(n, b.size()))
    return h + z @ b.weight(z.shape[-1], n)


@layer
def earlier(b: Builder, h: Any) -> Any:
    """Combine with an earlier value of the same shape."""
    same = [v for v in b.saved if v.shape == h.shape]
    if not same:
        return h
    other = same[b.rng.integers(len(same))]
    return b.pick(jnp.add, jnp.multiply, jnp.maximum, jnp.subtract)(h, other)


@layer
def joined(b: Builder, h: Any) -> Any:
    fits = [v for v in b.saved if v.shape[:-1] == h.shape[:-1] and v.shape[-1] + h.shape[-1] < 13]
    other = fits[b.rng.integers(len(fits))] if fits else nonlinear(b, h)
    return jnp.concatenate(b.pick([h, other], [other, h], [h[..., :1], other]), -1)


@layer
def gated(b: Builder, h: Any) -> Any:
    n = b.size()
    style = b.pick("split", "slice", "reshape", "interleaved", "two")
    if style == "two":
        return (h @ b.weight(h.shape[-1], n)) * jax.nn.sigmoid(h @ b.weight(h.shape[-1], n))
    z = h @ b.weight(h.shape[-1], 2 * n) + b.weight(2 * n)
    if style == "split":
        left, right = jnp.split(z, 2, -1)
    elif style == "slice":
        left, right = z[..., :n], z[..., n:]
    elif style == "reshape":
        z = z.reshape(*z.shape[:-1], 2, n)
        left, right = z[..., 0, :], z[..., 1, :]
    else:
        left, right = z[..., ::2], z[..., 1::2]
    return left * jax.nn.sigmoid(right)


@layer
def paired(b: Builder, h: Any) -> Any:
    """Several values of one projection, each the others' dual, or read by one weight."""
    n, style = b.size(), b.pick("split", "turns", "last axis", "swapped", "three")
    z = h @ b.weight(h.shape[-1], (3 if style == "three" else 2) * n)
    z = b.pick(lambda z: z, lambda z: z, lambda z: z + b.weight(z.shape[-1]), jax.nn.relu,
               lambda z: z / jnp.sqrt((z**2).mean(-1, keepdims=True) + 0.1))(z)  # fmt: skip
    if style == "turns":
        q, k = z[..., ::2], z[..., 1::2]
    elif style == "last axis":
        z = z.reshape(*z.shape[:-1], n, 2)
        q, k = z[..., 0], z[..., 1]
    elif style == "swapped":
        k, q = jnp.split(jnp.concatenate([z[..., n:], z[..., :n]], -1), 2, -1)
    else:
        q, k, *_ = jnp.split(z, 3 if style == "three" else 2, -1)
    score = (q * k).sum(-1, keepdims=True)
    return b.pick(
        lambda: h * jnp.tanh(score), lambda: h + score + q.mean(-1, keepdims=True),
        lambda: jnp.concatenate([q, 1 / (k**2 + 0.1)], -1) * jnp.tanh(score),
        lambda: h + jnp.concatenate([k, q, k], -1) @ b.weight(3 * n, h.shape[-1]) * score,
        lambda: jnp.stack([q, k], 1).reshape(len(h), -1, n).mean(1) if h.ndim == 2 else q - k,
    )()  # fmt: skip


@layer
def maxout(b: Builder, h: Any) -> Any:
    n, k = b.size(), b.pick(2, 3)
    z = h @ b.weight(h.shape[-1], n * k)
    if b.pick(0, 1):
        return z.reshape(*z.shape[:-1], n, k).max(-1)
    return z.reshape(*z.shape[:-1], k, n).max(-2)


@layer
def repeated(b: Builder, h: Any) -> Any:
    i, k = b.axis(h), b.pick(2, 3)
    if h.shape[i] * k > 12:
        return h
    return b.pick(
        lambda h: jnp.repeat(h, k, i),
        lambda h: jnp.tile(h, [k if j == i else 1 for j in range(h.ndim)]),
        lambda h: jnp.concatenate([h] * k, i),
        lambda h: jnp.broadcast_to(h[:, None], (len(h), k, *h.shape[1:])).reshape(
            len(h), k * h.shape[1], *h.shape[2:]
        ),
    )(h)


@layer
def stacked(b: Builder, h: Any) -> Any:
    i = b.axis(h)
    if h.shape[i] > 4:
        return h
    other = b.pick(lambda: jnp.tanh(h), lambda: jnp.zeros_like(h), lambda: dense_same(b, h))()
    z = jnp.stack([h, other], b.pick(i, i + 1))
    return z.reshape(*h.shape[:i], -1, *h.shape[i + 1 :])


def dense_same(b: Builder, h: Any) -> Any:
    return jnp.tanh(h @ b.weight(h.shape[-1], h.shape[-1]))


@layer
def marked(b: Builder, h: Any) -> Any:
    """Constants, some of which tell places apart."""
    n = h.shape[-1]
    c = b.pick(
        np.full(n, 0.5), np.arange(1.0, n + 1), np.repeat([1.0, 2.0], n)[::2][:n],
        np.tile([1.0, -1.0], n)[:n],
    )  # fmt: skip
    return b.pick(jnp.multiply, jnp.add)(h, c)


@layer
def marked_position(b: Builder, h: Any) -> Any:
    i = b.axis(h)
    shape = [1] * h.ndim
    shape[i] = -1
    return h + b.pick(jnp.cos, jnp.sin)(jnp.arange(float(h.shape[i]))).reshape(shape)


@layer
def mixed_up(b: Builder, h: Any) -> Any:
    """Cuts, shifts, reversals and running sums along an axis."""
    i, n = b.axis(h), None
    n = h.shape[i]
    return b.pick(
        lambda h: jnp.flip(h, i), lambda h: jnp.roll(h, 1, i), lambda h: jnp.cumsum(h, i),
        lambda h: jnp.sort(h, i), lambda h: lax.slice_in_dim(h, 0, max(1, n - 1), 1, i),
        lambda h: lax.slice_in_dim(h, 0, n, 2, i), lambda h: lax.cummax(h, i),
        lambda h: h + lax.slice_in_dim(h, 0, 1, 1, i),
        lambda h: h * lax.slice_in_dim(h, n - 1, n, 1, i),
        lambda h: lax.dynamic_update_slice_in_dim(h, lax.slice_in_dim(h, 0, 1, 1, i), n - 1, i),
        lambda h: jnp.where(h >= jnp.median(h, i, keepdims=True), h, 0),
    )(h)  # fmt: skip


@layer
def padded(b: Builder, h: Any) -> Any:
    i = b.axis(h)
    if h.shape[i] > 8:
        return h
    low, high, inner = b.pick((1, 1, 0), (0, 2, 0), (2, 0, 0), (0, 0, 1), (-1, 1, 0))
    if h.shape[i] < 2:
        inner, low = 0, abs(low)
    config = [(low, high, inner) if j == i else (0, 0, 0) for j in range(h.ndim)]
    return lax.pad(h, np.array(b.pick(0.0, 1.0), h.dtype), config)


@layer
def reduced(b: Builder, h: Any) -> Any:
    i = b.axis(h)
    f = b.pick(jnp.sum, jnp.mean, jnp.max, jnp.min, jax.nn.logsumexp, jnp.var)
    return h - f(h, i, keepdims=True)


@layer
def softmaxed(b: Builder, h: Any) -> Any:
    return jax.nn.softmax(h, b.axis(h)) * h.shape[-1]


@layer
def masked(b: Builder, h: Any) -> Any:
    i = b.axis(h)
    mask = lax.broadcasted_iota(int, h.shape, i) < max(1, h.shape[i] - 1)
    return jnp.where(mask, h, b.pick(0.0, -1.0))


@layer
def reshaped(b: Builder, h: Any) -> Any:
    """Cut an axis in two, do something between, and put it together again."""
    i = b.axis(h)
    n = h.shape[i]
    k = b.divisor(n)
    z = h.reshape(*h.shape[:i], k, n // k, *h.shape[i + 1 :])
    z = b.pick(
        lambda z: jnp.swapaxes(z, i, i + 1), lambda z: z * jax.nn.sigmoid(z.sum(i, keepdims=True)),
        lambda z: z - z.max(i + 1, keepdims=True), lambda z: jnp.flip(z, i),
        lambda z: jnp.cumsum(z, i + 1), lambda z: z * z[tuple([slice(None)] * i + [slice(0, 1)])],
    )(z)  # fmt: skip
    return z.reshape(h.shape)


@layer
def transposed(b: Builder, h: Any) -> Any:
    return jnp.swapaxes(h, 1, 2) if h.ndim == 3 else h


@layer
def flattened(b: Builder, h: Any) -> Any:
    return h.reshape(len(h), -1) if h.ndim > 2 and h[0].size <= 24 else h


@layer
def raised(b: Builder, h: Any) -> Any:
    """A new axis, by a product with a weight, an outer product, or a cut."""
    if h.ndim > 2:
        return h
    n = h.shape[-1]
    k = b.divisor(n)
    return b.pick(
        lambda h: jnp.einsum("bi,ijk->bjk", h, b.weight(n, 3, b.pick(2, 4))),
        lambda h: h[:, :, None] * h[:, None, :] if n <= 4 else h,
        lambda h: h.reshape(len(h), k, n // k),
        lambda h: h[:, None] * b.weight(3, 1),
        lambda h: jnp.einsum("bi,bj->bij", h[:, :4], jnp.tanh(h[:, -3:])),
        lambda h: jnp.stack([h, jnp.tanh(h)], 1),
    )(h)


def heads_of(b: Builder, h: Any, name: str, heads: int, width: int) -> Any:
    d = h.shape[-1]
    if name == "fused":
        return (h @ b.weight(d, heads * width)).reshape(*h.shape[:-1], heads, width)
    return jnp.einsum("btd,dhk->bthk", h, b.weight(d, heads, width))


@layer
def attention(b: Builder, h: Any) -> Any:
    if h.ndim != 3:
        return h
    style = b.pick("plain", "fused", "qkv", "qkv heads first", "grouped")
    heads, width, d = b.pick(2, 3), b.pick(2, 4), h.shape[-1]
    if style.startswith("qkv"):
        z = h @ b.weight(d, 3 * heads * width)
        if style == "qkv":
            q, k, v = jnp.moveaxis(z.reshape(*z.shape[:2], 3, heads, width), 2, 0)
        else:
            z = z.reshape(*z.shape[:2], heads, 3, width)
            q, k, v = (z[..., i, :] for i in range(3))
    else:
        few = 2 if style == "grouped" else heads
        heads = 4 if style == "grouped" else heads
        q = heads_of(b, h, style, heads, width)
        k, v = (heads_of(b, h, style, few, width) for _ in range(2))
        if style == "grouped":
            k, v = (jnp.repeat(z, heads // few, 2) for z in (k, v))
    extra = b.pick("", "rotary", "norm", "bias", "causal")
    if extra == "rotary":
        q, k = rotary(q), rotary(k)
    if extra == "norm":
        q, k = (z / jnp.sqrt((z**2).mean(-1, keepdims=True) + 0.1) for z in (q, k))
    scores = jnp.einsum("bthk,bshk->bhts", q, k)
    if extra == "bias":
        scores += b.pick(b.weight(heads, 1, 1), -jnp.arange(1.0, heads + 1)[:, None, None])
    if extra == "causal":
        scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -1e9)
    mixed = jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(scores), v)
    if b.pick(0, 1):
        out = jnp.einsum("bthk,hkd->btd", mixed, b.weight(heads, width, d))
    else:
        out = mixed.reshape(*h.shape[:2], -1) @ b.weight(heads * width, d)
    return h + out if b.pick(0, 1) else out


def rotary(z: Any) -> Any:
    """Half-split rotary embedding of [b, t, h, k]."""
    half = z.shape[-1] // 2
    angle = jnp.arange(float(z.shape[1]))[:, None] / 10.0 ** jnp.arange(half)
    cos, sin = (f(angle)[None, :, None] for f in (jnp.cos, jnp.sin))
    left, right = z[..., :half], z[..., half:]
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], -1)


@layer
def convolution(b: Builder, h: Any) -> Any:
    if h.ndim != 3:
        return h
    n, out = h.shape[-1], b.size()
    style = b.pick("plain", "strided", "dilated", "grouped", "depthwise", "transposed")
    numbers = ("NWC", "WIO", "NWC")
    if style == "transposed":
        return lax.conv_transpose(h, b.weight(2, n, out), (2,), "SAME", dimension_numbers=numbers)
    groups = b.divisor(n) if style == "grouped" else n if style == "depthwise" else 1
    out = groups * b.pick(1, 2) if groups > 1 else out
    return lax.conv_general_dilated(
        h, b.weight(2, n // groups, out), (2 if style == "strided" else 1,), "SAME",
        rhs_dilation=(2 if style == "dilated" else 1,), dimension_numbers=numbers,
        feature_group_count=groups,
    )  # fmt: skip


@layer
def pooled(b: Builder, h: Any) -> Any:
    if h.ndim != 3 or h.shape[1] < 2:
        return h
    return lax.reduce_window(h, -np.inf, lax.max, (1, 2, 1), (1, b.pick(1, 2), 1), "SAME")


@layer
def experts(b: Builder, h: Any) -> Any:
    e, d, f = b.pick(2, 3, 4), h.shape[-1], b.pick(2, 4)
    logits = h @ b.weight(d, e)
    z = jax.nn.relu(jnp.einsum("...d,edf->...ef", h, b.weight(e, d, f)))
    z = jnp.einsum("...ef,efd->...ed", z, b.weight(e, f, d))
    style = b.pick("soft", "one hot", "top k", "best")
    if style == "soft":
        return jnp.einsum("...e,...ed->...d", jax.nn.softmax(logits), z)
    if style == "one hot":
        return jnp.einsum("...e,...ed->...d", jax.nn.one_hot(logits.argmax(-1), e), z)
    if style == "best":
        return jnp.take_along_axis(z, logits.argmax(-1)[..., None, None], -2)[..., 0, :]
    values, places = lax.top_k(logits, 2)
    gate = (jax.nn.softmax(values)[..., None] * jax.nn.one_hot(places, e)).sum(-2)
    return jnp.einsum("...e,...ed->...d", gate, z)


@layer
def chosen_by_score(b: Builder, h: Any) -> Any:
    """Units of the best scores: scores tie wherever a ReLU, a mask or a cast came before."""
    n, e = h.shape[-1], b.pick(2, 3, 4)
    z = h @ b.weight(n, e)
    z = z + b.weight(e) if b.pick(0, 1) else z
    z = b.pick(
        jax.nn.relu, jnp.tanh, jnp.round, jnp.sign, jax.nn.leaky_relu, jax.nn.softmax, jnp.abs,
        lambda z: z > 0, lambda z: z.astype(int), lambda z: z.astype(jnp.bfloat16),
        lambda z: z.astype(jnp.float8_e4m3fn), lambda z: jnp.clip(z, -0.1, 0.1), lambda z: z,
        lambda z: z - jnp.maximum(z, 0),
    )(z).astype(h.dtype)  # fmt: skip
    z = b.pick(
        lambda z: z, lambda z: z * b.weight(e), lambda z: z / b.weight(e), lambda z: z * 3.0,
        lambda z: z * jax.nn.sigmoid(h @ b.weight(n, e)), lambda z: z * (h @ b.weight(n, e)),
        lambda z: z * (h @ b.weight(n, e) > 0), lambda z: z @ b.weight(e, e), lambda z: z + z**2,
        lambda z: z + b.weight(e), lambda z: z + h @ b.weight(n, e), lambda z: z**3,
        lambda z: z - z.mean(-1, keepdims=True), lambda z: z @ b.weight(e, e) + b.weight(e),
        lambda z: z + lax.stop_gradient(jnp.round(z) - z), lambda z: jnp.where(z > 0, z, 0.5),
    )(z)  # fmt: skip
    codes = b.weight(e, n)
    gate = b.pick(
        lambda: jax.nn.one_hot(jnp.argmax(z, -1), e),
        lambda: jax.nn.one_hot(jnp.argmin(z, -1), e),
        lambda: jax.nn.one_hot(lax.top_k(z, 2)[1], e).sum(-2),
        lambda: jax.nn.one_hot(jnp.argsort(z, -1)[..., -1], e),
        lambda: jnp.sort(z, -1),
    )()
    return h + gate @ codes if b.pick(0, 1) else gate @ codes


@layer
def chosen_again(b: Builder, h: Any) -> Any:
    return chosen_by_score(b, jax.nn.relu(h) if b.pick(0, 1) else h)


@layer
def looked_up(b: Builder, h: Any) -> Any:
    """An embedding, a gather along an axis, a scatter."""
    n = h.shape[-1]
    style = b.pick("embedding", "along", "places", "scatter", "segments")
    if style == "embedding":
        ids = jnp.clip(jnp.abs(h.sum(-1)) * 3, 0, 4).astype(int)
        return h + b.weight(5, n)[ids]
    if style == "along":
        return jnp.take_along_axis(h, jnp.argsort(h, -1), -1)
    if style == "places":
        return h[..., np.array([n - 1, 0, n // 2])]
    if style == "scatter":
        return h.at[..., 0].add(h[..., -1])
    if h.ndim != 3:
        return h
    to = np.arange(h.shape[1]) % 2
    sums = jax.vmap(lambda z: jax.ops.segment_sum(z, to, 2))(h)
    return h + sums[:, to]


@layer
def scanned(b: Builder, h: Any) -> Any:
    """Layers in a scan, a recurrence over an axis, or a loop."""
    n = h.shape[-1]
    style = b.pick("layers", "recurrence", "fori", "while", "cond", "indexed")
    if style in ("layers", "fori", "indexed"):
        up, down = b.weight(2, n, 3), b.weight(2, 3, n)
        if style == "layers":
            step = lambda h, w: (h + jnp.tanh(h @ w[0]) @ w[1], None)  # noqa: E731
            return lax.scan(step, h, (up, down))[0]
        if style == "fori":
            return lax.fori_loop(0, 2, lambda i, h: h + jnp.tanh(h @ up[i]) @ down[i], h)
        return h + jnp.tanh(h @ up[0]) @ down[0] - jnp.sin(h @ up[1]) @ down[1]
    w = b.weight(n, n)
    if style == "while":
        return lax.while_loop(lambda z: jnp.abs(z).max() > 1, lambda z: jnp.tanh(z @ w) / 2, h)
    if style == "cond":
        # Not h.sum(): after a mean is subtracted its sign would be that of rounding, and so would
        # that of the cubes of two units.
        return lax.cond(
            ((h + 0.3) ** 3).sum() > 0, lambda z: jnp.tanh(z @ w), lambda z: jnp.sin(z), h
        )
    if h.ndim != 3:
        return h
    return recurrence(b, h)


def recurrence(b: Builder, h: Any) -> Any:
    n, k = h.shape[-1], b.pick(2, 3)
    xs = jnp.swapaxes(h, 0, 1)
    if b.pick(0, 1):
        w, u = b.weight(n, k), b.weight(k, k)
        step = lambda c, x: (jnp.tanh(x @ w + c @ u),) * 2  # noqa: E731
        return jnp.swapaxes(lax.scan(step, jnp.zeros((len(h), k)), xs)[1], 0, 1)
    w, u, bias = b.weight(n, 4 * k), b.weight(k, 4 * k), b.weight(4 * k)

    def lstm(carry: Any, x: Any) -> Any:
        c, s = carry
        i, f, g, o = jnp.split(x @ w + s @ u + bias, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        s = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (c, s), s

    zero = jnp.zeros((len(h), k))
    _, ys = lax.scan(lstm, (zero, zero), xs, reverse=b.pick(False, True))
    return jnp.swapaxes(ys, 0, 1)


@jax.custom_vjp
def _own_rule(h: Any) -> Any:
    return jnp.tanh(h) * h


_own_rule.defvjp(lambda h: (_own_rule(h), h), lambda h, g: (g * h,))


@layer
def own_derivative(b: Builder, h: Any) -> Any:
    return _own_rule(h)


@layer
def products(b: Builder, h: Any) -> Any:
    """Squares, Gram matrices, bilinear forms."""
    if h.ndim == 2:
        w = b.weight(h.shape[-1], h.shape[-1])
        return h * jnp.einsum("bi,ij,bj->b", h, w, h)[:, None]
    gram = b.pick(
        lambda: jnp.einsum("btd,bsd->bts", h, h), lambda: jnp.einsum("btd,bte->bde", h, h)
    )()
    return jnp.tanh(gram)


@layer
def mixer(b: Builder, h: Any) -> Any:
    if h.ndim != 3:
        return h
    t = h.shape[1]
    z = jax.nn.gelu(jnp.einsum("btd,tu->bud", h, b.weight(t, b.size())))
    return h + jnp.einsum("bud,ut->btd", z, b.weight(z.shape[1], t))


def build(
    seed: Any, batch: int = BATCH
) -> tuple[Callable[[Any, Any], Any], list[tuple[int, ...]], tuple[int, ...]]:
    """Returns a program, the shapes of its weights, and the shape of its input."""
    rng = np.random.default_rng(seed)
    chosen = [LAYERS[i] for i in rng.integers(0, len(LAYERS), rng.integers(2, 8))]
    shape = (batch, 3) if rng.integers(3) == 0 else (batch, 4, 3)

    def chain(b: Builder, x: Any) -> Any:
        h = jnp.tanh(x @ b.weight(x.shape[-1], b.size()))
        for step in chosen:
            b.saved.append(h)
            h = step(b, h)
            if h[0].size > 150:
                h = h.mean(1)
        if h.ndim > 2:
            h = b.pick(lambda: h.mean(1), lambda: h.reshape(len(h), -1), lambda: h[:, 0])()
        h = h.reshape(len(h), -1)
        return h @ b.weight(h.shape[-1], 3)

    recorder = Builder([*np.atleast_1d(seed), 1], None)
    jax.eval_shape(lambda x: chain(recorder, x), jnp.zeros(shape))

    def apply(weights: list[Any], x: Any) -> Any:
        return chain(Builder([*np.atleast_1d(seed), 1], weights), x)

    return apply, recorder.shapes, shape


@dataclasses.dataclass
class Outcome:
    """What became of one program.

    Attributes:
        wrong: a line and the spec for each group that changed the outputs.
        groups: how many groups the spec has.
        nested: how many of them are inside another.
        primitives: how often each primitive occurs.
        skipped: the outputs are zero up to rounding, or not finite.
        rounded: the outputs changed, but rounding is enough for that (`decided_by_rounding`).
        kinds: how many matrices, scales, signs and moved gains were looked at.
    """

    wrong: list[str]
    groups: int
    nested: int
    primitives: collections.Counter[str]
    skipped: bool = False
    rounded: bool = False
    kinds: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


def count(jaxpr: Any, into: collections.Counter[str]) -> collections.Counter[str]:
    """Number of equations of each primitive, nested ones included."""
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        into[eqn.primitive.name] += 1
        for value in eqn.params.values():
            for item in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(item, "eqns") or hasattr(item, "jaxpr"):
                    count(item, into)
    return into


def examine(seed: Any) -> Outcome:
    """Derive a program's specs, move every group, and apply every other element."""
    apply, shapes, shape = build(seed)
    rng = np.random.default_rng(seed)
    shift = rng.choice([0.1, 0.1, -0.5])
    weights = [rng.normal(size=s) * (s[0] if s else 1) ** -0.5 + shift for s in shapes]
    x = rng.normal(size=shape)
    jaxpr = jax.make_jaxpr(apply)(weights, x)
    graph = Graph(flatten(apply, weights, x), (), {})
    spec, symmetry = derive(graph).spec, derive_symmetry(graph)
    primitives = count(jaxpr, collections.Counter())
    if any(name in primitives for name in ORDERS):
        apply, _, shape = build(seed, MANY)
        x = (
            rng.normal(size=shape)
            * np.repeat([1, 4], MANY // 2)[:, None, *[None] * (len(shape) - 2)]
        )
        jaxpr = jax.make_jaxpr(apply)(weights, x)
    outcome = Outcome([], len(spec.groups), len(spec.parents), primitives)
    changes = largest_changes(jaxpr, spec, weights, x, rng)
    outcome.skipped = changes is None
    for name, change in (changes or {}).items():
        if not change <= TOLERANCE:
            outcome.wrong.append(f"{name}: {change:.1e}\n{spec.explain()}")
    changes = None if outcome.skipped else element_changes(jaxpr, symmetry, weights, x, rng)
    tolerance = COARSE if "bf16[" in str(jaxpr) else TOLERANCE  # scaled numbers round otherwise
    for name, change in (changes or {}).items():
        outcome.kinds[name.split(" ")[0]] += 1
        if not change <= tolerance:
            outcome.wrong.append(f"{name}: {change:.1e}\n{symmetry.explain()}")
    if outcome.wrong and decided_by_rounding(jaxpr, weights, x, rng):
        outcome.rounded = True
        outcome.wrong.clear()
    return outcome


def largest_changes(
    jaxpr: Any, spec: PermutationSpec, variables: Any, x: Any, rng: np.random.Generator
) -> dict[str, float] | None:
    """By how much the outputs change when one group's units move, as a share of the largest.

    None where the outputs are zero up to rounding, or not finite.
    """
    with np.errstate(all="ignore"):
        before = evaluate(jaxpr, [*jax.tree.leaves(variables), x])[0]
        largest = np.abs(before).max()
        if not 1e-8 < largest < np.inf:
            return None
        changes = {}
        for group in spec.groups:
            moved = spec.apply(derange(spec, group.name, rng), variables)
            after = evaluate(jaxpr, [*jax.tree.leaves(moved), x])[0]
            changes[group.name] = float(np.abs(after - before).max() / largest)
    return changes


def element_changes(
    jaxpr: Any, spec: SymmetrySpec, variables: Any, x: Any, rng: np.random.Generator
) -> dict[str, float] | None:
    """By how much outputs change, as a share of the largest, for each part of a random element.

    "fold" stands for the gains that are moved, "matrices NAME", "log_scales NAME", "signs NAME" for
    what is done to one group alone, "all" for all of it at once, units moved too. None where the
    outputs are zero up to rounding, or not finite.
    """
    with np.errstate(all="ignore"):

        def run(variables: Any) -> Any:
            return evaluate(jaxpr, [*map(np.asarray, jax.tree.leaves(variables)), x])[0]

        before = run(variables)
        largest = np.abs(before).max()
        if not 1e-8 < largest < np.inf:
            return None
        folded, whole = spec.fold(variables), random_element(spec, rng)
        moved = {} if not spec.folds else {"fold": folded}
        parts = parts_of(whole)
        moved |= {f"{kind} {group}": spec.apply(part, folded) for kind, group, part in parts}
        if moved:
            units = identity(spec.permutations) | {
                group.name: rng.permuted(identity(spec.permutations)[group.name], axis=-1)
                for group in spec.permutations.groups
                if not group.rigid
            }
            moved["all"] = spec.apply(dataclasses.replace(whole, permutation=units), folded)
        return {
            name: float(np.abs(run(own) - before).max() / largest) for name, own in moved.items()
        }


@np.errstate(all="ignore")
def decided_by_rounding(jaxpr: Any, weights: Any, x: Any, rng: np.random.Generator) -> bool:
    """Whether the outputs are none that float64 can tell.

    Either they change when the weights do in their last digit, by a tenth of what counts as wrong;
    or something is ordered, and a function came to its limit (tanh(20) is 1), where numbers that
    differ in exact arithmetic are a tie.
    """
    jittered = [w * (1 + 2e-16 * rng.integers(-1, 2, np.shape(w))) for w in weights]
    before, after = (evaluate(jaxpr, [*held, x])[0] for held in (weights, jittered))
    if not np.abs(after - before).max() <= 0.1 * TOLERANCE * np.abs(before).max():
        return True
    orders = any(name in count(jaxpr, collections.Counter()) for name in ORDERS)
    return orders and saturates(jaxpr, [*weights, x])


def main() -> None:
    """Examine many programs and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", type=int, nargs="?", default=300)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", type=int, help="number of one program to look at")
    options = parser.parse_args()
    started, primitives = time.perf_counter(), collections.Counter[str]()
    counts = collections.Counter[str]()
    numbers = range(options.programs) if options.only is None else [options.only]
    with double_precision():
        for number in numbers:
            try:
                found = examine([options.seed, number])
            except Exception as error:
                counts["raised a line" if isinstance(error, LlfcError) else "crashed"] += 1
                print(f"program {number}: {type(error).__name__}: {error}")
                print(traceback.format_exc(limit=-4))
                continue
            primitives += found.primitives
            counts += found.kinds
            counts["groups"] += found.groups
            counts["nested"] += found.nested
            counts["programs without a group"] += not found.groups
            counts["zero or not finite, not compared"] += found.skipped
            counts["decided by rounding, not compared"] += found.rounded
            counts["wrong"] += len(found.wrong)
            for words in found.wrong:
                print(f"program {number}: WRONG {words}")
    seconds = time.perf_counter() - started
    print(f"seed {options.seed}: {len(numbers)} programs in {seconds:.0f} s; {dict(counts)}")
    print("primitives:", ", ".join(f"{n} {k}" for n, k in primitives.most_common()))


if __name__ == "__main__":
    main()
