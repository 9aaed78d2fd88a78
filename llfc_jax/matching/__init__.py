"""Permutation matching: derive what may be permuted, find how, apply it.

`permutation_spec` reads off a network's trace which units may trade places; `align` finds the
permutation of one mode towards another by any of `METHODS`.
"""

from llfc_jax.matching.activation import activation_matching
from llfc_jax.matching.assignment import assign, assign_again
from llfc_jax.matching.axes import Permutation
from llfc_jax.matching.commutativity import commutativity_matching
from llfc_jax.matching.derive import check, derive, permutation_spec
from llfc_jax.matching.merge import Merged, merge
from llfc_jax.matching.methods import METHODS, Method, align, check_options
from llfc_jax.matching.output import output_matching
from llfc_jax.matching.result import Matching
from llfc_jax.matching.spec import Group, PermutationSpec, load
from llfc_jax.matching.ste import ste_matching
from llfc_jax.matching.typed import plain_spec
from llfc_jax.matching.weight import weight_matching

__all__ = [
    "METHODS",
    "Group",
    "Matching",
    "Merged",
    "Method",
    "Permutation",
    "PermutationSpec",
    "activation_matching",
    "align",
    "assign",
    "assign_again",
    "check",
    "check_options",
    "commutativity_matching",
    "derive",
    "load",
    "merge",
    "output_matching",
    "permutation_spec",
    "plain_spec",
    "ste_matching",
    "weight_matching",
]
