"""How alike two features are: cosine distance, coefficient and relative distance.

All of them row by row ([n, d] against [n, d], a row per sample) and pooled over all rows, from
four sums per row: <u,u>, <v,v>, <u,v> and <u-v,u-v>. The cosine distance

    1 - cos(u, v) = (|u-v|² - (|u| - |v|)²) / (2 |u| |v|)

keeps its digits where 1 - <u,v>/(|u||v|) would be lost in float32's rounding (below 1e-7); where
the lengths differ by more than a factor of 2 it is the other way round, and the second is taken.
Rows are divided by a scale of their own first, a power of two so that no digit is lost, and so
features from 1e-20 to 1e20 neither overflow nor vanish.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from llfc_jax.measures.accumulate import Products
from llfc_jax.measures.precision import wide


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


class Sums(NamedTuple):
    """Squares of every row, in units of its scale squared.

    Attributes:
        uu: <u, u> [n].
        vv: <v, v> [n].
        uv: <u, v> [n].
        dd: <u - v, u - v> [n].
        scale: what the rows were divided by [n].
    """

    uu: Float[Array, "*batch n"]
    vv: Float[Array, "*batch n"]
    uv: Float[Array, "*batch n"]
    dd: Float[Array, "*batch n"]
    scale: Float[Array, "*batch n"]


def stack(parts: Sequence[Any]) -> Any:
    """Returns trees of one structure stacked leaf by leaf along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)


def scale_of(*parts: Float[Array, "*batch n d"]) -> Float[Array, "*batch n"]:
    """Returns the power of two nearest to the largest entry of each row; 1 for zeros: [..., n]."""
    largest = jnp.stack([jnp.abs(wide(part)).max(-1) for part in parts]).max(0)
    power = jax.lax.reduce_precision(largest, int(jnp.finfo(largest.dtype).nexp), 0)
    return jnp.where((power > 0) & (power < jnp.inf), power, 1)


def sums(
    u: Float[Array, "*batch n d"],
    v: Float[Array, "*batch n d"],
    scale: Float[Array, "*batch n"] | None = None,
    gap: Float[Array, "*batch n d"] | None = None,
) -> Sums:
    """Returns the squares that every comparison of row i of u with row i of v is made of.

    Args:
        u: features [..., n, d].
        v: features [..., n, d].
        scale: about the size of the entries of each row [..., n], a power of two; that of the
            largest entry if None. Within a factor of 1e16 of it either way nothing is lost.
        gap: u - v, where it is known to more digits than the subtraction would give.
    """
    u, v = wide(u), wide(v)
    scale = scale_of(u, v) if scale is None else scale
    by = (1 / scale)[..., None]
    u, v = u * by, v * by
    gap = u - v if gap is None else wide(gap) * by
    return Sums((u * u).sum(-1), (v * v).sum(-1), (u * v).sum(-1), (gap * gap).sum(-1), scale)


def from_sums(of: Sums | Products, xp: ModuleType = jnp) -> Rows:
    """Returns distance, coefficient and relative distance from <u,u>, <v,v>, <u,v> and |u-v|²."""
    nan = xp.nan
    some_u, some_v = of.uu > 0, of.vv > 0
    both = some_u & some_v
    u = xp.sqrt(xp.where(both, of.uu, 1))
    v = xp.sqrt(xp.where(both, of.vv, 1))
    alike = (u < 2 * v) & (v < 2 * u)  # else |u-v|² no longer holds the angle
    distance = xp.where(alike, (of.dd - (u - v) ** 2) / (2 * u * v), 1 - of.uv / (u * v))
    return Rows(
        xp.where(both, xp.clip(distance, 0, 2), nan),
        xp.where(some_v, of.uv / xp.where(some_v, of.vv, 1), nan),
        xp.where(both, of.dd / (u * v), nan),
    )


def compare(u: Float[Array, "n d"], v: Float[Array, "n d"]) -> Rows:
    """Compares row i of u with row i of v.

    Args:
        u: features [n, d].
        v: features [n, d]; the coefficient multiplies these.

    Examples:
        >>> rows = compare(jnp.array([[2.0, 0.0]]), jnp.array([[1.0, 1.0]]))
        >>> [round(float(x[0]), 4) for x in rows]
        [0.2929, 1.0, 0.7071]
    """
    return from_sums(sums(u, v))


def absolute(distance: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns 1 - |cos| from 1 - cos: the authors' form, anti-parallel features score 0."""
    return jnp.minimum(distance, 2 - distance)


def pool(of: Sums, mask: Float[Array, "*#batch n"]) -> Products:
    """Adds the squares up over the last axis: one long vector of the rows whose mask is 1."""
    scale = jnp.where(mask > 0, of.scale, 0)
    largest = scale.max(-1, keepdims=True)
    largest = jnp.where(largest > 0, largest, 1)
    share = (scale / largest) ** 2
    uu, vv, uv, dd = ((x * share).sum(-1) for x in (of.uu, of.vv, of.uv, of.dd))
    return Products(uu, vv, uv, dd, largest[..., 0])


def pooled(of: Products) -> Rows:
    """Returns distance, coefficient and relative distance of the long vectors (host, float64)."""
    return from_sums(of, np)
