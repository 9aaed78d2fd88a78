"""Multilayer perceptron: S1, P1 and P2 of the paper."""

from typing import Any

import jax
from flax import linen as nn

from llfc_jax.networks.registry import network


@network("mlp")
class MLP(nn.Module):
    """Dense layers with ReLU between them, on the flattened input.

    Attributes:
        classes: number of logits.
        widths: hidden units per layer.
        dtype: compute type; parameters stay float32.
    """

    classes: int
    widths: tuple[int, ...] = (512, 512, 512)
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits [n, classes] of x [n, ...]."""
        x = x.reshape(len(x), -1)
        for width in self.widths:
            x = nn.relu(nn.Dense(width, dtype=self.dtype)(x))
        return nn.Dense(self.classes, dtype=self.dtype)(x)
