"""Where matching runs: in NumPy on the host, or as compiled programs. Decided here alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import ArrayLike, PyTree


def on_host(tree: PyTree) -> bool:
    """Returns whether work on these arrays belongs to NumPy, and no program need be compiled.

    That is so where all values are known (no trace is under way) and lie whole in the memory of a
    CPU. Arrays of NumPy alone lie where JAX would place them.
    """
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, (jax.Array, Tracer))]
    if not leaves:
        return jax.default_backend() == "cpu"
    return not any(isinstance(leaf, Tracer) for leaf in leaves) and all(map(_on_cpu, leaves))


def _on_cpu(array: jax.Array) -> bool:
    whole = len(array.devices()) == 1 or (array.is_fully_addressable and array.is_fully_replicated)
    return whole and all(d.platform == "cpu" for d in array.devices())


def dtype_of(leaf: Any) -> Any:
    """Returns a leaf's type; `jnp.result_type` is slow for what says it already."""
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)


def host_array(leaf: ArrayLike, dtype: DTypeLike) -> np.ndarray:
    """Returns a leaf as NumPy's array, without a copy where its type is right."""
    return np.asarray(leaf).astype(dtype, copy=False)
