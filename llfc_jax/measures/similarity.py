"""How alike two features are: cosine distance, coefficient and relative distance.

All of them row by row ([n, d] against [n, d], a row per sample) and pooled over all rows. Cosine
distances are computed as ½ |u/|u| - v/|v||², which keeps its digits where 1 - cos would be lost
in float32's rounding (below 1e-7), and rows are divided by their largest entry first, so that
features from 1e-20 to 1e20 neither overflow nor vanish.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.measures.stream import Products


class Rows(NamedTuple):
    """One comparison per sample; NaN where a vector has no direction.

    Attributes:
        distance: 1 - cos(u, v), signed: 0 parallel, 2 anti-parallel.
        coefficient: <u, v> / <v, v>, the c of least squares in u ≈ c v; NaN only where v = 0.
        relative: |u - v|² / (|u| |v|), the paper's dist(u, v).
    """

    distance: Any
    coefficient: Any
    relative: Any


def wide(x: jax.Array) -> jax.Array:
    """The array in float32 at least (float64 stays)."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _scaled(u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows divided by their largest entry, and that entry (1 where a row is zero)."""
    largest = jnp.abs(u).max(-1, keepdims=True)
    largest = jnp.where(largest > 0, largest, 1)
    return u / largest, largest


def compare(u: jax.Array, v: jax.Array) -> Rows:
    """Compare row i of u with row i of v.

    Args:
        u: features [n, d].
        v: features [n, d]; the coefficient multiplies these.
    """
    u, v = wide(u), wide(v)
    (us, scale_u), (vs, scale_v) = _scaled(u), _scaled(v)
    norm_u = jnp.sqrt((us * us).sum(-1, keepdims=True))
    norm_v = jnp.sqrt((vs * vs).sum(-1, keepdims=True))
    some_u, some_v = norm_u[:, 0] > 0, norm_v[:, 0] > 0
    unit_u = us / jnp.where(norm_u > 0, norm_u, 1)
    unit_v = vs / jnp.where(norm_v > 0, norm_v, 1)
    distance = 0.5 * ((unit_u - unit_v) ** 2).sum(-1)
    length_u, length_v = (scale_u * norm_u)[:, 0], (scale_v * norm_v)[:, 0]
    ratio = length_u / jnp.where(some_v, length_v, 1)
    # |u - v|² / (|u| |v|) = (|u| - |v|)² / (|u| |v|) + 2 (1 - cos), without the cancellation.
    safe = jnp.where(some_u & some_v, ratio, 1)
    relative = (safe - 1) * (1 - 1 / safe) + 2 * distance
    both = some_u & some_v
    nan = jnp.nan
    return Rows(
        jnp.where(both, distance, nan),
        jnp.where(some_v, ratio * (1 - jnp.where(both, distance, 1)), nan),
        jnp.where(both, relative, nan),
    )


def absolute(distance: jax.Array) -> jax.Array:
    """1 - |cos| from 1 - cos: the authors' form, in which an anti-parallel feature scores 0."""
    return jnp.minimum(distance, 2 - distance)


def products(u: jax.Array, v: jax.Array, weight: jax.Array) -> Products:
    """Inner products of all rows of weight one together, as one long vector each."""
    keep = weight[:, None] > 0
    u, v = jnp.where(keep, wide(u), 0), jnp.where(keep, wide(v), 0)

    def scaled(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        largest = jnp.abs(x).max()
        scale = jnp.where(largest > 0, largest, 1)
        return x / scale, scale

    d, scale_d = scaled(u - v)
    (u, scale_u), (v, scale_v) = scaled(u), scaled(v)
    sums = (jnp.vdot(u, u), jnp.vdot(v, v), jnp.vdot(u, v), jnp.vdot(d, d))
    return Products(*sums, scale_u, scale_v, scale_d)


def pooled(of: Products) -> Rows:
    """Distance, coefficient and relative distance of the long vectors (host, float64)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = np.sqrt(of.uu), np.sqrt(of.vv)
        lengths = u * v
        # Where u and v are close, from |u - v|²; elsewhere from <u, v>: each keeps its digits.
        close = (of.dd - (u - v) ** 2) / (2 * lengths)
        distance = np.where(close < 0.5, np.maximum(close, 0), 1 - of.uv / lengths)
        some = lengths > 0
        return Rows(
            np.where(some, distance, np.nan),
            np.where(v > 0, of.uv / of.vv, np.nan),
            np.where(some, of.dd / lengths, np.nan),
        )
