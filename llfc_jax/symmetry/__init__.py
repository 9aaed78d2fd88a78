"""Symmetries: which units of a network may be moved without changing its function.

`permutation_spec` reads off a network's trace which units may trade places, and `check` proves it
on numbers; a `PermutationSpec` applies, composes, inverts and saves permutations. `symmetry_spec`
reads off what else may be done: matrices, scales and signs (`beyond`).
"""

from llfc_jax.symmetry.axes import Permutation
from llfc_jax.symmetry.beyond.derive import symmetry_spec
from llfc_jax.symmetry.beyond.element import Element
from llfc_jax.symmetry.beyond.spec import SymmetrySpec
from llfc_jax.symmetry.beyond.transport import Transport
from llfc_jax.symmetry.by_hand import permutation_spec_from_axes
from llfc_jax.symmetry.checking import check
from llfc_jax.symmetry.derive import derive, permutation_spec
from llfc_jax.symmetry.spec import Group, PermutationSpec
from llfc_jax.symmetry.stored import load
from llfc_jax.symmetry.untying import untie

__all__ = [
    "Element",
    "Group",
    "Permutation",
    "PermutationSpec",
    "SymmetrySpec",
    "Transport",
    "check",
    "derive",
    "load",
    "permutation_spec",
    "permutation_spec_from_axes",
    "symmetry_spec",
    "untie",
]
