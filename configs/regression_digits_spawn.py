"""Regression: an MLP that draws the lower half of a digit from its upper half, spawned.

Not in the LLFC paper: a task without an error rate; the barrier is that of the squared error.
Costs: under a minute on two CPU cores; no download.
Shows (seed 0): `spawn_k2` has no barrier, and linear features; `independent` has one of 2.6 times
the way from its error to that of the mean image, 1.7 times after weight matching.
"""

from ml_collections import ConfigDict

from llfc_jax.experiments.config import base


def get_config() -> ConfigDict:
    """The config."""
    config = base()
    config.data.name = "digits_halves"
    config.task = "regression"
    config.network = {"name": "mlp", "widths": (256, 256)}
    config.train.update(epochs=40, optimizer="adam", learning_rate=1e-3)
    config.train.update(schedule="cosine", weight_decay=0.0)
    config.pairs = ("spawn_k2", "independent")
    config.align = ("none", "weight")
    return config
