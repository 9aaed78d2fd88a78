"""In which precision measures compute: float32 or better, whatever the networks' own type is."""

from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp

from llfc_jax.measures.options import Precision


def wide(x: jax.Array) -> jax.Array:
    """Returns the array in float32 at least (float64 stays)."""
    x = jnp.asarray(x)
    keeps = jnp.issubdtype(x.dtype, jnp.inexact) and jnp.dtype(x.dtype).itemsize >= 4
    return x if keeps else x.astype(jnp.float32)


def matmul_precision(precision: Precision) -> AbstractContextManager[Any]:
    """Returns the context in which networks are traced and kernels compiled.

    On GPU and TPU products of float32 arrays default to TF32 or bfloat16, in which distances of
    1e-5 are noise; "highest" asks for full float32.
    """
    return jax.default_matmul_precision(precision)
