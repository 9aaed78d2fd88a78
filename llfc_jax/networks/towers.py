"""Two towers: one for each half of an image, into one space."""

from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from llfc_jax.networks.registry import network


@network("towers")
class Towers(nn.Module):
    """An MLP for the upper half of an image and one for the lower; both return an embedding.

    Attributes:
        widths: units of the hidden layers of each tower, from the input on.
        dim: size of the embeddings.
        dtype: compute type; parameters stay float32.
    """

    widths: tuple[int, ...] = (128,)
    dim: int = 32
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], train: bool = False
    ) -> tuple[Float[Array, "n dim"], Float[Array, "n dim"]]:
        """Embeddings [n, dim] of both halves of x [n, h, w, c]."""
        half = x.shape[1] // 2
        return self._embed(x[:, :half], "upper"), self._embed(x[:, half:], "lower")

    def _embed(self, x: jax.Array, name: str) -> jax.Array:
        x = x.reshape(len(x), -1)
        for number, width in enumerate(self.widths):
            x = nn.relu(nn.Dense(width, dtype=self.dtype, name=f"{name}{number}")(x))
        return nn.Dense(self.dim, dtype=self.dtype, name=f"{name}_out")(x)
