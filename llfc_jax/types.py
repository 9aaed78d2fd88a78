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

Inputs: TypeAlias = PyTree[AnyArray]
"""What a network is called with: a batch [n, ...], or its shape where it is only traced."""

Outputs: TypeAlias = PyTree[AnyArray]
"""What a network returns: an array, or a tree of arrays [n, ...]."""

Targets: TypeAlias = PyTree[AnyArray]
"""What outputs are judged against: labels, numbers, a tree of them, or None."""

Totals: TypeAlias = PyTree[np.ndarray]
"""What was summed over a data set, on the host."""

Scalar: TypeAlias = float | jax.Array
"""A number, or a traced one."""

Model: TypeAlias = object
"""A network or a mode in its framework's own form, which `frameworks.Network` takes apart."""

Apply: TypeAlias = Callable[[Variables, Inputs], Any]
"""`apply(variables, x) -> outputs`: a network as a pure function.

What it returns is `Any`, because Linen declares that `module.apply` may return more than that.
"""

Batch: TypeAlias = tuple[Inputs, Targets]
"""(x [n, ...], targets), or another form of a batch (`llfc_jax.tasks.Batch`)."""

Batches: TypeAlias = Iterable[Batch]
"""Batches that can be gone through again and again."""

ProgressFn: TypeAlias = Callable[[int, int, str], None]
"""Called as (done, in all or 0 where that is not known, words)."""
