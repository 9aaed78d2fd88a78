"""A small U-Net: an output for every pixel."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from llfc_jax.errors import DataError
from llfc_jax.networks.registry import network


@network("unet")
class UNet(nn.Module):
    """Convolutions on the way down and up, with shortcuts between equal sizes; ReLU, no norm.

    Reference: Ronneberger, Fischer, Brox 2015, "U-Net".

    Attributes:
        classes: number of logits of each pixel.
        widths: channels at each size, from the image's down; each size is half the one before.
        dtype: compute type; parameters stay float32.
    """

    classes: int
    widths: tuple[int, ...] = (16, 32)
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], train: bool = False
    ) -> Float[Array, "n h w classes"]:
        """Logits [n, h, w, classes] of x [n, h, w, c]."""
        factor = 2 ** (len(self.widths) - 1)
        if x.ndim != 4 or x.shape[1] % factor or x.shape[2] % factor:
            raise DataError(
                f"unet needs images [h, w, c] whose sides are multiples of {factor}, "
                f"not {x.shape[1:]}; pad them (data.pad_to)"
            )

        def convolve(x: jax.Array, width: int, name: str) -> jax.Array:
            return nn.relu(nn.Conv(width, (3, 3), dtype=self.dtype, name=name)(x))

        *above, lowest = self.widths
        kept = []
        for level, width in enumerate(above):
            x = convolve(x, width, f"down{level}")
            kept.append(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = convolve(x, lowest, "bottom")
        for level in reversed(range(len(above))):
            x = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
            x = convolve(jnp.concatenate([x, kept[level]], -1), above[level], f"up{level}")
        return nn.Conv(self.classes, (1, 1), dtype=self.dtype, name="head")(x)
