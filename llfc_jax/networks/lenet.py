"""LeNet-5 with ReLU and max pooling: S2 of the paper."""

from typing import Any

import jax
from flax import linen as nn

from llfc_jax.errors import DataError
from llfc_jax.networks.registry import network


@network("lenet5")
class LeNet5(nn.Module):
    """Convolutions 6@5x5 (padded by 2) and 16@5x5 (unpadded), pooling, then 120-84-classes.

    Reference: LeCun et al. 1998, "Gradient-based learning applied to document recognition".

    Attributes:
        classes: number of logits.
        dtype: compute type; parameters stay float32.
    """

    classes: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits [n, classes] of x [n, h, w, c], h and w at least 12."""
        if x.ndim != 4 or min(x.shape[1:3]) < 12:
            raise DataError(
                f"lenet5 needs images [h, w, c] of at least 12x12, not {x.shape[1:]}; "
                "pad them (data.pad_to) or take another network"
            )
        x = nn.relu(nn.Conv(6, (5, 5), padding=2, dtype=self.dtype)(x))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Conv(16, (5, 5), padding="VALID", dtype=self.dtype)(x))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape(len(x), -1)
        x = nn.relu(nn.Dense(120, dtype=self.dtype)(x))
        x = nn.relu(nn.Dense(84, dtype=self.dtype)(x))
        return nn.Dense(self.classes, dtype=self.dtype)(x)
