"""Contrastive learning: two towers that match the upper half of a digit with its lower, spawned.

Not in the LLFC paper: two outputs, and a loss that compares the samples of a batch. Its numbers
depend on the batch size (`eval.batch_size`): each half has that many candidates.
Costs: under a minute on two CPU cores; no download.
Shows (seed 0): among 90 halves more than half find their partner; `spawn_k2` has a barrier of one
point and linear features, `independent` one of 50 points and features that do not add up.
"""

from ml_collections import ConfigDict

from llfc_jax.experiments.config import base


def get_config() -> ConfigDict:
    """The config."""
    config = base()
    config.data.name = "digits_towers"
    config.task = "contrastive"
    config.network = {"name": "towers", "widths": (256,), "dim": 32}
    config.train.update(epochs=40, batch_size=128, optimizer="adam", learning_rate=1e-3)
    config.train.update(schedule="cosine", weight_decay=0.0)
    config.eval.batch_size = 90
    config.pairs = ("spawn_k2", "independent")
    config.measures = ("lmc", "llfc", "weak_additivity", "commutativity", "cka")
    return config
