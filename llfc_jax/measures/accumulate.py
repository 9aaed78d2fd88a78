"""One pass over a data set: a jitted kernel per batch, small statistics out, merged in float64.

A kernel returns a tree of `Moments`, `Products` and plain arrays (sums). Features live for one
batch only, so memory does not grow with the number of samples; every batch has the first one's
shape (the last is padded with samples of weight zero), so a kernel compiles once. Batches that lie
on a mesh of devices are spread over all of them (`parallel.sharding`), and
the statistics with them.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.errors import DataError
from llfc_jax.parallel import sharding

Batches = Iterable[tuple[Any, Any]]
Progress = Callable[[int, int, str], None]

# Batches in flight before their statistics are fetched: the device never waits for the host.
AHEAD = 2


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of a quantity over samples.

    Merging is exact (Chan, Golub, LeVeque 1983), so the result depends on neither the batch size
    nor the order of the samples beyond rounding.
    """

    count: Any
    mean: Any
    squares: Any

    @property
    def average(self) -> Any:
        """The mean; NaN where no sample counted."""
        return np.where(self.count > 0, self.mean, np.nan)

    @property
    def std(self) -> Any:
        """Standard deviation over samples, with n - 1 (NaN below two samples)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sqrt(np.where(self.count > 1, self.squares / (self.count - 1), np.nan))

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets of samples together."""
        n = self.count + other.count
        share = np.divide(other.count, n, out=np.zeros_like(n, dtype=np.float64), where=n > 0)
        delta = other.mean - self.mean
        squares = self.squares + other.squares + delta**2 * self.count * share
        return Moments(n, self.mean + delta * share, squares)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Products:
    """Squares and product of two long vectors u, v, and the square of u - v, a part at a time.

    Held divided by `scale` squared, so that float32 neither overflows nor vanishes from 1e-20 to
    1e20; `absolute` multiplies it in again, in float64. The difference has its own sum because
    <u,u> + <v,v> - 2 <u,v> would lose it to rounding.
    """

    uu: Any
    vv: Any
    uv: Any
    dd: Any
    scale: Any

    def merge(self, other: "Products") -> "Products":
        """The sums over both parts of the vectors."""
        p, q = self.absolute(), other.absolute()
        return Products(p.uu + q.uu, p.vv + q.vv, p.uv + q.uv, p.dd + q.dd, p.scale)

    def absolute(self) -> "Products":
        """The sums with the scale multiplied in."""
        square = np.square(np.asarray(self.scale, np.float64))
        uu, vv, uv, dd = (x * square for x in (self.uu, self.vv, self.uv, self.dd))
        return Products(uu, vv, uv, dd, np.ones_like(square))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Squares:
    """Sums of squares or of products, held divided by `scale` squared as `Products` are."""

    sums: Any
    scale: Any

    def merge(self, other: "Squares") -> "Squares":
        """The sums over both parts."""
        both = self.absolute() + other.absolute()
        return Squares(both, np.ones_like(self.scale))

    def absolute(self) -> Any:
        """The sums with the scale multiplied in, in float64."""
        return self.sums * np.square(np.asarray(self.scale, np.float64))


def moments(values: jax.Array, weight: jax.Array) -> Moments:
    """Moments over the last axis; a NaN, or a sample of weight zero, does not count."""
    counts = (weight > 0) & jnp.isfinite(values)
    n = counts.sum(-1)
    safe = jnp.where(counts, values, 0)
    mean = safe.sum(-1) / jnp.maximum(n, 1)
    squares = (jnp.where(counts, safe - mean[..., None], 0) ** 2).sum(-1)
    return Moments(n, mean, squares)


def _mergeable(node: Any) -> bool:
    return isinstance(node, (Moments, Products, Squares))


def _merge(one: Any, other: Any) -> Any:
    return one.merge(other) if _mergeable(one) else one + other


