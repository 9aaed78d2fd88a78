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
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from llfc_jax.errors import DataError
from llfc_jax.graph.outputs import check_labels, inspect_batch
from llfc_jax.parallel import sharding
from llfc_jax.tasks import Batch, Task, classification, count_batches, read_batch
from llfc_jax.types import AnyArray, Batches, Inputs, ProgressFn, Scalar

CLASSIFICATION = classification()
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Covariance:
    """Count, means, and summed products of the deviations from them, of many quantities.

    Held divided by `scale` (means) and its square (products); merging is exact, as of `Moments`.
    """

    count: Any
    mean: Any
    products: Any
    scale: Any

    def merge(self, other: "Covariance") -> "Covariance":
        """Returns the covariance of both sets of samples together."""
        p, q = self.absolute(), other.absolute()
        n = p.count + q.count
        gap = q.mean - p.mean
        between = np.outer(gap, gap) * (p.count * q.count / max(n, 1))
        mean = p.mean + gap * (q.count / max(n, 1))
        return Covariance(n, mean, p.products + q.products + between, p.scale)

    def absolute(self) -> "Covariance":
        """Returns it with the scale multiplied in, in float64."""
        scale = np.asarray(self.scale, np.float64)
        products = self.products * np.square(scale)
        return Covariance(self.count, self.mean * scale, products, np.ones_like(scale))


def covariance(
    rows: Float[Array, "quantities n"], mask: Float[Array, " n"], scale: Scalar
) -> Covariance:
    """Returns the covariance of rows over the columns whose mask is 1.

    Args:
        rows: the quantities.
        mask: which columns count.
        scale: about the size of their entries, a power of two.
    """
    rows, n = jnp.where(mask > 0, rows / scale, 0), mask.sum()
    mean = rows.sum(1) / jnp.maximum(n, 1)
    off = jnp.where(mask > 0, rows - mean[:, None], 0)
    return Covariance(n, mean, jnp.matmul(off, off.T, precision="highest"), scale)


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
    return isinstance(node, (Moments, Products, Squares, Covariance))


def _merge(one: PyTree, other: PyTree) -> Any:
    return one.merge(other) if _mergeable(one) else one + other


def _to_host(tree: PyTree) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def pad_batches(batches: Batches, task: Task = CLASSIFICATION) -> Iterator[Batch]:
    """Yields every batch, all of the first one's size (on a mesh, of its multiple), with its mask.

    The mask is [n], or [n, t] where the batch has such a one or the task is one of tokens.

    Raises:
        DataError: no batch at all, an iterator (it can be read only once, and every measure reads
            the first batch before its pass), a batch larger than the first or of samples of
            another shape, targets that do not fit x; masks that are 0 everywhere.
    """
    if iter(batches) is batches:
        raise DataError("batches are a generator, which can be read only once; pass a list of them")
    first: list[tuple[int, ...]] = []
    counted = False
    for given in batches:
        x, y, mask = batch = read_batch(given)
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(batch)]
        first, n = first or shapes, shapes[0][0]
        if n > first[0][0]:
            raise DataError(
                f"a batch of {n} follows one of {first[0][0]}: only the last may be smaller"
            )
        if [shape[1:] for shape in shapes] != [shape[1:] for shape in first]:
            raise DataError(
                f"a batch of shapes {_words(shapes)} follows one of {_words(first)}; make all "
                "samples of one shape (pad them, and pass a mask)"
            )
        mesh = sharding.of(x)
        spec = sharding.samples_of(x)
        parts = sharding.size(mesh, spec)
        size = -(-first[0][0] // parts) * parts
        mask = np.asarray(task.default_mask(y, n) if mask is None else mask, np.float32)
        padded, counted = (x, y, mask), counted or bool(mask.any())
        if n < size:
            padded = jax.tree.map(partial(_fill, size=size, mode="edge"), (x, y))
            padded = *padded, _fill(mask, size, "constant")
        padded = jax.tree.map(jnp.asarray, padded)
        yield Batch(*(padded if mesh is None else sharding.put(padded, mesh, spec)))
    if not first:
        raise DataError("there is no batch to measure on")
    if not counted:
        raise DataError("nothing of the data counts: their masks are 0 everywhere")


def _fill(leaf: AnyArray, size: int, mode: str) -> jax.Array:
    """Returns an array [n, ...] with samples added up to a size: the last one's, or zeros."""
    lacking = [(0, size - np.shape(leaf)[0])] + [(0, 0)] * (np.ndim(leaf) - 1)
    return jnp.pad(jnp.asarray(leaf), lacking, mode=mode)


def _words(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes))


class _Merger:
    """Statistics of batches in flight, fetched and merged in order."""

    def __init__(self, classes: int | None, task: Task) -> None:
        self.classes, self.task = classes, task
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
            raise DataError("the data hold NaN or infinity; clean them first")
        if self.classes is not None:
            check_labels(int(low), int(high), self.classes, self.task)
        part = _to_host(part)
        if self.merged is not None:
            part = jax.tree.map(_merge, self.merged, part, is_leaf=_mergeable)
        self.merged = part


def accumulate(
    kernel: Callable[[Inputs, Any, jax.Array], Any],
    batches: Batches,
    progress: ProgressFn | None = None,
    words: str = "measuring",
    classes: int | None = None,
    task: Task = CLASSIFICATION,
) -> Any:
    """Runs `kernel(x, y, mask)` on every batch and merges what it returns.

    Args:
        kernel: jitted; returns a tree of `Moments`, `Products`, `Squares` and sums.
        batches: pairs (x [n, ...], targets), all of one size but the last.
        progress: called as (batches done, batches in all or 0, words).
        words: what progress says.
        classes: labels must lie in [0, classes), where this is given.
        task: how outputs are judged.

    Returns:
        The tree of all samples, NumPy float64.

    Raises:
        DataError: see `pad_batches`; x holds NaN or infinity; labels outside the classes.
    """
    total = count_batches(batches)
    merger = _Merger(classes, task)
    for i, batch in enumerate(pad_batches(batches, task)):
        merger.add((*inspect_batch(batch, task), kernel(*batch)))
        if progress:
            progress(i + 1, total, words)
    while merger.pending:
        merger.take()
    return jax.tree.map(
        lambda node: node.absolute() if isinstance(node, (Products, Squares, Covariance)) else node,
        merger.merged,
        is_leaf=_mergeable,
    )
