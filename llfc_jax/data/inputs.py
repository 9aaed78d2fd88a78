"""Data as users have them, as batches that can be iterated repeatedly."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from llfc_jax.data.batches import Batches as SplitBatches
from llfc_jax.data.dataset import Dataset
from llfc_jax.errors import DataError
from llfc_jax.types import Batches

Data: TypeAlias = tuple[ArrayLike, ArrayLike] | Batches | Dataset
"""What users may pass as data: (x, labels), batches of such pairs, or a data set."""


class Arrays:
    """Samples and labels, a batch at a time; the whole lies on the device.

    Args:
        x: [n, ...], as the network takes it.
        y: integer labels [n].
        batch_size: samples in a batch; the last one may be shorter.

    Raises:
        DataError: they differ in number, are empty, or the labels are not integers [n].
    """

    def __init__(self, x: ArrayLike, y: ArrayLike, batch_size: int) -> None:
        for what, array in (("x", x), ("labels", y)):
            dtype = getattr(array, "dtype", None) or np.asarray(array).dtype
            if np.dtype(dtype).kind in "OSUMm":
                raise DataError(f"{what} are {dtype}; make them numbers")
        self._x, self._y = jnp.asarray(x), jnp.asarray(y)
        self._size = batch_size
        if self._y.ndim != 1 or not jnp.issubdtype(self._y.dtype, jnp.integer):
            raise DataError(
                f"labels are {self._y.dtype} {self._y.shape}; make them whole numbers [n], the "
                "class of each sample"
            )
        if not self._x.ndim or len(self._x) != len(self._y) or not len(self._y):
            raise DataError(f"x has shape {self._x.shape}, but there are {len(self._y)} labels")

    def __len__(self) -> int:
        return math.ceil(len(self._y) / self._size)

    def __iter__(self) -> Iterator[tuple[jax.Array, jax.Array]]:
        for start in range(0, len(self._y), self._size):
            at = slice(start, start + self._size)
            yield self._x[at], self._y[at]


def as_splits(data: Data, train: Data | None = None, batch_size: int = 500) -> dict[str, Batches]:
    """Returns split -> its batches, of whatever `llfc_jax.study` takes as data.

    Args:
        data: (x, labels), batches that can be iterated repeatedly, or a `llfc_jax.data.Dataset`.
        train: the same for the training split; a data set brings its own.
        batch_size: samples in a batch, where arrays are cut up.

    Raises:
        DataError: it is none of these.
    """
    if batch_size < 1:
        raise DataError(f"batch_size must be 1 or more, not {batch_size}")
    splits: dict[str, Batches] = {}
    if isinstance(data, Dataset):
        splits["train"] = SplitBatches(data.train, data, batch_size)
    if train is not None:
        splits["train"] = as_batches(train, batch_size)
    return splits | {"test": as_batches(data, batch_size)}


def as_batches(data: Data, batch_size: int) -> Batches:
    """Returns arrays cut up, batches as they are, and the test split of a data set.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(data, Dataset):
        return SplitBatches(data.test, data, batch_size)
    if isinstance(data, (tuple, list)) and [hasattr(part, "shape") for part in data] == [True] * 2:
        x, y = cast("tuple[ArrayLike, ArrayLike]", data)
        return Arrays(x, y, batch_size)
    if isinstance(data, Mapping) or not hasattr(data, "__iter__"):
        raise DataError(
            f"data are a {type(data).__name__}; pass (x, labels), batches of such pairs, or a "
            "llfc_jax.data.Dataset"
        )
    if iter(data) is data:
        raise DataError(
            "data are a generator, which can be iterated only once; pass a list of batches, "
            "or (x, labels)"
        )
    return cast(Batches, data)


def hash_arrays(tree: object) -> str:
    """Returns 16 hex digits of the SHA-256 over all arrays of a tree, or of all batches.

    Types, shapes and bytes enter.
    """
    digest = hashlib.sha256()
    parts = [tree] if isinstance(tree, Mapping) or not isinstance(tree, Iterable) else tree
    for part in parts:
        for leaf in jax.tree.leaves(part):
            array = np.asarray(leaf)
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
