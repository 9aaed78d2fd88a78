"""One small convolutional network, written in four ways, and its weights for each of them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

SHAPE = (5, 6, 6, 2)
HIDDEN, CLASSES, CHANNELS = 7, 3, 4


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.relu(linen.Conv(CHANNELS, (3, 3), name="conv")(x))
        x = x.reshape(len(x), -1)
        x = linen.relu(linen.Dense(HIDDEN, name="hidden")(x))
        return linen.Dense(CLASSES, name="out")(x)


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(SHAPE[-1], CHANNELS, (3, 3), rngs=rngs)
        self.hidden = nnx.Linear(36 * CHANNELS, HIDDEN, rngs=rngs)
        self.out = nnx.Linear(HIDDEN, CLASSES, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.conv(x))
        return self.out(nnx.relu(self.hidden(x.reshape(len(x), -1))))


class Eqx(eqx.Module):
    """Equinox's own layout: channels first, one sample at a time."""

    conv: eqx.nn.Conv2d
    hidden: eqx.nn.Linear
    out: eqx.nn.Linear

    def __init__(self) -> None:
        keys = jax.random.split(jax.random.key(0), 3)
        self.conv = eqx.nn.Conv2d(SHAPE[-1], CHANNELS, 3, padding=1, key=keys[0])
        self.hidden = eqx.nn.Linear(36 * CHANNELS, HIDDEN, key=keys[1])
        self.out = eqx.nn.Linear(HIDDEN, CLASSES, key=keys[2])

    def __call__(self, x: Any) -> Any:
        x = jax.nn.relu(self.conv(x.transpose(2, 0, 1)))
        x = x.transpose(1, 2, 0).reshape(-1)  # flattened as the others flatten
        return self.out(jnp.maximum(self.hidden(x), 0))


def plain_dict(w: Any, x: Any) -> Any:
    x = jax.lax.conv_general_dilated(
        x, w["conv"]["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = jnp.maximum(x + w["conv"]["b"][None, None, None], 0).reshape(len(x), -1)
    x = jnp.maximum(0, x @ w["hidden"]["w"] + w["hidden"]["b"][None])
    return x @ w["out"]["w"] + w["out"]["b"][None]


def plain_list(w: Any, x: Any) -> Any:
    """A list of (weight, bias), with the ReLU written as `jax.nn.relu`."""
    x = jax.lax.conv_general_dilated(
        x, w[0][0], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = jax.nn.relu(x + w[0][1][None, None, None]).reshape(len(x), -1)
    x = jax.nn.relu(x @ w[1][0] + w[1][1][None])
    return x @ w[2][0] + w[2][1][None]


LAYERS = ("conv", "hidden", "out")
# Site names in each of them, in order; those of a list come from the places in it.
SITES = ("conv", "conv.relu", "hidden", "hidden.relu", "out")
LIST_SITES = ("0", "0.relu", "1", "1.relu", "2")


def batch(seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(100 + seed), SHAPE)


def weights(seed: int = 0) -> dict[str, tuple[jax.Array, jax.Array]]:
    """(kernel, bias) of each layer, drawn independently of any framework."""
    rng = np.random.default_rng(seed)
    shapes = ((3, 3, SHAPE[-1], CHANNELS), (36 * CHANNELS, HIDDEN), (HIDDEN, CLASSES))
    return {
        name: (
            jnp.asarray(rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])), jnp.float32),
            jnp.asarray(rng.normal(size=shape[-1]) / 4, jnp.float32),
        )
        for name, shape in zip(LAYERS, shapes, strict=True)
    }


def networks(seed: int = 0) -> dict[str, tuple[Any, Any, tuple[str, ...]]]:
    """(apply, variables, site names) of the same network in every framework."""
    w = weights(seed)
    linen_variables = {"params": {n: {"kernel": k, "bias": b} for n, (k, b) in w.items()}}

    graphdef, state = nnx.split(Nnx(nnx.Rngs(0)))
    for name, (kernel, bias) in w.items():
        state[name]["kernel"][...] = kernel
        state[name]["bias"][...] = bias

    torch_like = {
        "conv": (w["conv"][0].transpose(3, 2, 0, 1), w["conv"][1][:, None, None]),
        "hidden": (w["hidden"][0].T, w["hidden"][1]),
        "out": (w["out"][0].T, w["out"][1]),
    }
    model = eqx.tree_at(
        lambda m: [getattr(m, n).weight for n in LAYERS] + [getattr(m, n).bias for n in LAYERS],
        Eqx(),
        [torch_like[n][0] for n in LAYERS] + [torch_like[n][1] for n in LAYERS],
    )
    arrays, static = eqx.partition(model, eqx.is_array)
    return {
        "linen": (Linen().apply, linen_variables, SITES),
        "nnx": (lambda s, x: nnx.merge(graphdef, s)(x), state, SITES),
        "equinox": (lambda m, x: jax.vmap(eqx.combine(m, static))(x), arrays, SITES),
        "dict": (plain_dict, {n: {"w": k, "b": b} for n, (k, b) in w.items()}, SITES),
        "list": (plain_list, [w[n] for n in LAYERS], LIST_SITES),
    }


def by_hand(seed: int, x: Any) -> list[np.ndarray]:
    """Features at the sites, channels last, in float64 NumPy without any framework."""
    w = {n: tuple(np.asarray(p, np.float64) for p in pair) for n, pair in weights(seed).items()}
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel, bias = w["conv"]
    conv = bias + sum(
        padded[:, i : i + 6, j : j + 6] @ kernel[i, j] for i in range(3) for j in range(3)
    )
    rectified = np.maximum(conv, 0)
    hidden = rectified.reshape(len(x), -1) @ w["hidden"][0] + w["hidden"][1]
    on = np.maximum(hidden, 0)
    return [conv, rectified, hidden, on, on @ w["out"][0] + w["out"][1]]
