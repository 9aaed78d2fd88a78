"""Small versions of networks as they are published, in plain JAX, with the groups they must have.

    python tests/symmetry/architectures.py --tries 20

For each: its weights' shapes, the function, and what a person would write down: (units, units of
the parent or 0) of every group. The command derives each spec, moves every unit of every group
alone, and brings planted permutations back by weight matching.
"""

import argparse
import collections
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Groups = list[tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network.

    Attributes:
        apply: the network.
        shapes: of its weights.
        x: shape of one sample; integers below `words` where that is given.
        groups: (units, units of the parent or 0) of every group it must have.
    """

    apply: Callable[[Any, Any], Any]
    shapes: dict[str, tuple[int, ...]]
    x: tuple[int, ...]
    groups: Groups
    words: int = 0

    def variables(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Random weights in which no two units are alike."""
        rng = np.random.default_rng(seed)
        return {
            name: (
                rng.normal(size=shape) / max(1, np.prod(shape[:-1])) ** 0.5 + (len(shape) == 1)
            ).astype(np.float32)
            for name, shape in self.shapes.items()
        }

    def batch(self, samples: int = 2) -> np.ndarray:
        """Random samples."""
        rng = np.random.default_rng(1)
        if self.words:
            return rng.integers(0, self.words, (samples, *self.x)).astype(np.int32)
        return rng.normal(size=(samples, *self.x)).astype(np.float32)


ARCHITECTURES: dict[str, Architecture] = {}


def architecture(
    shapes: dict[str, tuple[int, ...]], x: tuple[int, ...], groups: Groups, words: int = 0
) -> Callable[[Any], Any]:
    """Register a network under its function's name."""

    def register(apply: Any) -> Any:
        ARCHITECTURES[apply.__name__] = Architecture(apply, shapes, x, groups, words)
        return apply

    return register


def conv(x: Any, w: Any, stride: int = 1, groups: int = 1, dilation: int = 1) -> Any:
    """Convolution of [n, h, w, c] by [3, 3, in, out]."""
    return lax.conv_general_dilated(
        x, w, (stride, stride), "SAME", rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
    )  # fmt: skip


def layer_norm(x: Any, scale: Any) -> Any:
    x = x - x.mean(-1, keepdims=True)
    return x * lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-5) * along(x, scale)


def rms_norm(x: Any, scale: Any) -> Any:
    return x * lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-5) * along(x, scale)


def along(x: Any, scale: Any) -> Any:
    """A vector along the last axis of x."""
    return scale.reshape((1,) * (x.ndim - 1) + (-1,))


def batch_norm(x: Any, w: Any, name: str) -> Any:
    """With running statistics, as in evaluation."""
    mean, var, scale, bias = (along(x, w[f"{name}_{k}"]) for k in ("mean", "var", "g", "b"))
    return (x - mean) * lax.rsqrt(var**2 + 1e-3) * scale + bias


def normed(name: str, n: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}_{k}": (n,) for k in ("mean", "var", "g", "b")}


# -- convolutions ----------------------------------------------------------------------------------


@architecture(
    {"stem": (3, 3, 3, 8), "down": (1, 1, 8, 12), "group": (3, 3, 4, 12), "up": (1, 1, 12, 8),
     "out": (8, 5)} | normed("n", 12),
    (6, 6, 3), [(8, 0), (3, 0), (4, 3), (4, 3)],
)  # fmt: skip
def resnext(w: Any, x: Any) -> Any:
    """Bottleneck with a grouped convolution: cardinality 3, four channels in and out of each."""
    h = jax.nn.relu(conv(x, w["stem"]))
    z = jax.nn.relu(conv(h, w["down"]))
    z = jax.nn.relu(batch_norm(conv(z, w["group"], groups=3), w, "n"))
    return jax.nn.relu(h + conv(z, w["up"])).mean((1, 2)) @ w["out"]


