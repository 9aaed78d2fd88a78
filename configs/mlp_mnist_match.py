"""Row P1 of the LLFC paper: independent MLPs 512 x 3 on MNIST, aligned by permutation.

Reproduces: LMC and LLFC of permuted pairs, before and after each method.
Costs: full: 20 minutes on two CPU cores. small (Fashion-MNIST, 12 epochs): 5 CPU minutes a
seed. tiny: seconds.
Shows: a high barrier and no linear features before; both nearly gone after matching.
"""

from typing import Any

from llfc_jax.experiments import paper as recipes
from llfc_jax.matching import METHODS


def get_config(scale: str = "full") -> Any:
    """The config."""
    return recipes.row(
        scale,
        data={"name": "mnist"},
        network={"name": "mlp", "widths": (512, 512, 512)},
        train=recipes.REBASIN,
        pairs=("independent",),
        align=("none", *METHODS),
        small={"data": {"name": "fashion_mnist"}, "train": {"epochs": 12}},
        tiny={
            "data": recipes.TINY_IMAGES,
            "network": {"widths": (24, 24)},
            "train": {"epochs": 4, "batch_size": 50},
            "align": ("none", "weight", "activation"),
        },
    )
