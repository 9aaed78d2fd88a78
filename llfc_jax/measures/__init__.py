"""What is measured of a pair of modes, from one set of forward passes of the traced network.

Every measure is a frozen dataclass of its own options, listed by name in `MEASURES`; `EvalOptions`
holds what all measurements share. `PairEvaluator` measures several of them in one pass; the
functions below measure one each: `lmc(network, a, b, batches)`. θ_α is α a + (1 - α) b throughout.
"""

from llfc_jax.measures.evaluator import PairEvaluator
from llfc_jax.measures.measure import Measure
from llfc_jax.measures.options import EvalOptions
from llfc_jax.measures.registry import (
    MEASURES,
    build,
    build_all,
    check_options,
    check_request,
    measure,
    refusals,
)
from llfc_jax.measures.similarity import Rows, compare

# The report's order is that of these lines: each file lists its measure as it is imported.
# isort: off
from llfc_jax.measures.lmc import LMC, LMCResult, lmc
from llfc_jax.measures.llfc import LLFC, LLFCResult, llfc
from llfc_jax.measures.ctl import CTL, CTLResult, ctl
from llfc_jax.measures.ensemble import Ensemble, EnsembleResult, ensemble
from llfc_jax.measures.weak_additivity import WeakAdditivity, WeakAdditivityResult, weak_additivity
from llfc_jax.measures.commutativity import Commutativity, CommutativityResult, commutativity
from llfc_jax.measures.theorem1 import Theorem1, Theorem1Result, theorem1
from llfc_jax.measures.stitching import Stitching, StitchingResult, stitching
from llfc_jax.measures.layerwise import Layerwise, LayerwiseResult, layerwise
from llfc_jax.measures.spectrum import Spectrum, SpectrumResult, spectrum
from llfc_jax.measures.cka import CKA, CKAResult, cka
# isort: on

__all__ = [
    "CKA",
    "CTL",
    "LLFC",
    "LMC",
    "MEASURES",
    "CKAResult",
    "CTLResult",
    "Commutativity",
    "CommutativityResult",
    "Ensemble",
    "EnsembleResult",
    "EvalOptions",
    "LLFCResult",
    "LMCResult",
    "Layerwise",
    "LayerwiseResult",
    "Measure",
    "PairEvaluator",
    "Rows",
    "Spectrum",
    "SpectrumResult",
    "Stitching",
    "StitchingResult",
    "Theorem1",
    "Theorem1Result",
    "WeakAdditivity",
    "WeakAdditivityResult",
    "build",
    "build_all",
    "check_options",
    "check_request",
    "cka",
    "commutativity",
    "compare",
    "ctl",
    "ensemble",
    "layerwise",
    "llfc",
    "lmc",
    "measure",
    "refusals",
    "spectrum",
    "stitching",
    "theorem1",
    "weak_additivity",
]
