"""Small networks that between them use every way in which axes are tied."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

SHAPE = (8, 8, 3)
CLASSES = 5
NORMS: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: nn.BatchNorm(use_running_average=True),
    "layer": nn.LayerNorm,
    "group": lambda: nn.GroupNorm(2),
}


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x.reshape(len(x), -1)
        for n in (16, 12):
            x = nn.relu(nn.Dense(n)(x))
        return nn.Dense(CLASSES)(x)


class Flat(nn.Module):
    """Convolutions, pooling, and a dense layer after a flattened feature map."""

    @nn.compact
    def __call__(self, x):
        for n in (6, 8):
            x = nn.max_pool(nn.relu(nn.Conv(n, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Dense(10)(x.reshape(len(x), -1)))
        return nn.Dense(CLASSES)(x)


class Block(nn.Module):
    channels: int
    stride: int
    norm: str
    shortcut: str

    @nn.compact
    def __call__(self, x):
        norm, strides = NORMS[self.norm], (self.stride, self.stride)
        y = nn.relu(norm()(nn.Conv(self.channels, (3, 3), strides, use_bias=False)(x)))
        y = norm()(nn.Conv(self.channels, (3, 3), use_bias=False)(y))
        if x.shape != y.shape and self.shortcut == "pad":
            more = self.channels - x.shape[-1]
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)))
        elif x.shape != y.shape:
            x = norm()(nn.Conv(self.channels, (1, 1), strides)(x))
        return nn.relu(x + y)


class Residual(nn.Module):
    norm: str = "batch"
    shortcut: str = "pad"

    @nn.compact
    def __call__(self, x):
        x = nn.relu(NORMS[self.norm]()(nn.Conv(4, (3, 3))(x)))
        for channels, stride in ((4, 1), (8, 2)):
            x = Block(channels, stride, self.norm, self.shortcut)(x)
        return nn.Dense(CLASSES)(x.mean((1, 2)))


class Transformer(nn.Module):
    """A class token, learned positions, pre-norm attention with Flax's (dim, heads, width)."""

    heads: int = 3

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(12, (4, 4), (4, 4))(x).reshape(len(x), -1, 12)
        token = self.param("token", nn.initializers.normal(), (1, 1, 12))
        x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), x], 1)
        x = x + self.param("position", nn.initializers.normal(), (1, x.shape[1], 12))
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads)(y)
        x = x + nn.Dense(12)(nn.gelu(nn.Dense(14)(nn.LayerNorm()(x))))
        return nn.Dense(CLASSES)(nn.LayerNorm()(x)[:, 0])


class Fused(nn.Module):
    """One projection for queries, keys and values, split afterwards."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(12)(x.reshape(len(x), 16, -1))
        q, k, v = (
            part.reshape(*part.shape[:-1], 3, 4) for part in jnp.split(nn.Dense(36)(x), 3, -1)
        )
        weight = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k))
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weight, v)
        x = x + nn.Dense(12)(mixed.reshape(len(x), 16, 12))
        return nn.Dense(CLASSES)(x.mean(1))


class Grouped(nn.Module):
    """Depthwise and grouped convolutions, concatenation, average pooling."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (1, 1))(x))
        x = nn.relu(nn.Conv(6, (3, 3), feature_group_count=6)(x))
        x = nn.relu(nn.Conv(8, (3, 3), feature_group_count=2)(x))
        x = jnp.concatenate([x, nn.relu(nn.Conv(5, (3, 3))(x))], -1)
        x = nn.avg_pool(nn.relu(nn.Conv(7, (1, 1))(x)), (2, 2), (2, 2))
        return nn.Dense(CLASSES)(x.reshape(len(x), -1))


class Excited(nn.Module):
    """Squeeze-and-excitation, transposed convolution, resizing, a gated unit, roll, embedding."""

    @nn.compact
    def __call__(self, x):
        ids = (jnp.abs(x.reshape(len(x), -1)[:, :4]) * 3).astype(int) % 11
        words = nn.Embed(11, 6)(ids).mean(1)
        x = nn.relu(nn.Conv(8, (3, 3))(x))
        gate = nn.sigmoid(nn.Dense(8)(nn.relu(nn.Dense(4)(x.mean((1, 2))))))
        x = x * gate[:, None, None]
        x = nn.relu(nn.ConvTranspose(6, (2, 2), (2, 2))(x))
        x = jax.image.resize(x, (len(x), 4, 4, 6), "bilinear").mean((1, 2))
        x = nn.glu(nn.Dense(12)(x)) + words
        x = x + nn.Dense(6)(nn.softmax(x))
        return nn.Dense(CLASSES)(nn.relu(nn.Dense(6)(x)) + jnp.roll(nn.Dense(6)(x), 1, -1))


class Unruly(nn.Module):
    """What may not be permuted: sorting, running sums, a scan, a spectrum."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(8, name="sorted")(x.reshape(len(x), -1)))
        x = nn.relu(nn.Dense(9, name="free")(jnp.sort(x, -1)))
        x = jnp.cumsum(nn.Dense(6, name="summed")(x), -1)
        x = jnp.abs(jnp.fft.rfft(nn.Dense(6, name="spectral")(x)))
        x = nn.RNN(nn.SimpleCell(4))(nn.Dense(4, name="stepped")(x)[:, None])
        return nn.Dense(CLASSES)(x[:, 0])


ZOO: dict[str, nn.Module] = {
    "dense": Dense(),
    "flat": Flat(),
    "residual_batch": Residual(),
    "residual_layer": Residual("layer", "conv"),
    "residual_group": Residual("group"),
    "transformer": Transformer(),
    "fused": Fused(),
    "grouped": Grouped(),
    "excited": Excited(),
    "unruly": Unruly(),
}


def batch(seed: int = 1, samples: int = 3) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (samples, *SHAPE))


def variables(name: str, seed: int = 0) -> Any:
    """Random variables in which no two units are alike: biases, scales, statistics too."""
    shapes = jax.eval_shape(ZOO[name].init, jax.random.key(0), batch())
    return drawn(shapes, seed)


def drawn(shapes: Any, seed: int) -> Any:
    """A tree of these shapes: weights of unit gain, scales and variances about 1."""
    rng = np.random.default_rng(seed)

    def one(path: Any, leaf: Any) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/").rpartition("/")[2]
        noise = rng.normal(size=leaf.shape)
        if name in ("scale", "var"):
            noise = 1 + 0.5 * np.abs(noise)
        elif len(leaf.shape) > 1:
            noise = noise * np.sqrt(2 / np.prod(leaf.shape[:-1]))
        else:
            noise = 0.3 * noise
        return jnp.asarray(noise, jnp.float32)

    return jax.tree_util.tree_map_with_path(one, shapes)


def shaken(tree: Any, by: float, seed: int) -> Any:
    """The tree with noise of standard deviation `by`."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + jnp.asarray(by * rng.normal(size=p.shape), p.dtype), tree)


def equal(p: Any, q: Any) -> bool:
    """Whether two permutations are the same."""
    return set(p) == set(q) and all(np.array_equal(p[name], q[name]) for name in p)
