"""Splits that are too large for the device: their samples are read while they are used, by Grain.

The decoded images of a prepared set are memory-mapped files, so such a split needs no more room on
the host than what is read ahead. What is read is a function of a position alone, so a
training run that keeps the position (the step in its state) resumes with the same samples.
"""

import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax

from llfc_jax.data.dataset import Dataset, Split

T = TypeVar("T")

MEMORY_SHARE = 0.25  # of the device's memory that a split may take
READS_AHEAD = 2  # besides the one in use


def is_streamed(split: Split, dataset: Dataset) -> bool:
    """Says whether a split is streamed because it is larger than what may lie on the device.

    That is `dataset.resident_mb`, or a quarter of the device's memory (on a CPU, the machine's).
    The samples and their order are the same either way.
    """
    if dataset.resident_mb is not None:
        return split.images.nbytes > dataset.resident_mb * 10**6
    return split.images.nbytes > MEMORY_SHARE * _memory()


def _memory() -> int:
    """Returns the bytes of the first device's memory, or of the machine's if that is unknown."""
    found = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return found or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def read_ahead(read: Callable[[int], T], start: int, stop: int) -> Iterator[T]:
    """Yields `read(start)`, ..., `read(stop - 1)`, the next ones being read in threads.

    Args:
        read: called from several threads; depends on nothing but the position.
        start: first position.
        stop: one past the last.
    """
    import grain  # takes a second to import

    positions = grain.MapDataset.range(start, stop)
    options = grain.ReadOptions(num_threads=READS_AHEAD, prefetch_buffer_size=READS_AHEAD)
    return iter(positions.map(read).to_iter_dataset(options))
