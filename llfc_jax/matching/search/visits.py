"""The order in which coordinate ascent visits the families: the published code's random one.

Sweep s takes `jax.random.permutation(jax.random.fold_in(key, s), families)`. Compiling that one
line takes longer than most matchings, so that for JAX's default generator the same integers are
computed here in NumPy: Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers:
as easy as 1, 2, 3"), counters and rounds of sorting as in `jax.random`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from llfc_jax.errors import MatchingError

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def visit_order(key: jax.Array, sweep: int, families: int) -> Int[np.ndarray, " families"]:
    """Returns `jax.random.permutation(jax.random.fold_in(key, sweep), families)`: [families]."""
    words = _threefry_words(key)
    if words is None:
        return np.asarray(jax.random.permutation(jax.random.fold_in(key, sweep), families))
    state = np.stack(_threefry(words, np.zeros(1, np.uint32), np.array([sweep], np.uint32)))[:, 0]
    order = np.arange(families)
    # Enough rounds of sorting by random 32-bit numbers that ties do not matter.
    for _ in range(math.ceil(3 * math.log(max(1, families)) / math.log(2**32 - 1))):
        state, numbers = np.stack(_threefry(state, np.zeros(2, np.uint32), _count(2)), -1)
        high, low = _threefry(numbers, np.zeros(families, np.uint32), _count(families))
        order = order[np.argsort(high ^ low, kind="stable")]
    return order


def _threefry_words(key: jax.Array) -> np.ndarray | None:
    """Returns the two words of a key of JAX's default generator; None for a key of any other.

    Raises:
        MatchingError: it is no key.
    """
    if not isinstance(key, (jax.Array, np.ndarray)):
        raise MatchingError(f"key must be a random key, such as jax.random.key(0), not {key!r}")
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if str(jax.random.key_impl(key)) != "threefry2x32":
            return None
        key = jax.random.key_data(key)
    if key.shape != (2,) or not jax.config.jax_threefry_partitionable:  # pyright: ignore
        return None
    return np.asarray(key)


def _count(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.uint32)


def _threefry(
    key: np.ndarray, left: np.ndarray, right: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Encrypts pairs of words, elementwise, in five groups of four rounds."""
    schedule = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    left, right = left + schedule[0], right + schedule[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            left = left + right
            right = (right << np.uint32(rotation)) | (right >> np.uint32(32 - rotation))
            right = right ^ left
        left = left + schedule[(group + 1) % 3]
        right = right + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return left, right
