"""Residual networks for 32x32 images: S4 and P3 of the paper."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from llfc_jax.errors import DataError
from llfc_jax.networks.layers import Norm, he, norm, scaled
from llfc_jax.networks.registry import network


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut around them.

    Attributes:
        channels: outputs.
        stride: of the first convolution and of the shortcut.
        norm: normalisation after each convolution.
        shortcut: where the shape changes; see `ResNetCifar`.
        padding: see `ResNetCifar`.
        dtype: compute type.
    """

    channels: int
    stride: int
    norm: Norm
    shortcut: Literal["pad", "conv1", "conv3"]
    padding: Literal["both", "same"]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[n, h, w, c] to [n, h / stride, w / stride, channels]."""

        def normalise(x: jax.Array, name: str) -> jax.Array:
            return norm(self.norm, train, self.dtype, name)(x)

        y = nn.relu(normalise(_convolution(self, 3, self.stride, "conv1")(x), "norm1"))
        y = normalise(_convolution(self, 3, 1, "conv2")(y), "norm2")
        if self.stride != 1 or x.shape[-1] != self.channels:
            if self.shortcut == "pad":
                more = self.channels - x.shape[-1]
                around = (more // 2, more - more // 2)
                x = x[:, :: self.stride, :: self.stride]
                x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), around))
            else:
                size = 1 if self.shortcut == "conv1" else 3
                x = _convolution(self, size, self.stride, "shortcut_conv")(x)
                x = normalise(x, "shortcut_norm")
        return nn.relu(y + x)


def _convolution(block: Block, size: int, stride: int, name: str) -> nn.Conv:
    """Returns a square convolution of a block, without a bias."""
    return nn.Conv(
        block.channels,
        (size, size),
        stride,
        size // 2 if block.padding == "both" else "SAME",
        use_bias=False,
        kernel_init=he,
        dtype=block.dtype,
        name=name,
    )


@network("resnet_cifar")
class ResNetCifar(nn.Module):
    """Three stages of residual blocks with 16, 32 and 64 channels, on 32x32 images.

    Reference: He et al. 2016, "Deep residual learning for image recognition", section 4.2.

    Attributes:
        classes: number of logits.
        depth: 6 n + 2 layers with weights, n blocks per stage.
        norm: normalisation after each convolution.
        width: multiplies all channels.
        shortcut: where resolution and channels change: "pad" (option A: every other pixel, zero
            channels added on both sides), "conv1" (1x1 convolution and norm, option B) or
            "conv3" (3x3 convolution and norm, as Git Re-Basin).
        padding: of 3x3 convolutions: "both" (1 on each side, as PyTorch) or "same" (XLA's SAME,
            which pads only below and to the right where the stride is 2, as Git Re-Basin).
        dtype: compute type; parameters stay float32.
    """

    classes: int
    depth: Literal[20, 32, 44, 56, 110] = 20
    norm: Norm = "batch"
    width: float = 1.0
    shortcut: Literal["pad", "conv1", "conv3"] = "pad"
    padding: Literal["both", "same"] = "both"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits [n, classes] of x [n, h, w, c]."""
        if x.ndim != 4:
            raise DataError(f"resnet_cifar needs images [h, w, c], not {x.shape[1:]}")
        channels = [scaled(base, self.width) for base in (16, 32, 64)]
        x = nn.Conv(
            channels[0],
            (3, 3),
            padding=1,
            use_bias=False,
            kernel_init=he,
            dtype=self.dtype,
            name="conv1",
        )(x)
        x = nn.relu(norm(self.norm, train, self.dtype, "norm1")(x))
        for stage in range(3):
            for number in range((self.depth - 2) // 6):
                x = Block(
                    channels[stage],
                    2 if stage and not number else 1,
                    self.norm,
                    self.shortcut,
                    self.padding,
                    self.dtype,
                    name=f"stage{stage + 1}_block{number}",
                )(x, train)
        return nn.Dense(self.classes, dtype=self.dtype, name="dense")(x.mean((1, 2)))
