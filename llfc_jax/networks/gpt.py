"""A small GPT: a decoder of pre-norm transformer blocks that predicts the next token."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from llfc_jax.errors import ConfigError, DataError
from llfc_jax.networks.registry import network

Norm = Literal["rms", "layer"]
Positions = Literal["rotary", "learned"]
MLP = Literal["gelu", "swiglu"]
WAVELENGTH = 10_000.0  # of the slowest rotation, about


def _norm(kind: Norm, dtype: Any, name: str) -> nn.Module:
    make = nn.RMSNorm if kind == "rms" else nn.LayerNorm
    return make(dtype=dtype, name=name)


def rotate(x: Float[Array, "n t heads size"]) -> Float[Array, "n t heads size"]:
    """Turns each pair of entries by an angle that grows with the position (Su et al. 2021)."""
    half = x.shape[-1] // 2
    speed = WAVELENGTH ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = jnp.arange(x.shape[1], dtype=jnp.float32)[:, None] * speed[None]
    cos, sin = (f(angle)[None, :, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    p, q = x[..., :half], x[..., half:]
    return jnp.concatenate([p * cos - q * sin, p * sin + q * cos], -1)


class Attention(nn.Module):
    """Causal self-attention; several query heads may share a key and a value head.

    Attributes:
        heads: query heads.
        groups: key and value heads; divides `heads` (Ainslie et al. 2023).
        positions: "rotary" turns queries and keys, "learned" does nothing here.
        bias: whether the four products have one.
        dtype: compute type.
    """

    heads: int
    groups: int
    positions: Positions
    bias: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n t dim"]) -> Float[Array, "n t dim"]:
        """Tokens [n, t, dim] to the same shape."""
        (_, t, dim), size = x.shape, x.shape[-1] // self.heads

        def project(heads: int, name: str) -> Float[Array, "n t heads size"]:
            shape = (heads, size)
            return nn.DenseGeneral(shape, use_bias=self.bias, dtype=self.dtype, name=name)(x)

        q = project(self.heads, "query")
        k, v = project(self.groups, "key"), project(self.groups, "value")
        if self.positions == "rotary":
            q, k = rotate(q), rotate(k)
        k, v = (jnp.repeat(part, self.heads // self.groups, 2) for part in (k, v))
        scores = jnp.einsum("nqhd,nkhd->nhqk", q, k) / size**0.5
        seen = jnp.arange(t)[:, None] >= jnp.arange(t)[None]
        weights = jax.nn.softmax(jnp.where(seen[None, None], scores, -1e9).astype(jnp.float32))
        mixed = jnp.einsum("nhqk,nkhd->nqhd", weights.astype(v.dtype), v)
        return nn.DenseGeneral(
            dim, (-2, -1), use_bias=self.bias, dtype=self.dtype, name="out"
        )(mixed)  # fmt: skip


class GPTBlock(nn.Module):
    """Attention and an MLP, each behind a normalisation and around it a shortcut.

    Attributes:
        heads: see `Attention`.
        groups: see there.
        mlp_dim: hidden units.
        mlp: "gelu", or "swiglu": silu(x U) * (x V) (Shazeer 2020).
        norm: "rms" or "layer".
        positions: see `Attention`.
        bias: whether products have one.
        dropout: rate behind attention and MLP, in training.
        dtype: compute type.
    """

    heads: int
    groups: int
    mlp_dim: int
    mlp: MLP
    norm: Norm
    positions: Positions
    bias: bool
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n t dim"], train: bool) -> Float[Array, "n t dim"]:
        """Tokens [n, t, dim] to the same shape."""

        def dense(width: int, name: str) -> nn.Module:
            return nn.Dense(width, use_bias=self.bias, dtype=self.dtype, name=name)

        drop = nn.Dropout(self.dropout, deterministic=not train)
        y = _norm(self.norm, self.dtype, "norm1")(x)
        attention = Attention(
            self.heads, self.groups, self.positions, self.bias, self.dtype, name="attention"
        )
        x = x + drop(attention(y))
        y = _norm(self.norm, self.dtype, "norm2")(x)
        hidden = dense(self.mlp_dim, "up")(y)
        if self.mlp == "swiglu":
            hidden = nn.silu(dense(self.mlp_dim, "gate")(y)) * hidden
        else:
            hidden = nn.gelu(hidden)
        return x + drop(dense(x.shape[-1], "down")(hidden))


@network("gpt")
class GPT(nn.Module):
    """Tokens to the logits of the next token at every position; position t sees those up to t.

    The defaults are those of a small Llama; `norm="layer"`, `positions="learned"`, `mlp="gelu"`,
    `bias=True` and `tied=True` make it a GPT-2.

    References: Radford et al. 2019, "Language models are unsupervised multitask learners";
    Touvron et al. 2023, "LLaMA".

    Attributes:
        classes: size of the vocabulary.
        dim: width of a token.
        depth: blocks.
        heads: query heads of each block; divides `dim`.
        groups: key and value heads; divides `heads`; as many as those if 0.
        mlp_dim: hidden units of each block's MLP.
        length: longest text, for learned positions.
        norm: "rms" or "layer".
        positions: "rotary" or "learned".
        mlp: "swiglu" or "gelu".
        bias: whether products have one.
        tied: whether the head's weight is the embedding's.
        dropout: rate, in training.
        dtype: compute type; parameters stay float32.
    """

    classes: int
    dim: int = 64
    depth: int = 4
    heads: int = 4
    groups: int = 0
    mlp_dim: int = 128
    length: int = 128
    norm: Norm = "rms"
    positions: Positions = "rotary"
    mlp: MLP = "swiglu"
    bias: bool = False
    tied: bool = False
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Int[Array, "n t"], train: bool = False) -> Float[Array, "n t vocabulary"]:
        """Logits [n, t, classes] of tokens x [n, t]."""
        self._check(x)
        init = nn.initializers.normal(0.02)
        embed = nn.Embed(
            self.classes, self.dim, dtype=self.dtype, embedding_init=init, name="embed"
        )
        h = embed(x)
        if self.positions == "learned":
            table = self.param("position", init, (self.length, self.dim), jnp.float32)
            h = h + table[None, : x.shape[1]].astype(h.dtype)
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        for number in range(self.depth):
            h = GPTBlock(
                self.heads,
                self.groups or self.heads,
                self.mlp_dim,
                self.mlp,
                self.norm,
                self.positions,
                self.bias,
                self.dropout,
                self.dtype,
                name=f"block{number}",
            )(h, train)
        h = _norm(self.norm, self.dtype, "norm")(h)
        if self.tied:
            return embed.attend(h)
        return nn.Dense(self.classes, use_bias=self.bias, dtype=self.dtype, name="head")(h)

    def _check(self, x: jax.Array) -> None:
        """Checks that the input is tokens, and that the fields fit each other."""
        if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
            raise DataError(f"gpt needs tokens [n, t] of whole numbers, not {x.dtype}{x.shape}")
        if self.positions == "learned" and x.shape[1] > self.length:
            raise ConfigError(f"gpt: a text of {x.shape[1]} tokens needs length={x.shape[1]}")
        groups = self.groups or self.heads
        if self.dim % self.heads or self.heads % groups:
            raise ConfigError(
                f"gpt: dim {self.dim} must be a multiple of heads, {self.heads}, and heads of "
                f"groups, {groups}"
            )
        if self.positions == "rotary" and self.dim // self.heads % 2:
            raise ConfigError("gpt: rotary positions need an even width of a head, dim / heads")
