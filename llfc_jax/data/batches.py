"""Batches on the device: a split is put there once, as stored, and cut up under jit.

A split that is too large for that is streamed (`llfc_jax.data.stream`); the batches are the same.
"""

import functools
import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from llfc_jax.data.checks import check_positive
from llfc_jax.data.dataset import Dataset, Split
from llfc_jax.data.stream import is_streamed, read_ahead
from llfc_jax.errors import DataError
from llfc_jax.parallel import sharding


def normalise(
    images: np.ndarray | jax.Array, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
    """Returns `(x / 255 - mean) / std` of uint8 images, `(x - mean) / std` of floating ones.

    Tokens (int32) are returned as they are.

    Args:
        images: [..., channels], uint8 or floating; or tokens.
        mean: one number per channel, or one in all.
        std: the same.

    Returns:
        float32 (int32 of tokens), of the shape of `images`. Traces under jit, vmap and grad.

    Raises:
        DataError: for images of another type.

    Examples:
        >>> float(normalise(np.full((1, 1), 255, np.uint8), mean=(0.5,), std=(0.25,))[0, 0])
        2.0
    """
    x = jnp.asarray(images)
    if x.dtype == jnp.int32:
        return x
    if x.dtype == jnp.uint8:
        x = x.astype(jnp.float32) / 255
    elif jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(jnp.float32)
    else:
        raise DataError(f"images are {x.dtype}; make them uint8 or floating")
    shape = (1,) * (x.ndim - 1) + (-1,)
    return (x - jnp.asarray(mean, jnp.float32).reshape(shape)) / jnp.asarray(
        std, jnp.float32
    ).reshape(shape)


@functools.partial(jax.jit, static_argnames=("size", "mean", "std", "mesh"))
def _cut(
    images: jax.Array,
    labels: jax.Array,
    start: int,
    size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    mesh: Mesh | None,
) -> tuple[jax.Array, jax.Array]:
    x = jax.lax.dynamic_slice_in_dim(images, start, size)
    batch = normalise(x, mean, std), jax.lax.dynamic_slice_in_dim(labels, start, size)
    return sharding.constrain(batch, mesh, sharding.EVERYWHERE)


class Batches:
    """A split in its order, `batch_size` samples at a time; can be iterated repeatedly.

    The whole split lies on the device as it is stored (uint8 takes a quarter of float32's memory),
    unless it is streamed; only the batch at hand is float32.

    Args:
        split: what to cut up.
        dataset: whose mean and std normalise the images.
        batch_size: samples in a batch; the last one may be shorter.
        mesh: the devices, where there are several; each has a copy.

    Attributes:
        samples: number of samples.
        batch_size: as given, or the number of samples if that is less.

    Raises:
        DataError: if `batch_size` is not a positive whole number.

    Examples:
        >>> from llfc_jax import data
        >>> digits = data.load("digits", test_size=10)
        >>> [x.shape for x, y in data.Batches(digits.test, digits, batch_size=8)]
        [(8, 8, 8, 1), (2, 8, 8, 1)]
    """

    def __init__(
        self, split: Split, dataset: Dataset, batch_size: int, mesh: Mesh | None = None
    ) -> None:
        check_positive(batch_size, "batch_size")
        self.samples = len(split)
        self.batch_size = min(batch_size, self.samples)
        self._mesh, self._streamed = mesh, is_streamed(split, dataset)
        data = split.images, split.labels
        if not self._streamed:
            data = sharding.put(data, mesh, sharding.EVERYWHERE)
        self._images, self._labels = data
        self._fixed = tuple(dataset.mean), tuple(dataset.std), mesh

    def __len__(self) -> int:
        return math.ceil(self.samples / self.batch_size)

    def __iter__(self) -> Iterator[tuple[jax.Array, jax.Array]]:
        if self._streamed:
            return read_ahead(self._read, 0, len(self))
        return map(self._cut, range(len(self)))

    def _bounds(self, number: int) -> tuple[int, int]:
        """Returns the first sample and the number of samples of a batch."""
        start = number * self.batch_size
        return start, min(self.batch_size, self.samples - start)

    def _cut(self, number: int) -> tuple[jax.Array, jax.Array]:
        """Returns a batch of the split on the device."""
        return _cut(self._images, self._labels, *self._bounds(number), *self._fixed)

    def _read(self, number: int) -> tuple[jax.Array, jax.Array]:
        """Returns a batch of the split on the host."""
        start, size = self._bounds(number)
        some = tuple(array[start : start + size] for array in (self._images, self._labels))
        return _cut(*sharding.put(some, self._mesh, sharding.EVERYWHERE), 0, size, *self._fixed)
