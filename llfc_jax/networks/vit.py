"""A small vision transformer."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from llfc_jax.errors import ConfigError, DataError
from llfc_jax.networks.registry import network

ACTIVATIONS = {"gelu": nn.gelu, "relu": nn.relu}
NORMS: dict[str, Any] = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}


class Block(nn.Module):
    """Self-attention and a two-layer MLP, each behind a norm and around it a shortcut.

    Attributes:
        heads: of the attention.
        mlp_dim: hidden units.
        activation: of the MLP.
        norm: "layer" or "rms".
        dropout: rate behind attention and MLP.
        dtype: compute type.
    """

    heads: int
    mlp_dim: int
    activation: Literal["gelu", "relu"]
    norm: Literal["layer", "rms"]
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Tokens [n, t, dim] to the same shape."""
        drop = nn.Dropout(self.dropout, deterministic=not train)
        norm = functools.partial(NORMS[self.norm], dtype=self.dtype)
        y = norm(name="norm1")(x)
        attention = nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype, name="attention")
        x = x + drop(attention(y))
        y = norm(name="norm2")(x)
        y = ACTIVATIONS[self.activation](nn.Dense(self.mlp_dim, dtype=self.dtype, name="mlp1")(y))
        return x + drop(nn.Dense(x.shape[-1], dtype=self.dtype, name="mlp2")(y))


@network("vit")
class ViT(nn.Module):
    """Patches as tokens, learned positions, pre-norm transformer blocks, mean over the tokens.

    References: Dosovitskiy et al. 2021, "An image is worth 16x16 words"; Beyer et al. 2022,
    "Better plain ViT baselines" (mean over tokens instead of a class token).

    Attributes:
        classes: number of logits.
        patch: side of a patch in pixels; divides the image's sides.
        dim: width of a token.
        depth: blocks.
        heads: attention heads per block; divides `dim`.
        mlp_dim: hidden units of each block's MLP.
        activation: of the MLPs.
        norm: "layer" (LayerNorm) or "rms" (RMSNorm).
        dropout: rate, in training.
        dtype: compute type; parameters stay float32.
    """

    classes: int
    patch: int = 4
    dim: int = 64
    depth: int = 4
    heads: int = 4
    mlp_dim: int = 128
    activation: Literal["gelu", "relu"] = "gelu"
    norm: Literal["layer", "rms"] = "layer"
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits [n, classes] of x [n, h, w, c]."""
        if x.ndim != 4 or x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise DataError(
                f"vit needs images [h, w, c] whose sides are multiples of its patch, "
                f"{self.patch}, not {x.shape[1:]}; set another patch or pad them (data.pad_to)"
            )
        if self.dim % self.heads:
            raise ConfigError(f"vit: dim {self.dim} must be a multiple of heads, {self.heads}")
        size = (self.patch, self.patch)
        x = nn.Conv(self.dim, size, size, "VALID", dtype=self.dtype, name="embed")(x)
        x = x.reshape(len(x), -1, self.dim)
        shape = (1, *x.shape[1:])
        position = self.param("position", nn.initializers.normal(0.02), shape, jnp.float32)
        x = x + position.astype(x.dtype)
        for number in range(self.depth):
            x = Block(
                self.heads,
                self.mlp_dim,
                self.activation,
                self.norm,
                self.dropout,
                self.dtype,
                name=f"block{number}",
            )(x, train)
        x = NORMS[self.norm](dtype=self.dtype, name="norm")(x).mean(1)
        return nn.Dense(self.classes, dtype=self.dtype, name="dense")(x)
