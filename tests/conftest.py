"""Settings of every test: the CPU unless told otherwise, and no silent rank promotion."""

import os
import signal

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")

# A shell's background jobs ignore Ctrl-C, and so would the tests of it, and what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
