"""Programs that run so seldom that XLA should compile them quickly, not well.

On a CPU most of what XLA compiles is compiled by LLVM, kernel by kernel. Without its optimisations
a program is there in a quarter to a half of the time, and its loops then run two to three times
slower; products and convolutions run as fast, since they are in libraries. Numbers change by
rounding at most.
"""

from typing import Any

import jax
from jaxlib.version import __version__ as jaxlib_version

FLAGS: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
if jaxlib_version.startswith("0.10."):  # later ones have only the slower emitters
    FLAGS["xla_cpu_use_fusion_emitters"] = False


def compiler_options(quick: bool = True) -> dict[str, Any]:
    """Returns the `compiler_options` of `jax.jit` for a program that is to be compiled quickly.

    Args:
        quick: whether it is; there are no options otherwise, and none on accelerators.
    """
    return dict(FLAGS) if quick and jax.default_backend() == "cpu" else {}
