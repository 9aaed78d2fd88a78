"""What the methods that read data share."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from llfc_jax.errors import DataError, MatchingError

Batches = Iterable[tuple[Any, Any]]
Progress = Callable[[int, int, str], None]
"""Called as (done, in all or 0, words)."""


def take(batches: Batches, samples: int) -> jax.Array:
    """The first `samples` samples of the data (all, if there are fewer).

    Raises:
        DataError: there is no batch.
        MatchingError: `samples` is below 1.
    """
    if samples < 1:
        raise MatchingError(f"samples must be at least 1, not {samples}")
    taken: list[jax.Array] = []
    need = samples
    for x, _ in batches:
        taken.append(jnp.asarray(x)[:need])
        need -= len(taken[-1])
        if not need:
            break
    if not taken:
        raise DataError("matching on data needs some, and there is no batch")
    return jnp.concatenate(taken)