def _to_host(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def padded(batches: Batches) -> Iterator[tuple[jax.Array, jax.Array, jax.Array]]:
    """(x, y, weight) of every batch, all of the first one's size (on a mesh, of its multiple).

    Raises:
        DataError: no batch at all, an iterator (it can be read only once, and every measure reads
            the first batch before its pass), a batch larger than the first, labels that do not
            fit x.
    """
    if iter(batches) is batches:
        raise DataError("batches are a generator, which can be read only once; pass a list of them")
    first = 0
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise DataError("batches must be pairs (x [n, ...], labels [n]), arrays both")
        x, y = batch
        n = int(np.shape(x)[0]) if np.ndim(x) else 0
        if np.shape(y) != (n,) or not n:
            raise DataError(
                f"a batch needs x [n, ...] and labels [n]; got {np.shape(x)} and {np.shape(y)}"
            )
        if not jnp.issubdtype(jnp.result_type(y), jnp.integer):
            raise DataError(f"labels must be integers, not {jnp.result_type(y)}")
        first = first or n
        if n > first:
            raise DataError(f"a batch of {n} follows one of {first}: only the last may be smaller")
        mesh = sharding.of(x)
        parts = sharding.size(mesh, sharding.SAMPLES)
        size = -(-first // parts) * parts
        weight = np.ones(size, np.float32)
        if n < size:
            weight[n:] = 0
            fill = [(0, size - n)]
            x = jnp.pad(jnp.asarray(x), fill + [(0, 0)] * (np.ndim(x) - 1), mode="edge")
            y = jnp.pad(jnp.asarray(y), fill, mode="edge")
        batch = jnp.asarray(x), jnp.asarray(y), jnp.asarray(weight)
        yield batch if mesh is None else sharding.put(batch, mesh, sharding.SAMPLES)
    if not first:
        raise DataError("there is no batch to measure on")


def fold(
    kernel: Callable[[jax.Array, jax.Array, jax.Array], Any],
    batches: Batches,
    progress: Progress | None = None,
    words: str = "measuring",
    classes: int | None = None,
) -> Any:
    """Run `kernel(x, y, weight)` on every batch and merge what it returns.

    Args:
        kernel: jitted; returns a tree of `Moments`, `Products` and sums.
        batches: pairs (x [n, ...], y int [n]), all of one size but the last.
        progress: called as (batches done, batches in all or 0, words).
        words: what progress says.
        classes: labels must lie in [0, classes), where this is given.

    Raises:
        DataError: see `padded`; x holds NaN or infinity; labels outside the classes.
    """
    total = len(batches) if hasattr(batches, "__len__") else 0  # pyright: ignore[reportArgumentType]
    merged: Any = None
    pending: deque[Any] = deque()

    def take() -> None:
        nonlocal merged
        finite, low, high, part = sharding.fetch(pending.popleft())
        if not bool(finite):
            raise DataError("the data hold NaN or infinity; clean them before measuring")
        if classes is not None:
            check_labels(int(low), int(high), classes)
        part = _to_host(part)
        merged = part if merged is None else jax.tree.map(_merge, merged, part, is_leaf=_mergeable)

    for i, (x, y, weight) in enumerate(padded(batches)):
        pending.append((*inspect(x, y), kernel(x, y, weight)))
        if len(pending) > AHEAD:
            take()
        if progress:
            progress(i + 1, total, words)
    while pending:
        take()
    return jax.tree.map(
        lambda node: node.absolute() if isinstance(node, (Products, Squares)) else node,
        merged,
        is_leaf=_mergeable,
    )


def check_labels(low: int, high: int, classes: int) -> None:
    """See that labels from `low` to `high` are among the classes."""
    if low < 0 or high >= classes:
        raise DataError(f"labels run from {low} to {high}, but the network has {classes} classes")


@jax.jit
def inspect(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Whether x is finite, and the smallest and the largest label."""
    floating = jnp.issubdtype(x.dtype, jnp.inexact)
    return jnp.isfinite(x).all() if floating else jnp.array(True), y.min(), y.max()
