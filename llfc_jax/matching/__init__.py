"""Matching: find the symmetry that moves one mode towards another.

`align` finds it by any of `METHODS`; `merge` makes one network of several. What may be moved is
the subject of `llfc_jax.symmetry`.
"""

from llfc_jax.matching.assignment.solvers import assign, assign_warm
from llfc_jax.matching.merge import Merged, merge
from llfc_jax.matching.methods.activation import activation_matching
from llfc_jax.matching.methods.commutativity import commutativity_matching
from llfc_jax.matching.methods.output import output_matching
from llfc_jax.matching.methods.ste import ste_matching
from llfc_jax.matching.methods.weight import weight_matching
from llfc_jax.matching.registry import METHODS, Method, align, check_options
from llfc_jax.matching.result import Matching

__all__ = [
    "METHODS",
    "Matching",
    "Merged",
    "Method",
    "activation_matching",
    "align",
    "assign",
    "assign_warm",
    "check_options",
    "commutativity_matching",
    "merge",
    "output_matching",
    "ste_matching",
    "weight_matching",
]
