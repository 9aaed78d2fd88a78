"""Row P1 of the LLFC paper with Fashion-MNIST for MNIST: independent MLPs, aligned by permutation.

Reproduces: Figure 3 (LMC and LLFC of permuted pairs) for the MLP: before, and after each method.
Costs: a few minutes on two CPU cores. Needs the data set prepared once; see BUILD.md:
`python -m llfc_jax.data.prepare fashion_mnist`.
Shows: a high barrier and no linear features before; both nearly gone after matching.
"""

from ml_collections import ConfigDict

from llfc_jax.config import base
from llfc_jax.matching import METHODS


def get_config() -> ConfigDict:
    """The config."""
    config = base()
    config.data.name = "fashion_mnist"
    config.network = {"name": "mlp", "widths": (512, 512, 512)}
    config.train.update(epochs=12, batch_size=500, optimizer="adam", learning_rate=1e-3)
    config.train.update(schedule="constant", weight_decay=0.0)
    config.pairs = ("independent",)
    config.align = ("none", *METHODS)
    return config
