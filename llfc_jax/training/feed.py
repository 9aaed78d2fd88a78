"""What a dispatch of training steps takes its batches from: the whole split, or the next part.

The step is the same for both. It finds its batch's rows in an order of the samples; where the
split is streamed, the data are only the samples of the coming steps, already in that order.
"""

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from llfc_jax.data import Dataset, Split
from llfc_jax.data.stream import ahead, streamed
from llfc_jax.parallel import sharding

Data = tuple[jax.Array, jax.Array]  # images and labels; of each replica, or shared by all


def source(dataset: Dataset, mesh: Mesh | None = None) -> Data | Split:
    """The train split: on each device, or on the host where it is streamed."""
    train = dataset.train
    if streamed(train, dataset):
        return train
    return sharding.put((train.images, train.labels), mesh, sharding.EVERYWHERE)


def feed(data: Data | Split, orders: jax.Array, first: int, size: int) -> Iterator[Any]:
    """(data, orders) of one dispatch after another.

    Args:
        data: what `source` returned.
        orders: the samples' order in this epoch, int32 [replicas, samples].
        first: samples of the epoch that were used before.
        size: samples that a dispatch uses; it matters only if the split is streamed.

    Returns:
        Endlessly the whole split, shared by all replicas, and `orders`; or, as often as the epoch
        has it, the next `size` samples of each replica, [replicas, size, ...], and where they are
        among them. Each process reads the samples of the replicas on its own devices only.
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

    def read(number: int) -> tuple[Data, jax.Array]:
        start = first + number * size
        return (spread(data.images, start), spread(data.labels, start)), places

    return ahead(read, 0, (samples - first) // size)
