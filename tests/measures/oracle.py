"""Small networks in JAX, and everything that is measured of them in float64 NumPy.

The two share no code: a convolution here is a sum over its taps, there one primitive.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Weights = Sequence[tuple[Any, Any]]
Batch = tuple[Any, Any]

MLP = ("dense", "dense", "dense")
CONVOLUTIONAL = ("conv", "pool", "dense", "dense")
CLASSES, UNITS = 4, 16
# The same grid and batch size in most tests: then each measure compiles once for a network.
ALPHAS = (0.0, 0.2, 0.5, 0.8, 1.0)
BATCH = 8


@functools.cache
def network(kinds: tuple[str, ...]) -> Callable[[Any, Any], Any]:
    """`apply` of a network: ReLU behind every layer but the last. One object, compiled once."""

    def apply(w: Weights, x: Any) -> Any:
        layers = iter(w)
        last = sum(kind != "pool" for kind in kinds) - 1
        number = -1
        for kind in kinds:
            if kind == "pool":
                x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).max((2, 4))
                continue
            kernel, bias = next(layers)
            number += 1
            if kind == "conv":
                x = jax.lax.conv_general_dilated(
                    x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
                x = x + bias[None, None, None]
            else:
                x = x.reshape(len(x), -1) @ kernel + bias[None]
            x = jax.nn.relu(x) if number < last else x
        return x

    return apply


def sites(kinds: Sequence[str]) -> list[str]:
    """Names of the sites, in order."""
    layers = sum(kind != "pool" for kind in kinds)
    names = [name for i in range(layers) for name in (str(i), f"{i}.relu")]
    return names[:-1]


def weights(kinds: tuple[str, ...], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights of random networks on inputs [n, 6] or [n, 6, 6, 2]."""
    rng = np.random.default_rng(seed)
    shapes = ((6, UNITS), (UNITS, UNITS), (UNITS, CLASSES))
    if kinds == CONVOLUTIONAL:
        shapes = ((3, 3, 2, 5), (20, 8), (8, CLASSES))
    return [
        (
            (rng.normal(size=s) * np.sqrt(2 / np.prod(s[:-1]))).astype(np.float32),
            (rng.normal(size=s[-1]) / 4).astype(np.float32),
        )
        for s in shapes
    ]


def scaled(w: Weights, scale: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights that make every feature `scale` times as large."""
    by = np.float32(scale)
    return [(kernel * by if i == 0 else kernel, bias * by) for i, (kernel, bias) in enumerate(w)]


def data(kinds: tuple[str, ...], n: int = 23, seed: int = 9) -> Batch:
    """Inputs and labels."""
    rng = np.random.default_rng(seed)
    shape = (n, 6, 6, 2) if kinds == CONVOLUTIONAL else (n, 6)
    return rng.normal(size=shape).astype(np.float32), rng.integers(0, CLASSES, n, np.int32)


def split(batch: Batch, size: int = BATCH) -> list[Batch]:
    """The data in batches of this size, the last one smaller."""
    x, y = batch
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


def wide(tree: Any) -> Any:
    return [tuple(np.asarray(part, np.float64) for part in layer) for layer in tree]


def mix(alpha: float, a: Any, b: Any) -> Any:
    """α a + (1 - α) b."""
    return [
        tuple(alpha * p + (1 - alpha) * q for p, q in zip(of_a, of_b, strict=True))
        for of_a, of_b in zip(wide(a), wide(b), strict=True)
    ]


def linear(kind: str, kernel: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A layer's product, without bias."""
    if kind == "dense":
        return x.reshape(len(x), -1) @ kernel
    h, w = x.shape[1] - kernel.shape[0] + 1, x.shape[2] - kernel.shape[1] + 1
    return np.sum(
        [
            x[:, i : i + h, j : j + w] @ kernel[i, j]
            for i in range(kernel.shape[0])
            for j in range(kernel.shape[1])
        ],
        axis=0,
    )


def run(
    kinds: Sequence[str], w: Any, x: Any, written: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Values at all sites, and what goes into layer i at `in i`; `written` overwrites sites."""
    written = written or {}
    x, w = np.asarray(x, np.float64), wide(w)
    values: dict[str, np.ndarray] = {}
    number = 0
    for kind in kinds:
        if kind == "pool":
            x = np.max([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0)
            continue
        kernel, bias = w[number]
        values[f"in {number}"] = x
        x = written.get(str(number), linear(kind, kernel, x) + bias)
        values[str(number)] = x
        if number < len(w) - 1:
            x = written.get(f"{number}.relu", np.maximum(x, 0))
            values[f"{number}.relu"] = x
        number += 1
    values["out"] = x
    return values


def flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def compare(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per row: 1 - cos, <u,v>/<v,v>, |u-v|²/(|u||v|); NaN where a row is zero."""
    u, v = flat(u), flat(v)
    lengths = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = (u * v).sum(1)
        return 1 - inner / lengths, inner / (v * v).sum(1), ((u - v) ** 2).sum(1) / lengths


def cross_entropy(logits: np.ndarray, y: np.ndarray) -> float:
    top = logits.max(1, keepdims=True)
    logs = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    return float(-logs[np.arange(len(y)), y].mean())


def error(logits: np.ndarray, y: np.ndarray) -> float:
    return float((logits.argmax(1) != y).mean())


def device(tree: Any) -> Any:
    return jax.tree.map(jnp.asarray, tree)
