"""The samples from which a dispatch of training steps takes its batches: all, or the next ones.

The step is the same for both. It finds its batch's rows in an order of the samples; where the
split is streamed, the data are only the samples of the coming steps, already in that order.
"""

from collections.abc import Iterator
from itertools import repeat
from typing import TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int

from llfc_jax.data import Dataset, Split
from llfc_jax.data.stream import is_streamed, read_ahead
from llfc_jax.parallel import sharding

Samples: TypeAlias = tuple[jax.Array, jax.Array]
"""Images and labels: of each replica, or shared by all."""


def place_train_split(dataset: Dataset, mesh: Mesh | None = None) -> Samples | Split:
    """Returns the train split: on each device, or on the host where it is streamed."""
    train = dataset.train
    if is_streamed(train, dataset):
        return train
    return sharding.put((train.images, train.labels), mesh, sharding.EVERYWHERE)


def feed_dispatches(
    data: Samples | Split, orders: Int[Array, "replica samples"], first: int, size: int
) -> Iterator[tuple[Samples, Int[Array, "replica samples"]]]:
    """Yields (samples, orders) of one dispatch after another.

    Args:
        data: what `place_train_split` returned.
        orders: the samples' order in this epoch.
        first: number of samples of the epoch that were used before.
        size: number of samples that a dispatch uses; it matters only if the split is streamed.

    Yields:
        Endlessly the whole split, shared by all replicas, and `orders`; or, until the end of the
        epoch, the next `size` samples of each replica, [replicas, size, ...], and their places
        among these. Each process reads the samples of the replicas on its own devices only.
    """
    if not isinstance(data, Split):
        return repeat((data, orders))
    samples, where, parts = orders.shape[1], orders.sharding, orders.addressable_shards
    rows = [np.asarray(part.data) for part in parts]
    table = np.broadcast_to((np.arange(samples, dtype=np.int32) - first) % size, orders.shape)
    places = jax.make_array_from_callback(orders.shape, where, lambda part: table[part])

    def spread(array: np.ndarray, start: int) -> jax.Array:
        some = [
            jax.device_put(np.take(array, row[:, start : start + size], axis=0), part.device)
            for row, part in zip(rows, parts, strict=True)
        ]
        shape = (orders.shape[0], *some[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, where, some)

    def read(number: int) -> tuple[Samples, jax.Array]:
        start = first + number * size
        return (spread(data.images, start), spread(data.labels, start)), places

    return read_ahead(read, 0, (samples - first) // size)
