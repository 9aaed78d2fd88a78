"""Mode connectivity, layer by layer: train pairs, align them, measure LMC and LLFC.

`llfc_jax.study` reports on two modes of any network in one call; `Network` is the common view of
networks of any framework, `Study` what a study returns, and `compare` shows runs side by side.
Each step can be used alone, from the subpackages: `graph` (a network as its trace), `symmetry`
(what may be moved in it), `matching`, `measures`, `tasks` (how outputs are judged), `merging`,
`networks`, `data`, `training`, `checkpoints`, `convert`, `landscape` (curves and planes through
modes), `report`, `experiments`, and `parallel` (devices and processes). All are imported when first
used. `load` and `save` read and write checkpoints.
"""

import importlib
from typing import TYPE_CHECKING, Any

from llfc_jax.version import __version__

if TYPE_CHECKING:
    from llfc_jax import (
        checkpoints,
        convert,
        data,
        experiments,
        graph,
        landscape,
        matching,
        measures,
        merging,
        networks,
        parallel,
        report,
        symmetry,
        tasks,
        training,
    )
    from llfc_jax.checkpoints.files import load, save
    from llfc_jax.experiments.compare import compare
    from llfc_jax.experiments.study import study
    from llfc_jax.experiments.study_result import Study
    from llfc_jax.frameworks import Network

__all__ = [
    "Network",
    "Study",
    "__version__",
    "checkpoints",
    "compare",
    "convert",
    "data",
    "experiments",
    "graph",
    "landscape",
    "load",
    "matching",
    "measures",
    "merging",
    "networks",
    "parallel",
    "report",
    "save",
    "study",
    "symmetry",
    "tasks",
    "training",
]

_NAMES = {
    "Network": "frameworks",
    "Study": "experiments.study_result",
    "compare": "experiments.compare",
    "load": "checkpoints.files",
    "save": "checkpoints.files",
    "study": "experiments.study",
}


def __getattr__(name: str) -> Any:
    """Imports a name when it is first used (PEP 562), so that each part alone stays light."""
    if name in _NAMES:
        return getattr(importlib.import_module(f"llfc_jax.{_NAMES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"llfc_jax.{name}")
    raise AttributeError(f"module 'llfc_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
