"""VGG for small images: S3 of the paper."""

from typing import Any, Literal

import jax
from flax import linen as nn

from llfc_jax.errors import DataError
from llfc_jax.networks.layers import Norm, he, norm, scaled
from llfc_jax.networks.registry import network

# Convolutions in each of the five stages of 64, 128, 256, 512 and 512 channels.
STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


@network("vgg")
class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each followed by 2x2 max pooling, then dense layers.

    Reference: Simonyan and Zisserman 2015, "Very deep convolutional networks for large-scale
    image recognition"; on 32x32 images the last stage leaves one position.

    Attributes:
        classes: number of logits.
        depth: layers with weights, by the name of the variant with two hidden dense layers.
        norm: normalisation after each convolution.
        width: multiplies all channels and hidden units; 0.125 for an eighth.
        hidden: units of the hidden dense layers, before `width`: (4096, 4096) is the paper's head,
            (512, 512) that of Git Re-Basin, () a single dense layer.
        dropout: rate after each hidden dense layer, in training.
        dtype: compute type; parameters stay float32.
    """

    classes: int
    depth: Literal[11, 13, 16, 19] = 16
    norm: Norm = "none"
    width: float = 1.0
    hidden: tuple[int, ...] = (4096, 4096)
    dropout: float = 0.5
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits [n, classes] of x [n, h, w, c], h and w at least 32."""
        if x.ndim != 4 or min(x.shape[1:3]) < 32:
            raise DataError(
                f"vgg needs images [h, w, c] of at least 32x32, not {x.shape[1:]}; "
                "pad them (data.pad_to) or take another network"
            )
        layer = 0
        for stage, convolutions in enumerate(STAGES[self.depth]):
            channels = scaled(64 * 2 ** min(stage, 3), self.width)
            for _ in range(convolutions):
                convolution = nn.Conv(
                    channels,
                    (3, 3),
                    padding=1,
                    kernel_init=he,
                    dtype=self.dtype,
                    name=f"Conv_{layer}",
                )
                x = norm(self.norm, train, self.dtype, f"Norm_{layer}")(convolution(x))
                x = nn.relu(x)
                layer += 1
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape(len(x), -1)
        for units in self.hidden:
            x = nn.Dense(scaled(units, self.width), kernel_init=he, dtype=self.dtype)(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
        return nn.Dense(self.classes, dtype=self.dtype)(x)
