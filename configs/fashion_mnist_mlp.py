"""Row S1 of the LLFC paper with Fashion-MNIST for MNIST: an MLP 784-512-512-512-10, spawned.

Reproduces: Figures 1 and 2 (LMC and LLFC of a spawned pair), the conditions and stitching.
Costs: about a minute on two CPU cores. Needs the data set prepared once; see BUILD.md:
`python -m llfc_jax.data.prepare fashion_mnist`.
Shows: ends and middle alike at about .89 accuracy; features of the middle far closer to the mixture
than the two ends are to each other.
"""

from ml_collections import ConfigDict

from llfc_jax.config import base


def get_config() -> ConfigDict:
    """The config."""
    config = base()
    config.data.name = "fashion_mnist"
    config.network = {"name": "mlp", "widths": (512, 512, 512)}
    config.train.update(epochs=10, optimizer="adam", learning_rate=1.2e-4)
    config.train.update(schedule="constant", weight_decay=0.0)
    config.pairs = ("spawn_k1",)
    return config
