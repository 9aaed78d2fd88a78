"""How a result was made: versions, device and time, beside the settings that it records."""

import datetime
import importlib.metadata
import os
import platform
from typing import Any

import jax

from llfc_jax.version import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")


def provenance() -> dict[str, Any]:
    """Returns what a number depends on besides its settings, and when it was written."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"environment": environment(), "written": now}


def environment() -> dict[str, Any]:
    """Returns versions of packages, the device, and the settings of JAX that change numbers."""
    return {
        "llfc_jax": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "devices": jax.device_count(),
        "x64": jax.numpy.result_type(float) == "float64",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "platform": platform.platform(),
    }
