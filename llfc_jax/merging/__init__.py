"""Merging: one model made of several, by any rule of `RULES`.

`merge` works on trees in memory or in files, `merge_files` on checkpoints in several files,
`search` finds a rule's coefficients on held-out data, and `diagnose` says where a merge breaks.
"""

from llfc_jax.merging.averages import GeometricMedian, KarcherMean, Mean, Slerp, Weighted
from llfc_jax.merging.diagnosis import Diagnosis, diagnose
from llfc_jax.merging.files import merge_files
from llfc_jax.merging.informed import FisherWeighted, RegMean
from llfc_jax.merging.joint import match_jointly
from llfc_jax.merging.merge import merge
from llfc_jax.merging.options import MergeOptions
from llfc_jax.merging.rebasin import C2M3, GitRebasin, Merged, merge_many
from llfc_jax.merging.registry import RULES, build_rule, merge_rule
from llfc_jax.merging.rule import Leaf, LeafRule, Rule
from llfc_jax.merging.search import SearchResult, search
from llfc_jax.merging.soups import GreedySoup
from llfc_jax.merging.statistics import InputGram, fisher_diagonal, input_grams
from llfc_jax.merging.task_vectors import Breadcrumbs, Dare, Della, TaskArithmetic, Ties

__all__ = [
    "C2M3",
    "RULES",
    "Breadcrumbs",
    "Dare",
    "Della",
    "Diagnosis",
    "FisherWeighted",
    "GeometricMedian",
    "GitRebasin",
    "GreedySoup",
    "InputGram",
    "KarcherMean",
    "Leaf",
    "LeafRule",
    "Mean",
    "MergeOptions",
    "Merged",
    "RegMean",
    "Rule",
    "SearchResult",
    "Slerp",
    "TaskArithmetic",
    "Ties",
    "Weighted",
    "build_rule",
    "diagnose",
    "fisher_diagonal",
    "input_grams",
    "match_jointly",
    "merge",
    "merge_files",
    "merge_many",
    "merge_rule",
    "search",
]
