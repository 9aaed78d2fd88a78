"""The persistent compilation cache: what one process has compiled serves the next.

JAX keeps compiled programs in a folder if it is given one. Here the folder lies in the user's cache
directory, one for each kind of machine and version of JAX (programs for a CPU use its features, and
may crash on another), bounded in size, and safe to share between processes and to kill.
"""

import hashlib
import os
import platform
from pathlib import Path

import jax

MAX_BYTES = 1 << 30  # of the folder; the programs used longest ago go first
MIN_SECONDS = 0.1  # programs that compile faster than that are not worth a file


def enable(folder: str | os.PathLike[str] | None = None) -> Path:
    """Keeps compiled programs in a folder from now on, and use those that it holds.

    A folder that the environment variable `JAX_COMPILATION_CACHE_DIR` names takes precedence.

    Args:
        folder: where they go; `llfc_jax/compiled` in the user's cache directory if None.

    Returns:
        The folder of this kind of machine.
    """
    if named := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(named)
    place = Path(folder) if folder else default_folder()
    place = place.expanduser() / machine_features()
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)
    jax.config.update("jax_raise_persistent_cache_errors", False)
    return place


def default_folder() -> Path:
    """Returns the folder for compiled programs in the user's cache directory."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "llfc_jax" / "compiled"


def machine_features() -> str:
    """Returns a name for this kind of machine: versions, architecture and features of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        features = sorted({line for line in lines if line.startswith(("flags", "Features"))})
    except OSError:
        features = [platform.processor()]
    named = "\n".join([platform.machine(), jax.__version__, *features])
    return hashlib.sha256(named.encode()).hexdigest()[:16]
