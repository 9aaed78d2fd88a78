"""What is asked of a pair of modes; each measure is a question to the traced network.

Every function takes `(apply, a, b, batches, ...)` and returns a result with `.records()`. θ_α is
α a + (1 - α) b throughout. `MEASURES` lists them by name for configs and reports.
"""

from llfc_jax.measures import ensemble as _ensemble
from llfc_jax.measures import llfc as _llfc
from llfc_jax.measures import lmc as _lmc
from llfc_jax.measures.ensemble import Ensemble, ensemble
from llfc_jax.measures.line import ALPHAS, Line, line
from llfc_jax.measures.llfc import LLFC, llfc
from llfc_jax.measures.lmc import LMC, lmc
from llfc_jax.measures.measure import Measure, Setup

MEASURES: dict[str, Measure] = {
    module.MEASURE.name: module.MEASURE for module in (_lmc, _llfc, _ensemble)
}

__all__ = [
    "ALPHAS",
    "LLFC",
    "LMC",
    "MEASURES",
    "Ensemble",
    "Line",
    "Measure",
    "Setup",
    "ensemble",
    "line",
    "llfc",
    "lmc",
]
