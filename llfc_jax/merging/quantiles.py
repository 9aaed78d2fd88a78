"""Magnitudes of a given rank among the entries of task vectors.

On the host they are found exactly without holding the vector: the bits of floating-point
magnitudes, read as integers, have the same order, so each pass over the leaves counts how many fall
on each value of the next 16 bits. Two passes settle float32, four float64.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from llfc_jax.merging.rule import CHUNK

if TYPE_CHECKING:
    from llfc_jax.merging.inputs import MergeInputs

DIGIT = 16  # bits that a pass settles
Ranks = Callable[[int], Sequence[Any]]
"""Number of entries -> the ranks to look for; the largest entry has rank 1."""
Counts = dict[tuple[int, int], Int[np.ndarray, " digits"]]
"""(model, leading bits) -> how many entries have each value of the next bits."""


def _of_ranks(magnitudes: Float[Array, " n"], ranks: Ranks) -> list[Any]:
    """Returns the magnitudes of given ranks, which may be traced."""
    size = magnitudes.size
    ordered = jnp.pad(jnp.sort(magnitudes), 1, constant_values=(-jnp.inf, jnp.inf))
    return [ordered[jnp.clip(size + 1 - rank, 0, size + 1)] for rank in ranks(size)]


def find_thresholds(models: "MergeInputs", ranks: Ranks) -> list[list[Any]]:
    """Returns the magnitudes of given ranks in each model's task vector: [model][rank].

    On the host in two passes over the leaves (four for float64), with a block of each model in
    memory; on accelerators, and under a trace, from whole task vectors.

    Args:
        models: the models, and their base.
        ranks: number of entries -> ranks; a rank below 1 gives inf, above the number -inf.
    """
    if not models.on_host:
        parts: dict[int, list[Any]] = defaultdict(list)
        for leaf in models.leaves():
            for holder, task in zip(leaf.holders, leaf.tasks, strict=True):
                parts[holder].append(jnp.abs(task).reshape(-1))
        return [_of_ranks(jnp.concatenate([jnp.zeros(0), *parts[i]]), ranks)
                for i in range(models.count)]  # fmt: skip
    wanted = [[int(rank) for rank in ranks(size)] for size in models.sizes]
    inside = {(holder, rank) for holder, of in enumerate(wanted) for rank in of
              if 1 <= rank <= models.sizes[holder]}  # fmt: skip
    found = _select(models, inside)
    return [[found.get((holder, rank), np.inf if rank < 1 else -np.inf) for rank in of]
            for holder, of in enumerate(wanted)]  # fmt: skip


def _select(models: "MergeInputs", wanted: set[tuple[int, int]]) -> dict[tuple[int, int], Any]:
    """Returns (model, rank) -> the magnitude of that rank."""
    bits = np.dtype(f"uint{8 * models.dtype.itemsize}")
    leading = dict.fromkeys(wanted, 0)
    left = {key: key[1] for key in wanted}  # the rank among the entries that share these bits
    for shift in range(8 * bits.itemsize - DIGIT, -1, -DIGIT):
        counts: Counts = {(key[0], leading[key]): np.zeros(1 << DIGIT, np.int64) for key in wanted}
        for leaf in models.leaves() if wanted else ():
            for holder, task in zip(leaf.holders, leaf.tasks, strict=True):
                _count(np.abs(task).astype(models.dtype, copy=False).view(bits), holder, shift,
                       counts)  # fmt: skip
        for key in wanted:
            above = np.cumsum(counts[key[0], leading[key]][::-1])  # from the largest digit down
            place = int(np.searchsorted(above, left[key]))
            left[key] -= int(above[place - 1]) if place else 0
            leading[key] = leading[key] << DIGIT | (1 << DIGIT) - 1 - place
    return {key: bits.type(value).view(models.dtype) for key, value in leading.items()}


def _count(magnitudes: np.ndarray, holder: int, shift: int, counts: Counts) -> None:
    """Adds a leaf's entries to the counts of one model's digits."""
    flat, kind = magnitudes.reshape(-1), magnitudes.dtype.type
    first = shift + DIGIT == 8 * magnitudes.itemsize
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        leading = None if first else part >> kind(shift + DIGIT)
        for prefix in [prefix for of, prefix in counts if of == holder]:
            here = part if leading is None else part[leading == prefix]
            digits = (here >> kind(shift)) & kind((1 << DIGIT) - 1)
            counts[holder, prefix] += np.bincount(digits.astype(np.int64), minlength=1 << DIGIT)
