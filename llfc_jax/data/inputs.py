"""Data as users have them, as batches that can be iterated repeatedly."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.data.batches import Batches as SplitBatches
from llfc_jax.data.dataset import Dataset
from llfc_jax.errors import DataError
from llfc_jax.tasks.batch import TARGETS, Batch, read_batch
from llfc_jax.types import Batches

BATCH_SIZE = 500  # samples in a batch, where arrays are cut up
Data: TypeAlias = Any
"""What users may pass as data: see `as_batches`."""


class Arrays:
    """Inputs and targets, a batch at a time; the whole lies on the device.

    Args:
        batch: all samples as one batch (`llfc_jax.tasks.Batch`).
        batch_size: samples in a batch; the last one may be shorter.

    Raises:
        DataError: inputs and targets differ in number, are empty, or are no numbers.
    """

    def __init__(self, batch: object, batch_size: int) -> None:
        self._batch = jax.tree.map(jnp.asarray, read_batch(batch))
        self._samples = len(jax.tree.leaves(self._batch)[0])
        self._size = batch_size

    def __len__(self) -> int:
        return math.ceil(self._samples / self._size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, self._samples, self._size):
            at = slice(start, start + self._size)
            yield jax.tree.map(lambda leaf, at=at: leaf[at], self._batch)


class Loaded:
    """Batches of any loader, each taken apart; can be iterated as often as the loader can.

    Args:
        start: returns an iterator over the batches, from the first one.
        loader: whose length it has.
    """

    def __init__(self, start: Callable[[], Iterable[Any]], loader: object) -> None:
        self._start, self._loader = start, loader

    def __len__(self) -> int:
        return len(self._loader)  # pyright: ignore[reportArgumentType]

    def __iter__(self) -> Iterator[Batch]:
        return map(read_batch, self._start())


def as_splits(
    data: Data, train: Data | None = None, batch_size: int = BATCH_SIZE
) -> dict[str, Batches]:
    """Returns split -> its batches, of whatever `llfc_jax.study` takes as data.

    Args:
        data: (x, labels), batches that can be iterated repeatedly, or a `llfc_jax.data.Dataset`.
        train: the same for the training split, of a data set its own; by default that of `data`.
        batch_size: samples in a batch, where arrays are cut up.

    Raises:
        DataError: it is none of these.
    """
    if batch_size < 1:
        raise DataError(f"batch_size must be 1 or more, not {batch_size}")
    splits: dict[str, Batches] = {}
    train = data if train is None and isinstance(data, Dataset) else train
    if isinstance(train, Dataset):
        splits["train"] = SplitBatches(train.train, train, batch_size)
    elif train is not None:
        splits["train"] = as_batches(train, batch_size)
    return splits | {"test": as_batches(data, batch_size)}


def as_batches(data: object, batch_size: int = BATCH_SIZE) -> Batches:
    """Returns batches that can be iterated repeatedly, of whatever holds data.

    - arrays `(x, targets)` or `(x, targets, mask)`, or a mapping of arrays with an entry `labels`
      (see `llfc_jax.tasks.Batch`): cut up;
    - a `llfc_jax.data.Dataset`: its test split;
    - a Hugging Face data set, or what else has `iter(batch_size=...)`;
    - a function without arguments that returns an iterator, for streams;
    - any iterable of batches that can be gone through again: a list, a PyTorch `DataLoader`, a
      `tf.data.Dataset`, a Grain data set or loader.

    Raises:
        DataError: it is none of these, or an iterator, which can be read only once.
    """
    if isinstance(data, Dataset):
        return SplitBatches(data.test, data, batch_size)
    if isinstance(data, (SplitBatches, Arrays, Loaded)):
        return cast(Batches, data)
    if isinstance(data, Mapping) or _is_batch_of_arrays(data):
        return cast(Batches, Arrays(data, batch_size))
    cut_up = getattr(data, "iter", None)
    if cut_up is not None and hasattr(data, "column_names"):
        return cast(Batches, Loaded(partial(cut_up, batch_size=batch_size), None))
    start = getattr(data, "__iter__", None)
    if start is None and callable(data):
        return cast(Batches, Loaded(cast("Callable[[], Iterable[Any]]", data), None))
    if start is None:
        raise DataError(
            f"data are a {type(data).__name__}; pass (x, labels), batches of such pairs, or a "
            "llfc_jax.data.Dataset"
        )
    if hasattr(data, "__next__"):
        raise DataError(
            "data are a generator, which can be iterated only once; pass a list of batches, "
            "(x, labels), or a function that returns a fresh one (data=lambda: ...)"
        )
    return cast(Batches, Loaded(start, data))


def _is_batch_of_arrays(data: object) -> bool:
    """Returns whether a tuple or list is inputs and targets, and not batches of them."""
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        return False
    x, y = data[:2]
    if hasattr(x, "shape") and hasattr(y, "shape"):
        return True
    is_tree = isinstance(x, tuple) or (isinstance(x, Mapping) and not set(TARGETS) & set(x))
    of_arrays = hasattr(y, "shape") or isinstance(y, Mapping)
    return isinstance(data, tuple) and of_arrays and (is_tree or hasattr(x, "shape"))


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
