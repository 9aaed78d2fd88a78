"""Segmentation: a U-Net that says of every pixel which digit it is a part of, spawned.

Not in the LLFC paper: labels per pixel, and features that meet again over shortcuts.
Costs: about two minutes on two CPU cores; no download.
Shows (seed 0): 2 to 3 % of the pixels wrong; `spawn_k2` has a barrier of 0.2 points and linear
features, `independent` one of 36 points and features that do not add up.
"""

from ml_collections import ConfigDict

from llfc_jax.experiments.config import base


def get_config() -> ConfigDict:
    """The config."""
    config = base()
    config.data.name = "digits_pixels"
    config.task = "dense"
    config.network = {"name": "unet", "widths": (16, 32, 64)}
    config.train.update(epochs=20, batch_size=64, optimizer="adam", learning_rate=3e-3)
    config.train.update(schedule="cosine", weight_decay=0.0)
    config.pairs = ("spawn_k2", "independent")
    config.measures = ("lmc", "llfc", "ensemble", "weak_additivity", "commutativity")
    return config