@architecture(
    {"stem": (3, 3, 3, 6), "one": (3, 3, 6, 4), "two": (3, 3, 10, 4), "trans": (1, 1, 14, 7),
     "out": (7, 5)} | normed("a", 6) | normed("b", 10) | normed("c", 14),
    (6, 6, 3), [(6, 0), (4, 0), (4, 0), (7, 0)],
)  # fmt: skip
def densenet(w: Any, x: Any) -> Any:
    """Each layer reads all that came before, side by side."""
    h = conv(x, w["stem"])
    for name, norm in (("one", "a"), ("two", "b")):
        z = conv(jax.nn.relu(batch_norm(h, w, norm)), w[name])
        h = jnp.concatenate([h, z], -1)
    h = conv(jax.nn.relu(batch_norm(h, w, "c")), w["trans"])
    return (
        jax.nn.relu(lax.reduce_window(h, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")).mean(
            (1, 2)
        )
        @ w["out"]
    )


def squeeze_excite(h: Any, w: Any, gate: Any = jax.nn.hard_sigmoid) -> Any:
    z = jax.nn.relu(h.mean((1, 2)) @ w["squeeze"])
    return h * gate(z @ w["excite"])[:, None, None]


@architecture(
    {"stem": (3, 3, 3, 6), "expand": (1, 1, 6, 12), "depth": (3, 3, 1, 12), "squeeze": (12, 4),
     "excite": (4, 12), "project": (1, 1, 12, 6), "out": (6, 5)} | normed("n", 12),
    (6, 6, 3), [(6, 0), (12, 0), (4, 0)],
)  # fmt: skip
def mobilenet_v3(w: Any, x: Any) -> Any:
    """Inverted residual with a depthwise convolution and squeeze-and-excite, hard swish."""
    h = jax.nn.hard_swish(conv(x, w["stem"], 2))
    z = jax.nn.hard_swish(conv(h, w["expand"]))
    z = jax.nn.hard_swish(batch_norm(conv(z, w["depth"], groups=12), w, "n"))
    h = h + conv(squeeze_excite(z, w), w["project"])
    return h.mean((1, 2)) @ w["out"]


@architecture(
    {"stem": (2, 2, 3, 8), "depth": (3, 3, 1, 8), "norm": (8,), "up": (8, 20), "down": (20, 8),
     "gamma": (8,), "out": (8, 5)},
    (6, 6, 3), [(8, 0), (20, 0)],
)  # fmt: skip
def convnext(w: Any, x: Any) -> Any:
    """Patches, depthwise convolution, LayerNorm, an inverted bottleneck, a scaled residual."""
    h = conv(x, w["stem"], 2)
    z = layer_norm(conv(h, w["depth"], groups=8), w["norm"])
    h = h + along(h, w["gamma"]) * (jax.nn.gelu(z @ w["up"]) @ w["down"])
    return h.mean((1, 2)) @ w["out"]


@architecture(
    {"stem": (3, 3, 3, 6), "fused": (3, 3, 6, 10), "depth": (3, 3, 1, 10), "squeeze": (10, 3),
     "excite": (3, 10), "project": (1, 1, 10, 6), "head": (1, 1, 6, 9), "out": (9, 5)}
    | normed("n", 6) | normed("m", 10),
    (6, 6, 3), [(6, 0), (10, 0), (3, 0), (9, 0)],
)  # fmt: skip
def efficientnet(w: Any, x: Any) -> Any:
    """Expansion, depthwise convolution, squeeze-and-excite with SiLU, and a wide head."""
    h = jax.nn.silu(batch_norm(conv(x, w["stem"], 2), w, "n"))
    z = jax.nn.silu(conv(h, w["fused"]))
    z = jax.nn.silu(batch_norm(conv(z, w["depth"], groups=10), w, "m"))
    h = h + conv(squeeze_excite(z, w, jax.nn.sigmoid), w["project"])
    return jax.nn.silu(conv(h, w["head"])).mean((1, 2)) @ w["out"]


@architecture(
    {"down": (3, 3, 3, 6), "mid": (3, 3, 6, 8), "qkv": (8, 24), "o": (8, 8), "up": (2, 2, 8, 6),
     "join": (3, 3, 12, 7), "scale": (6,), "out": (1, 1, 7, 3)},
    (4, 4, 3), [(6, 0), (8, 0), (2, 0), (4, 2), (4, 2), (2, 0), (3, 2), (7, 0)],
)  # fmt: skip
def unet(w: Any, x: Any) -> Any:
    """Down with GroupNorm, attention in the middle, up by a transposed convolution, a skip."""
    h = conv(x, w["down"])
    z = h.reshape(*h.shape[:-1], 2, 3)
    z = z - z.mean((1, 2, 4), keepdims=True)
    z = z * lax.rsqrt((z**2).mean((1, 2, 4), keepdims=True) + 1e-5)
    skip = jax.nn.silu(z.reshape(h.shape) * along(h, w["scale"]))
    m = jax.nn.silu(conv(skip, w["mid"], 2))
    t = m.reshape(len(m), -1, 8)
    q, k, v = jnp.split(t @ w["qkv"], 3, -1)
    q, k, v = (z.reshape(*z.shape[:2], 2, 4) for z in (q, k, v))
    a = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", q, k))
    t = t + jnp.einsum("bhts,bshk->bthk", a, v).reshape(t.shape) @ w["o"]
    m = lax.conv_transpose(t.reshape(m.shape), w["up"], (2, 2), "SAME")
    h = jax.nn.silu(conv(jnp.concatenate([jnp.tanh(m), skip], -1), w["join"]))
    return conv(h, w["out"])


@architecture(
    {"stem": (2, 1, 6), "f0": (2, 6, 5), "g0": (2, 6, 5), "f1": (2, 6, 5), "g1": (2, 6, 5),
     "res0": (5, 6), "res1": (5, 6), "skip0": (5, 7), "skip1": (5, 7), "mid": (7, 8),
     "out": (8, 4)},
    (8, 1), [(6, 0), (5, 0), (5, 0), (7, 0), (8, 0)],
)  # fmt: skip
def wavenet(w: Any, x: Any) -> Any:
    """Gated dilated causal convolutions with residual and skip paths."""

    def causal(h: Any, kernel: Any, dilation: int) -> Any:
        numbers = ("NWC", "WIO", "NWC")
        return lax.conv_general_dilated(
            h, kernel, (1,), [(dilation, 0)], rhs_dilation=(dilation,), dimension_numbers=numbers
        )

    h, skips = causal(x, w["stem"], 1), 0.0
    for i in (0, 1):
        z = jnp.tanh(causal(h, w[f"f{i}"], 2**i)) * jax.nn.sigmoid(causal(h, w[f"g{i}"], 2**i))
        h, skips = h + z @ w[f"res{i}"], skips + z @ w[f"skip{i}"]
    return jax.nn.relu(jax.nn.relu(skips) @ w["mid"])[:, -1] @ w["out"]


# -- transformers ----------------------------------------------------------------------------------


def heads(x: Any, w: Any, n: int) -> Any:
    z = x @ w
    return z.reshape(*z.shape[:-1], n, -1)


def attend(q: Any, k: Any, v: Any, change: Callable[[Any], Any] = lambda s: s) -> Any:
    """[b, t, h, k] each -> [b, t, h * k]."""
    scores = change(jnp.einsum("bthk,bshk->bhts", q, k) / q.shape[-1] ** 0.5)
    mixed = jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(scores), v)
    return mixed.reshape(*mixed.shape[:2], -1)


