"""Splits that are too large for the device: their samples are read while they are used, by Grain.

The decoded images of a prepared set are memory-mapped files, so such a split needs no more room on
the host than what is read ahead. What is read is a function of a position alone; whoever keeps the
position (a training run: the step in its state) goes on from there with the same samples.
"""

import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax

from llfc_jax.data.dataset import Dataset, Split

T = TypeVar("T")

SHARE = 0.25  # of the device's memory that a split may take
AHEAD = 2  # reads under way besides the one in use


def streamed(split: Split, dataset: Dataset) -> bool:
    """Whether a split is streamed, because it is larger than what may lie on the device.

    That is `dataset.resident_mb`, or a quarter of the device's memory (on a CPU, the machine's).
    The samples and their order are the same either way.
    """
    if dataset.resident_mb is not None:
        return split.images.nbytes > dataset.resident_mb * 10**6
    return split.images.nbytes > SHARE * _memory()


def _memory() -> int:
    """Bytes of the first device's memory, or of the machine's where it does not say."""
    found = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return found or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def ahead(read: Callable[[int], T], start: int, stop: int) -> Iterator[T]:
    """`read(start)`, ..., `read(stop - 1)` in this order, the next ones under way in threads.

    Args:
        read: called from several threads; depends on nothing but the position.
        start: first position.
        stop: one past the last.
    """
    import grain  # a second to import, and only here

    positions = grain.MapDataset.range(start, stop)
    options = grain.ReadOptions(num_threads=AHEAD, prefetch_buffer_size=AHEAD)
    return iter(positions.map(read).to_iter_dataset(options))
