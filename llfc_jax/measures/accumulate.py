"""One pass over a data set: a jitted kernel per batch, small statistics out, merged in float64.

A kernel returns a tree of `Moments`, `Products`, `Squares` and plain arrays (sums). Features live
for one batch only, so memory does not grow with the number of samples; every batch has the first
one's shape (the last is padded, and its mask is 0 there), so a kernel compiles once. Batches that
lie on a mesh of devices are spread over all of them (`parallel.sharding`), and the statistics with
them.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, Shaped

from llfc_jax.errors import DataError
from llfc_jax.measures.classification import check_labels
from llfc_jax.parallel import sharding
from llfc_jax.types import AnyArray, Batches, ProgressFn

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
        """Returns the moments of both sets of samples together."""
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
        """Returns the sums over both parts of the vectors."""
        p, q = self.absolute(), other.absolute()
        return Products(p.uu + q.uu, p.vv + q.vv, p.uv + q.uv, p.dd + q.dd, p.scale)

    def absolute(self) -> "Products":
        """Returns the sums with the scale multiplied in."""
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
        """Returns the sums over both parts."""
        both = self.absolute() + other.absolute()
        return Squares(both, np.ones_like(self.scale))

    def absolute(self) -> Any:
        """Returns the sums with the scale multiplied in, in float64."""
        return self.sums * np.square(np.asarray(self.scale, np.float64))


def moments(values: Float[Array, "*batch n"], mask: Float[Array, "*#batch n"]) -> Moments:
    """Returns moments over the last axis; a NaN, or a sample whose mask is 0, does not count."""
    counts = (mask > 0) & jnp.isfinite(values)
    n = counts.sum(-1)
    safe = jnp.where(counts, values, 0)
    mean = safe.sum(-1) / jnp.maximum(n, 1)
    squares = (jnp.where(counts, safe - mean[..., None], 0) ** 2).sum(-1)
    return Moments(n, mean, squares)


def moments_of_each(
    quantities: Sequence[Float[Array, "*batch n"]], mask: Float[Array, "*#batch n"]
) -> tuple[Moments, ...]:
    """Returns the moments of several quantities of one shape; see `moments`.

    They are taken of all at once, which is less to compile.
    """
    together = moments(jnp.stack(quantities), mask[None])
    return tuple(jax.tree.map(lambda leaf, i=i: leaf[i], together) for i in range(len(quantities)))


def _mergeable(node: object) -> bool:
    return isinstance(node, (Moments, Products, Squares))


def _merge(one: PyTree, other: PyTree) -> Any:
    return one.merge(other) if _mergeable(one) else one + other


def _to_host(tree: PyTree) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def pad_batches(
    batches: Batches,
) -> Iterator[tuple[Shaped[Array, "n ..."], Int[Array, " n"], Float[Array, " n"]]]:
    """Yields (x, y, mask) of every batch, all of the first one's size (on a mesh, of its multiple).

    Raises:
        DataError: no batch at all, an iterator (it can be read only once, and every measure reads
            the first batch before its pass), a batch larger than the first, labels that do not
            fit x.
    """
    if iter(batches) is batches:
        raise DataError("batches are a generator, which can be read only once; pass a list of them")
    first = 0
    for batch in batches:
        x, y = check_batch(batch)
        n = len(y)
        first = first or n
        if n > first:
            raise DataError(f"a batch of {n} follows one of {first}: only the last may be smaller")
        mesh = sharding.of(x)
        spec = sharding.samples_of(x)
        parts = sharding.size(mesh, spec)
        size = -(-first // parts) * parts
        mask = np.ones(size, np.float32)
        if n < size:
            mask[n:] = 0
            fill = [(0, size - n)]
            x = jnp.pad(jnp.asarray(x), fill + [(0, 0)] * (np.ndim(x) - 1), mode="edge")
            y = jnp.pad(jnp.asarray(y), fill, mode="edge")
        padded = jnp.asarray(x), jnp.asarray(y), jnp.asarray(mask)
        yield padded if mesh is None else sharding.put(padded, mesh, spec)
    if not first:
        raise DataError("there is no batch to measure on")


def check_batch(batch: object) -> tuple[Any, Any]:
    """Returns (x, labels) of a batch after a check of its form.

    Raises:
        DataError: it is no pair of arrays, or the labels are not one integer per sample.
    """
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
    return x, y


class _Merger:
    """Statistics of batches in flight, fetched and merged in order."""

    def __init__(self, classes: int | None) -> None:
        self.classes = classes
        self.pending: deque[Any] = deque()
        self.merged: Any = None

    def add(self, part: PyTree, ahead: int = AHEAD) -> None:
        """Queues a batch's statistics; merges the oldest where more than `ahead` wait."""
        self.pending.append(part)
        while len(self.pending) > ahead:
            self.take()

    def take(self) -> None:
        """Merges the oldest batch that waits, after a check of its data."""
        finite, low, high, part = sharding.fetch(self.pending.popleft())
        if not bool(finite):
            raise DataError("the data hold NaN or infinity; clean them before measuring")
        if self.classes is not None:
            check_labels(int(low), int(high), self.classes)
        part = _to_host(part)
        if self.merged is not None:
            part = jax.tree.map(_merge, self.merged, part, is_leaf=_mergeable)
        self.merged = part


def accumulate(
    kernel: Callable[[Shaped[Array, "n ..."], Int[Array, " n"], Float[Array, " n"]], Any],
    batches: Batches,
    progress: ProgressFn | None = None,
    words: str = "measuring",
    classes: int | None = None,
) -> Any:
    """Runs `kernel(x, y, mask)` on every batch and merges what it returns.

    Args:
        kernel: jitted; returns a tree of `Moments`, `Products`, `Squares` and sums.
        batches: pairs (x [n, ...], y int [n]), all of one size but the last.
        progress: called as (batches done, batches in all or 0, words).
        words: what progress says.
        classes: labels must lie in [0, classes), where this is given.

    Returns:
        The tree of all samples, NumPy float64.

    Raises:
        DataError: see `pad_batches`; x holds NaN or infinity; labels outside the classes.
    """
    total = len(batches) if hasattr(batches, "__len__") else 0  # pyright: ignore[reportArgumentType]
    merger = _Merger(classes)
    for i, (x, y, mask) in enumerate(pad_batches(batches)):
        merger.add((*inspect_batch(x, y), kernel(x, y, mask)))
        if progress:
            progress(i + 1, total, words)
    while merger.pending:
        merger.take()
    return jax.tree.map(
        lambda node: node.absolute() if isinstance(node, (Products, Squares)) else node,
        merger.merged,
        is_leaf=_mergeable,
    )


def inspect_batch(x: Shaped[Array, "n ..."], y: Int[Array, " n"]) -> tuple[Any, Any, Any]:
    """Returns whether x is finite, and the smallest and the largest label.

    Where the data lie on the host it is done there, with nothing to compile for each new shape.
    """
    if sharding.is_on_host(x):
        return _inspect(np.asarray(x), np.asarray(y), np)
    return _inspect_on_device(x, y)


def _inspect(x: AnyArray, y: AnyArray, xp: ModuleType) -> tuple[Any, Any, Any]:
    floating = jnp.issubdtype(x.dtype, jnp.inexact)
    return xp.isfinite(x).all() if floating else xp.array(True), y.min(), y.max()


@jax.jit
def _inspect_on_device(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    return _inspect(x, y, jnp)
