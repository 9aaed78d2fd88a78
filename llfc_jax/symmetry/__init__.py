"""Symmetries: which units of a network may be moved without changing its function.

`permutation_spec` reads off a network's trace which units may trade places, and `check` proves it
on numbers; a `PermutationSpec` applies, composes, inverts and saves permutations.
"""

from llfc_jax.symmetry.axes import Permutation
from llfc_jax.symmetry.by_hand import permutation_spec_from_axes
from llfc_jax.symmetry.checking import check
from llfc_jax.symmetry.derive import derive, permutation_spec
from llfc_jax.symmetry.spec import Group, PermutationSpec, load

__all__ = [
    "Group",
    "Permutation",
    "PermutationSpec",
    "check",
    "derive",
    "load",
    "permutation_spec",
    "permutation_spec_from_axes",
]
