"""The check that every matching method starts with."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from llfc_jax.pair import check_pair
from llfc_jax.symmetry.spec import PermutationSpec


def check_modes(spec: PermutationSpec, a: Any, b: Any) -> None:
    """See that a and b are modes of the spec's network (their values only outside a trace).

    Raises:
        ModeError: other structures or shapes, or values that are not finite.
        MatchingError: they are modes of another network.
    """
    leaves = jax.tree.leaves((a, b))
    shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(mode)] for mode in (a, b)]
    alike = jax.tree.structure(a) == jax.tree.structure(b) and shapes[0] == shapes[1]
    traced = any(isinstance(leaf, Tracer) for leaf in leaves)
    if not alike or not leaves or not (traced or bool(_finite(leaves))):
        check_pair(a, b)  # says which leaf is at fault
    spec.check_variables(a)


@jax.jit
def _finite(leaves: list[jax.Array]) -> jax.Array:
    # A sum of squares is read fastest, and is finite only where every entry is.
    inexact = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.array([jnp.isfinite(jnp.vdot(leaf, leaf)) for leaf in inexact]).all()
