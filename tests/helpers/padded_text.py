"""Texts of several lengths, padded, and a network that mixes what is no padding."""

import jax
import jax.numpy as jnp
import numpy as np


def attend(w, x):
    """A token's own features, and the mean of those that are no padding, in every block."""
    ids, mask = x["input_ids"], x["attention_mask"][..., None].astype(jnp.float32)
    h = w["embed"][ids]
    mean = (h * mask).sum(1, keepdims=True) / mask.sum(1, keepdims=True)
    h = h + jnp.tanh((h + mean) @ w["in"]) @ w["back"]
    return jax.nn.relu(h @ w["wide"]) @ w["out"]


def language_weights(seed):
    rng = np.random.default_rng(seed)
    shapes = {"embed": (9, 6), "in": (6, 5), "back": (5, 6), "wide": (6, 8), "out": (8, 9)}
    return {k: rng.normal(size=s).astype(np.float32) / 2 for k, s in shapes.items()}


def padded(n=10, length=6, to=12):
    """Texts of several lengths, padded to the longest or to twice as much."""
    rng = np.random.default_rng(5)
    ids, labels = rng.integers(0, 9, (2, n, length))
    mask = np.arange(length) < rng.integers(2, length + 1, n)[:, None]
    mask[0] = True
    fill = ((0, 0), (0, to - length))
    ids, mask = np.pad(ids, fill, constant_values=7), np.pad(mask, fill)
    labels = np.where(mask, np.pad(labels, fill), -100)
    return [
        {
            "input_ids": ids[i : i + 4],
            "attention_mask": mask[i : i + 4],
            "labels": labels[i : i + 4],
        }
        for i in range(0, n, 4)
    ]
