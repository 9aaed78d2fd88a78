"""Settings of every test: the CPU unless said otherwise, and no silent rank promotion."""

import os
import signal
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What one test, worker or started process has compiled serves the others, and the next run.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "compiled")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax
import pytest

from llfc_jax.parallel import quick

# Most of the time of these tests is compilation, and little of what is compiled runs long: so it is
# compiled quickly, not well. `XLA_FLAGS= pytest` has it compiled as users have it.
QUICKLY = quick.FLAGS | {"xla_cpu_parallel_codegen_split_count": 1}
os.environ.setdefault(
    "XLA_FLAGS", " ".join(f"--{name}={value}".lower() for name, value in QUICKLY.items())
)
jax.config.update("jax_numpy_rank_promotion", "raise")

# A shell's background jobs ignore Ctrl-C, and so would the tests of it, and what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def _release_programs():
    """Lets go of a file's programs: all of them together take 5 GB."""
    yield
    jax.clear_caches()