def causal_mask(scores: Any) -> Any:
    seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))[None, None]
    return jnp.where(seen, scores, -1e9)


def angles(z: Any) -> tuple[Any, Any]:
    half = z.shape[-1] // 2
    angle = jnp.arange(z.shape[1], dtype=float)[:, None] / 10.0 ** (jnp.arange(half) / half)[None]
    return jnp.cos(angle)[None, :, None], jnp.sin(angle)[None, :, None]


def rotary_halves(z: Any) -> Any:
    cos, sin = angles(z)
    left, right = jnp.split(z, 2, -1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], -1)


def rotary_pairs(z: Any) -> Any:
    cos, sin = angles(z)
    left, right = z[..., ::2], z[..., 1::2]
    return jnp.stack([left * cos - right * sin, right * cos + left * sin], -1).reshape(z.shape)


@architecture(
    {"patch": (2, 2, 3, 8), "n1": (8,), "qkv": (8, 24), "qkv_b": (24,), "table": (9, 2),
     "o": (8, 8), "n2": (8,), "up": (8, 12), "down": (12, 8), "merge": (32, 10), "out": (10, 5)},
    (8, 8, 3), [(8, 0), (2, 0), (4, 2), (4, 2), (12, 0), (10, 0)],
)  # fmt: skip
def swin(w: Any, x: Any) -> Any:
    """Shifted windows of 2 x 2, fused projections, a table of relative biases, patch merging."""
    h = conv(x, w["patch"], 2)
    z = jnp.roll(layer_norm(h, w["n1"]), (-1, -1), (1, 2))
    b = len(h)
    z = z.reshape(b, 2, 2, 2, 2, 8).transpose(0, 1, 3, 2, 4, 5).reshape(b * 4, 4, 8)
    qkv = (z @ w["qkv"] + along(z, w["qkv_b"])).reshape(b * 4, 4, 3, 2, 4)
    q, k, v = qkv.transpose(2, 0, 1, 3, 4)
    places = np.stack(np.meshgrid(np.arange(2), np.arange(2), indexing="ij"), -1).reshape(-1, 2)
    apart = places[:, None] - places[None] + 1
    bias = w["table"][apart[..., 0] * 3 + apart[..., 1]].transpose(2, 0, 1)[None]
    z = attend(q, k, v, lambda s: s + bias) @ w["o"]
    z = z.reshape(b, 2, 2, 2, 2, 8).transpose(0, 1, 3, 2, 4, 5).reshape(h.shape)
    h = h + jnp.roll(z, (1, 1), (1, 2))
    h = h + jax.nn.gelu(layer_norm(h, w["n2"]) @ w["up"]) @ w["down"]
    parts = [h[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    return jnp.tanh(jnp.concatenate(parts, -1) @ w["merge"]).mean((1, 2)) @ w["out"]


@architecture(
    {"embed": (11, 8), "place": (5, 8), "n1": (8,), "qkv": (8, 24), "qkv_b": (24,), "o": (8, 8),
     "n2": (8,), "up": (8, 12), "up_b": (12,), "down": (12, 8), "n3": (8,)},
    (5,), [(8, 0), (2, 0), (4, 2), (4, 2), (12, 0)], 11,
)  # fmt: skip
def gpt2(w: Any, x: Any) -> Any:
    """Learned positions, fused projections, a tied embedding."""
    h = w["embed"][x] + w["place"][None]
    qkv = layer_norm(h, w["n1"]) @ w["qkv"] + along(h, w["qkv_b"])
    q, k, v = (z.reshape(*h.shape[:2], 2, 4) for z in jnp.split(qkv, 3, -1))
    h = h + attend(q, k, v, causal_mask) @ w["o"]
    h = h + jax.nn.gelu(layer_norm(h, w["n2"]) @ w["up"] + along(h, w["up_b"])) @ w["down"]
    return layer_norm(h, w["n3"]) @ w["embed"].T


@architecture(
    {"embed": (11, 8), "n1": (8,), "q": (8, 16), "k": (8, 8), "v": (8, 8), "o": (16, 8),
     "n2": (8,), "gate": (8, 12), "up": (8, 12), "down": (12, 8), "n3": (8,), "head": (8, 11)},
    (5,), [(8, 0), (2, 0), (2, 2), (4, 2), (12, 0)], 11,
)  # fmt: skip
def llama(w: Any, x: Any) -> Any:
    """RMSNorm, grouped queries, half-split rotary embedding, SwiGLU."""
    h = w["embed"][x]
    z = rms_norm(h, w["n1"])
    q, k, v = (heads(z, w[name], n) for name, n in (("q", 4), ("k", 2), ("v", 2)))
    q, k = rotary_halves(q), rotary_halves(k)
    k, v = (jnp.repeat(part, 2, 2) for part in (k, v))
    h = h + attend(q, k, v, causal_mask) @ w["o"]
    z = rms_norm(h, w["n2"])
    h = h + (jax.nn.silu(z @ w["gate"]) * (z @ w["up"])) @ w["down"]
    return rms_norm(h, w["n3"]) @ w["head"]


@architecture(
    {"embed": (11, 8), "n1": (8,), "q": (8, 2, 4), "kv": (2, 8, 1, 4), "o": (2, 4, 8),
     "post": (8,), "n2": (8,), "gates": (2, 8, 12), "down": (12, 8), "n3": (8,)},
    (5,), [(8, 0), (2, 0), (4, 0), (12, 0)], 11,
)  # fmt: skip
def gemma(w: Any, x: Any) -> Any:
    """Interleaved rotary embedding, one key and value head, soft caps, stacked weights."""
    h = w["embed"][x] * 8**0.5
    z = rms_norm(h, w["n1"])
    q = jnp.einsum("btd,dhk->bthk", z, w["q"])
    k, v = jnp.einsum("btd,sdhk->sbthk", z, w["kv"])
    q, k = rotary_pairs(q), rotary_pairs(k)
    k, v = (jnp.repeat(part, 2, 2) for part in (k, v))
    cap = lambda s: causal_mask(jnp.tanh(s / 50) * 50)  # noqa: E731
    z = attend(q, k, v, cap).reshape(*h.shape[:2], 2, 4)
    h = h + rms_norm(jnp.einsum("bthk,hkd->btd", z, w["o"]), w["post"])
    z = rms_norm(h, w["n2"])
    gate, up = jnp.einsum("btd,sdf->sbtf", z, w["gates"])
    h = h + (jax.nn.gelu(gate) * up) @ w["down"]
    return jnp.tanh(rms_norm(h, w["n3"]) @ w["embed"].T / 30) * 30


@architecture(
    {"embed": (11, 8), "n1": (8,), "q": (8, 8), "k": (8, 8), "v": (8, 8), "o": (8, 8),
     "bias": (6, 2), "n2": (8,), "wi": (8, 12), "wo": (12, 8), "n3": (8,)},
    (5,), [(8, 0), (2, 0), (4, 2), (4, 2), (12, 0)], 11,
)  # fmt: skip
def t5(w: Any, x: Any) -> Any:
    """Relative position biases in buckets, one per head; no other biases."""
    h = w["embed"][x]
    z = rms_norm(h, w["n1"])
    q, k, v = (heads(z, w[name], 2) for name in "qkv")
    apart = jnp.abs(jnp.arange(5)[:, None] - jnp.arange(5)[None])
    bias = w["bias"][jnp.minimum(apart, 5)].transpose(2, 0, 1)[None]
    h = h + attend(q, k, v, lambda s: s + bias) @ w["o"]
    h = h + jax.nn.relu(rms_norm(h, w["n2"]) @ w["wi"]) @ w["wo"]
    return (rms_norm(h, w["n3"]) * 8**-0.5) @ w["embed"].T


@architecture(
    {"embed": (11, 8), "n1": (8,), "q": (8, 8), "k": (8, 8), "v": (8, 8), "o": (8, 8),
     "n2": (8,), "router": (8, 4), "w1": (4, 8, 6), "w3": (4, 8, 6), "w2": (4, 6, 8),
     "n3": (8,), "head": (8, 11)},
    (5,), [(8, 0), (2, 0), (4, 2), (4, 0), (6, 4)], 11,
)  # fmt: skip
def mixtral(w: Any, x: Any) -> Any:
    """The two best of four experts, mixed by the softmax of their logits."""
    h = w["embed"][x]
    z = rms_norm(h, w["n1"])
    q, k, v = (heads(z, w[name], 2) for name in "qkv")
    h = h + attend(rotary_halves(q), rotary_halves(k), v, causal_mask) @ w["o"]
    z = rms_norm(h, w["n2"])
    best, chosen = lax.top_k(z @ w["router"], 2)
    gate = jnp.einsum("btk,btke->bte", jax.nn.softmax(best), jax.nn.one_hot(chosen, 4))
    up = jax.nn.silu(jnp.einsum("btd,edf->btef", z, w["w1"])) * jnp.einsum(
        "btd,edf->btef", z, w["w3"]
    )
    h = h + jnp.einsum("bte,btef,efd->btd", gate, up, w["w2"])
    return rms_norm(h, w["n3"]) @ w["head"]


@architecture(
    {"patch": (12, 8), "token_up": (4, 7), "token_down": (7, 4), "up": (8, 12), "down": (12, 8),
     "n1": (8,), "n2": (8,), "out": (8, 5)},
    (4, 4, 3), [(8, 0), (7, 0), (12, 0)],
)  # fmt: skip
def mlp_mixer(w: Any, x: Any) -> Any:
    """MLPs over patches and over channels, in turns."""
    h = x.reshape(len(x), 2, 2, 2, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(len(x), 4, 12)
    h = h @ w["patch"]
    z = layer_norm(h, w["n1"]).swapaxes(1, 2)
    h = h + (jax.nn.gelu(z @ w["token_up"]) @ w["token_down"]).swapaxes(1, 2)
    h = h + jax.nn.gelu(layer_norm(h, w["n2"]) @ w["up"]) @ w["down"]
    return h.mean(1) @ w["out"]


@architecture(
    {"embed": (3, 8), "latents": (6, 10), "q": (10, 8), "k": (8, 8), "v": (8, 8), "o": (8, 10),
     "qkv": (10, 24), "o2": (8, 10), "up": (10, 12), "down": (12, 10), "n1": (10,), "n2": (10,),
     "query": (1, 8), "k3": (10, 8), "v3": (10, 7), "out": (7, 5)},
    (9, 3), [(8, 0), (6, 0), (10, 0), (2, 0), (4, 2), (4, 2), (2, 0), (4, 2), (4, 2), (12, 0),
             (8, 0), (7, 0)],
)  # fmt: skip
def perceiver(w: Any, x: Any) -> Any:
    """Latents that read the input, attend to each other, and are read by one query."""
    t = x @ w["embed"]
    h = jnp.broadcast_to(w["latents"][None], (len(x), 6, 10))
    q, k, v = heads(h, w["q"], 2), heads(t, w["k"], 2), heads(t, w["v"], 2)
    h = h + attend(q, k, v) @ w["o"]
    qkv = layer_norm(h, w["n1"]) @ w["qkv"]
    q, k, v = (z.reshape(*z.shape[:2], 2, 4) for z in jnp.split(qkv, 3, -1))
    h = h + attend(q, k, v) @ w["o2"]
    h = h + jax.nn.gelu(layer_norm(h, w["n2"]) @ w["up"]) @ w["down"]
    a = jax.nn.softmax(jnp.einsum("qd,bld->bql", w["query"], h @ w["k3"]))
    return jnp.einsum("bql,bld->bqd", a, h @ w["v3"])[:, 0] @ w["out"]


# -- recurrences, sets, graphs, fields -------------------------------------------------------------


@architecture(
    {"embed": (11, 6), "inward": (6, 24), "conv": (3, 12), "x_proj": (12, 14), "dt": (4, 12),
     "dt_b": (12,), "a_log": (12, 5), "d": (12,), "outward": (12, 6), "norm": (6,)},
    (7,), [(6, 0), (12, 0), (4, 0), (5, 0)], 11,
)  # fmt: skip
def mamba(w: Any, x: Any) -> Any:
    """Selective state space: gates, a causal depthwise convolution, and a scan over time."""
    h = w["embed"][x]
    u, z = jnp.split(rms_norm(h, w["norm"]) @ w["inward"], 2, -1)
    padded = jnp.pad(u, ((0, 0), (2, 0), (0, 0)))
    u = jax.nn.silu(sum(padded[:, i : i + 7] * along(u, w["conv"][i]) for i in range(3)))
    dt, b, c = jnp.split(u @ w["x_proj"], [4, 9], -1)
    dt = jax.nn.softplus(dt @ w["dt"] + along(u, w["dt_b"]))
    decay = jnp.exp(-jnp.exp(w["a_log"])[None, None] * dt[..., None])
    drive = (dt * u)[..., None] * b[:, :, None]

    def step(state: Any, now: Any) -> Any:
        decay, drive, c = now
        state = decay * state + drive
        return state, jnp.einsum("bdn,bn->bd", state, c)

    swap = lambda a: jnp.swapaxes(a, 0, 1)  # noqa: E731
    _, y = lax.scan(step, jnp.zeros((len(x), 12, 5)), tuple(map(swap, (decay, drive, c))))
    y = (swap(y) + u * along(u, w["d"])) * jax.nn.silu(z)
    return (h + y @ w["outward"]) @ w["embed"].T


@architecture(
    {"embed": (11, 6), "wx": (6, 28), "wh": (7, 28), "b": (28,), "wx2": (7, 20), "wh2": (5, 20),
     "b2": (20,), "out": (5, 11)},
    (6,), [(6, 0), (7, 0), (5, 0)], 11,
)  # fmt: skip
def lstm_language_model(w: Any, x: Any) -> Any:
    """Two LSTM layers with all gates in one kernel."""
    h = jnp.swapaxes(w["embed"][x], 0, 1)
    for wx, wh, b, n in (("wx", "wh", "b", 7), ("wx2", "wh2", "b2", 5)):

        def cell(carry: Any, now: Any, wx: Any = wx, wh: Any = wh, b: Any = b) -> Any:
            c, s = carry
            i, f, g, o = jnp.split(now @ w[wx] + s @ w[wh] + along(s, w[b]), 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            s = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (c, s), s

        zero = jnp.zeros((len(x), n))
        _, h = lax.scan(cell, (zero, zero), h)
    return jnp.swapaxes(h, 0, 1) @ w["out"]


@architecture(
    {"t1": (3, 6), "t2": (6, 9), "one": (3, 7), "two": (7, 9), "three": (9, 8), "out": (8, 5)},
    (10, 3), [(6, 0), (3, 0), (7, 0), (9, 0), (8, 0)],
)  # fmt: skip
def pointnet(w: Any, x: Any) -> Any:
    """A learned transform of the points, the same MLP for each, and a maximum over them."""
    turn = jax.nn.relu(x @ w["t1"]).max(1) @ w["t2"]
    x = jnp.einsum("bpi,bij->bpj", x, turn.reshape(-1, 3, 3))
    h = jax.nn.relu(jax.nn.relu(x @ w["one"]) @ w["two"]).max(1)
    return jax.nn.relu(h @ w["three"]) @ w["out"]


EDGES = np.array([[0, 1], [1, 2], [2, 3], [3, 0], [0, 2]])


@architecture(
    {"g0": (3, 6), "eps": (), "m1": (6, 7), "m2": (7, 8), "out": (8, 5)},
    (4, 3), [(6, 0), (7, 0), (8, 0)],
)  # fmt: skip
def gin_gcn(w: Any, x: Any) -> Any:
    """A graph convolution with degrees, then a graph isomorphism layer; sums over segments."""
    source, to = EDGES.T
    degree = np.bincount(to, minlength=4) + 1.0

    def gather(h: Any) -> Any:
        return jax.vmap(lambda z: jax.ops.segment_sum(z[source], to, 4))(h)

    h = x @ w["g0"]
    h = jax.nn.relu((gather(h) + h) / degree.astype(np.float32)[None, :, None])
    h = jax.nn.relu(((1 + w["eps"]) * h + gather(h)) @ w["m1"])
    return jnp.tanh(h @ w["m2"]).sum(1) @ w["out"]


@architecture(
    {"one": (15, 8), "two": (8, 8), "three": (23, 8), "sigma": (8, 1), "feature": (8, 6),
     "view": (9, 7), "out": (7, 3)},
    (6,), [(8, 0), (8, 0), (8, 0), (6, 0), (7, 0)],
)  # fmt: skip
def nerf(w: Any, x: Any) -> Any:
    """Positional encoding, a skip of the input, density and a colour that depends on the view."""
    place, view = x[:, :3], x[:, 3:]
    waves = [f(2.0**i * place) for i in range(2) for f in (jnp.sin, jnp.cos)]
    code = jnp.concatenate([place, *waves], -1)
    h = jax.nn.relu(jax.nn.relu(code @ w["one"]) @ w["two"])
    h = jax.nn.relu(jnp.concatenate([code, h], -1) @ w["three"])
    sigma = jax.nn.relu(h @ w["sigma"])
    z = jax.nn.relu(jnp.concatenate([h @ w["feature"], view], -1) @ w["view"])
    return jnp.concatenate([jax.nn.sigmoid(z @ w["out"]), sigma], -1)


# -- what is asked of each -------------------------------------------------------------------------


def groups_of(spec: Any) -> collections.Counter[tuple[int, int]]:
    """(units, units of the parent or 0) of every group of a spec."""
    sizes = {group.name: group.size for group in spec.groups}
    return collections.Counter((g.size, sizes.get(g.parent, 0)) for g in spec.groups)


def brought_back(architecture: Architecture, spec: Any, seed: int, noise: float) -> bool:
    """Whether weight matching is as near as the planted permutation's inverse, or nearer."""
    from llfc_jax.matching import weight_matching

    a = architecture.variables(seed)
    rng = np.random.default_rng(seed)
    planted = {
        group.name: rng.permuted(
            np.zeros(spec.shape(group.name), int) + np.arange(group.size), axis=-1
        )
        for group in spec.groups
    }
    b = {name: np.asarray(v) + noise * np.std(v) * rng.normal(size=np.shape(v)).astype("f4")
         for name, v in spec.apply(planted, a).items()}  # fmt: skip
    found = weight_matching(jax.random.key(seed), spec, a, b).permutation

    def left(permutation: Any) -> float:
        back = spec.apply({name: np.asarray(p) for name, p in permutation.items()}, b)
        return sum(float(np.sum((np.asarray(back[name]) - a[name]) ** 2)) for name in a)

    return left(found) <= left(spec.invert(planted)) * (1 + 1e-4) + 1e-9


def main() -> None:
    """Print what is found of each architecture."""
    from llfc_jax.symmetry import check, permutation_spec

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(ARCHITECTURES))
    parser.add_argument("--tries", type=int, default=0)
    parser.add_argument("--noise", type=float, default=1e-3)
    options = parser.parse_args()
    for name in options.names:
        net, started = ARCHITECTURES[name], time.perf_counter()
        spec = permutation_spec(net.apply, net.variables(), net.batch())
        right = groups_of(spec) == collections.Counter(net.groups)
        words = f"{name:20} groups {'right' if right else f'WRONG {groups_of(spec)}'}"
        words += f", derived in {time.perf_counter() - started:.2f} s"
        words += f", change {check(spec, net.apply, net.variables(), net.batch()):.0e}"
        if options.tries:
            back = sum(brought_back(net, spec, s, options.noise) for s in range(options.tries))
            words += f", brought back {back} of {options.tries}"
        print(words, flush=True)
        if not right:
            print(spec.explain())


if __name__ == "__main__":
    main()
