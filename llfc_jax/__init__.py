"""Mode connectivity, layer by layer: train pairs, align them, measure LMC and LLFC.

`llfc_jax.study` is the whole report for two modes of any network; every step of it can be had
alone. The rooms, each importable alone: `llfc_jax.graph` (a network as its trace),
`llfc_jax.measures`, `llfc_jax.matching`, `llfc_jax.networks`, `llfc_jax.data`,
`llfc_jax.training`, `llfc_jax.report`, `llfc_jax.convert`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llfc_jax.experiments.study import study
    from llfc_jax.experiments.study_result import Study
    from llfc_jax.frameworks import Network

__version__ = "0.1.0"
__all__ = ["Network", "Study", "study"]

# Imported where they are first used, so that a room alone stays as light as it is.
_LAZY = {
    "Network": "frameworks",
    "Study": "experiments.study_result",
    "compare": "experiments.compare",
    "study": "experiments.study",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'llfc_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"llfc_jax.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
