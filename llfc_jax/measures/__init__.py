"""What is asked of a pair of modes; each measure is a question to the traced network.

Every function takes `(apply, a, b, batches, ...)` and returns a result with `.records()`. θ_α is
α a + (1 - α) b throughout. `MEASURES` lists them by name for configs and reports.
"""

from llfc_jax.measures import commutativity as _commutativity
from llfc_jax.measures import ensemble as _ensemble
from llfc_jax.measures import layerwise as _layerwise
from llfc_jax.measures import llfc as _llfc
from llfc_jax.measures import lmc as _lmc
from llfc_jax.measures import spectrum as _spectrum
from llfc_jax.measures import stitching as _stitching
from llfc_jax.measures import theorem1 as _theorem
from llfc_jax.measures import weak_additivity as _weak
from llfc_jax.measures.commutativity import Commutativity, commutativity
from llfc_jax.measures.ensemble import Ensemble, ensemble
from llfc_jax.measures.evaluator import ALPHAS, Line, line
from llfc_jax.measures.layerwise import LayerwiseLMC, layerwise_lmc
from llfc_jax.measures.llfc import LLFC, llfc
from llfc_jax.measures.lmc import LMC, lmc
from llfc_jax.measures.measure import Measure, Setup
from llfc_jax.measures.similarity import Rows, compare
from llfc_jax.measures.spectrum import Spectrum, spectrum
from llfc_jax.measures.stitching import Stitching, stitching
from llfc_jax.measures.theorem1 import Theorem1, theorem1
from llfc_jax.measures.weak_additivity import WeakAdditivity, weak_additivity

# In the order in which the report tells them. A new measure is one file and its line here.
_ALL = (
    _lmc,
    _llfc,
    _ensemble,
    _weak,
    _commutativity,
    _theorem,
    _stitching,
    _layerwise,
    _spectrum,
)
MEASURES: dict[str, Measure] = {module.MEASURE.name: module.MEASURE for module in _ALL}

__all__ = [
    "ALPHAS",
    "LLFC",
    "LMC",
    "MEASURES",
    "Commutativity",
    "Ensemble",
    "LayerwiseLMC",
    "Line",
    "Measure",
    "Rows",
    "Setup",
    "Spectrum",
    "Stitching",
    "Theorem1",
    "WeakAdditivity",
    "commutativity",
    "compare",
    "ensemble",
    "layerwise_lmc",
    "line",
    "llfc",
    "lmc",
    "spectrum",
    "stitching",
    "theorem1",
    "weak_additivity",
]
