"""Residual networks for ImageNet and for smaller images: S5 of the paper."""

from typing import Any, Literal

import jax
from flax import linen as nn
from jax.typing import DTypeLike

from llfc_jax.errors import DataError
from llfc_jax.networks.layers import Norm, he, norm, scaled
from llfc_jax.networks.registry import network

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class Block(nn.Module):
    """A residual block, plain (3x3, 3x3) or with a bottleneck (1x1, 3x3, 1x1 with 4 x channels).

    The stride stands in the first plain or in the bottleneck's 3x3 convolution (as torchvision).

    Attributes:
        channels: of the 3x3 convolutions.
        stride: of the block.
        bottleneck: which of the two.
        norm: normalisation after each convolution.
        dtype: compute type.
    """

    channels: int
    stride: int
    bottleneck: bool
    norm: Norm
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [n, h, w, c] to [n, h / stride, w / stride, channels (x 4)]."""
        c, s = self.channels, self.stride
        outputs = 4 * c if self.bottleneck else c
        plain = [(c, 3, s), (c, 3, 1)]
        layers = [(c, 1, 1), (c, 3, s), (outputs, 1, 1)] if self.bottleneck else plain
        y = x
        for number, (channels, size, stride) in enumerate(layers, 1):
            y = convolution(channels, size, stride, self.dtype, f"conv{number}")(y)
            y = norm(self.norm, train, self.dtype, f"norm{number}")(y)
            y = nn.relu(y) if number < len(layers) else y
        if s != 1 or x.shape[-1] != outputs:
            x = convolution(outputs, 1, s, self.dtype, "shortcut_conv")(x)
            x = norm(self.norm, train, self.dtype, "shortcut_norm")(x)
        return nn.relu(y + x)


def convolution(
    channels: int, size: int, stride: int, dtype: DTypeLike | None, name: str
) -> nn.Conv:
    """Returns a convolution without bias, padded by half its size on each side."""
    return nn.Conv(
        channels,
        (size, size),
        stride,
        padding=size // 2,
        use_bias=False,
        kernel_init=he,
        dtype=dtype,
        name=name,
    )


@network("resnet_imagenet")
class ResNetImageNet(nn.Module):
    """A stem, then four stages of residual blocks with 64, 128, 256 and 512 channels.

    Reference: He et al. 2016, "Deep residual learning for image recognition", table 1.

    Attributes:
        classes: number of logits.
        depth: layers with weights; 50 has bottleneck blocks.
        norm: normalisation after each convolution.
        width: multiplies all channels.
        stem: size of the images that it is made for: 224 (7x7 convolution of stride 2, 3x3 max
            pooling of stride 2), 64 (3x3 convolution, the same pooling) or 32 (3x3 convolution).
        dtype: compute type; parameters stay float32.
    """

    classes: int
    depth: Literal[18, 34, 50] = 50
    norm: Norm = "batch"
    width: float = 1.0
    stem: Literal[224, 64, 32] = 224
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits [n, classes] of x [n, h, w, c]."""
        if x.ndim != 4:
            raise DataError(f"resnet_imagenet needs images [h, w, c], not {x.shape[1:]}")
        channels = scaled(64, self.width)
        size, stride = (7, 2) if self.stem == 224 else (3, 1)
        x = convolution(channels, size, stride, self.dtype, "conv1")(x)
        x = nn.relu(norm(self.norm, train, self.dtype, "norm1")(x))
        if self.stem != 32:
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=[(1, 1), (1, 1)])  # pyright: ignore[reportArgumentType]
        for stage, blocks in enumerate(STAGES[self.depth]):
            for number in range(blocks):
                x = Block(
                    scaled(64 * 2**stage, self.width),
                    2 if stage and not number else 1,
                    self.depth == 50,
                    self.norm,
                    self.dtype,
                    name=f"stage{stage + 1}_block{number}",
                )(x, train)
        return nn.Dense(self.classes, dtype=self.dtype, name="dense")(x.mean((1, 2)))
