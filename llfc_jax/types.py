"""Types that several parts of the package share, each written once.

Shapes are written with `jaxtyping` where they are known: `Float[Array, "layer alpha"]`.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import PyTree

AnyArray: TypeAlias = jax.Array | np.ndarray
"""An array on a device or on the host."""

Variables: TypeAlias = PyTree[AnyArray]
"""A network's arrays: parameters, and whatever else it computes with (running statistics)."""

Apply: TypeAlias = Callable[[Variables, Any], jax.Array]
"""`apply(variables, x) -> logits`: a network as a pure function."""

Batch: TypeAlias = tuple[AnyArray, AnyArray]
"""(x [n, ...], labels [n])."""

Batches: TypeAlias = Iterable[Batch]
"""Batches that can be gone through again and again."""

ProgressFn: TypeAlias = Callable[[int, int, str], None]
"""Called as (done, in all or 0 where that is not known, words)."""

Static: TypeAlias = Any
"""A value of the user's that is only handed on: the one honest use of `Any`."""
