"""A small vision transformer on the embedded digits: spawned, independent, and matched with heads.

Not in the LLFC paper: heads of attention trade places, and so do the widths inside each head.
Costs: about a minute on two CPU cores.
Shows: `spawn_k3` (3 of 30 epochs shared) is connected and its features are linear; `independent` is
not, and permutations mend little of it: activation matching a part, weight matching nothing.
"""

from ml_collections import ConfigDict

from llfc_jax.experiments.config import base


def get_config() -> ConfigDict:
    """The config."""
    config = base()
    config.data.name = "digits"
    config.network = {
        "name": "vit",
        "patch": 2,
        "dim": 64,
        "depth": 2,
        "heads": 4,
        "mlp_dim": 256,
        "activation": "relu",
    }
    config.train.update(epochs=30, optimizer="adam", learning_rate=2e-3)
    config.train.update(schedule="cosine", warmup_epochs=2, weight_decay=0.0)
    config.pairs = ("spawn_k3", "independent")
    config.align = ("none", "weight", "activation")
    config.measures = ("lmc", "llfc", "commutativity")
    return config
