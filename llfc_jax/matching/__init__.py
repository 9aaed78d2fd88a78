"""Matching: find the symmetry that moves one mode towards another.

`align` finds it by any of `METHODS`. What may be moved is the subject of `llfc_jax.symmetry`, and
`llfc_jax.merging` makes one network of several.
"""

from llfc_jax.matching.align import align, check_symmetry, goes_beyond
from llfc_jax.matching.assignment.solvers import assign, assign_warm
from llfc_jax.matching.beyond.sets import restrict
from llfc_jax.matching.methods.activation import ActivationMatching, activation_matching
from llfc_jax.matching.methods.commutativity import CommutativityMatching, commutativity_matching
from llfc_jax.matching.methods.learned import LearnedMatching
from llfc_jax.matching.methods.output import OutputMatching, output_matching
from llfc_jax.matching.methods.ste import StraightThroughMatching, ste_matching
from llfc_jax.matching.methods.weight import WeightMatching, weight_matching
from llfc_jax.matching.problem import Problem
from llfc_jax.matching.registry import METHODS, Method, build_method, matching_method
from llfc_jax.matching.result import Match

__all__ = [
    "METHODS",
    "ActivationMatching",
    "CommutativityMatching",
    "LearnedMatching",
    "Match",
    "Method",
    "OutputMatching",
    "Problem",
    "StraightThroughMatching",
    "WeightMatching",
    "activation_matching",
    "align",
    "assign",
    "assign_warm",
    "build_method",
    "check_symmetry",
    "commutativity_matching",
    "goes_beyond",
    "matching_method",
    "output_matching",
    "restrict",
    "ste_matching",
    "weight_matching",
]
