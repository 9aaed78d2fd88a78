"""Quickstart: one spawned pair and one independent pair of MLPs on the embedded digits.

Reproduces in small what the LLFC paper says of spawned networks, with its control.
Costs: about half a minute on two CPU cores, compilation included; no network, no download.
Shows: `spawn_k1` (the first epoch of 20 shared) has no error barrier, and at nearly every layer its
features at the middle are more than 10 times closer to the mixture of the ends' features than the
ends are to each other; `independent` has a barrier of several points, and features that do not add
up.
"""

from ml_collections import ConfigDict

from llfc_jax.experiments.config import base


def get_config() -> ConfigDict:
    """The config."""
    config = base()
    config.data.name = "digits"
    config.network = {"name": "mlp", "widths": (512, 512, 512)}
    config.train.update(epochs=20, optimizer="adam", learning_rate=1e-3)
    config.train.update(schedule="constant", weight_decay=0.0)
    config.pairs = ("spawn_k1", "independent")
    return config
