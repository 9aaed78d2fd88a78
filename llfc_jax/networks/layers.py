"""Normalisation by name and initial weights for ReLU, for the convolutional networks."""

from collections.abc import Callable
from typing import Literal

import jax
from flax import linen as nn
from jax.typing import DTypeLike

Norm = Literal["none", "batch", "layer"]

# He et al. 2015, "Delving deep into rectifiers": keeps the variance through ReLU layers.
he = nn.initializers.he_normal()


def norm(
    kind: Norm, train: bool, dtype: DTypeLike | None, name: str
) -> Callable[[jax.Array], jax.Array]:
    """Returns a normalisation over the channels, the last axis.

    "batch" keeps running statistics with momentum 0.9 (0.1 as PyTorch counts it) and uses them
    unless `train`; "layer" normalises each position's channels; "none" does nothing.
    """
    if kind == "batch":
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=dtype, name=name)
    if kind == "layer":
        return nn.LayerNorm(dtype=dtype, name=name)
    return lambda x: x


def scaled(channels: int, width: float) -> int:
    """Returns a number of channels times a width multiplier, at least 1."""
    return max(1, round(channels * width))
