"""Row S1 of the LLFC paper: an MLP 784-512-512-512-10 on MNIST, spawned.

Reproduces: Figures 1 and 2 (LMC and LLFC of spawned pairs), the conditions and stitching.
Costs: full: about 10 minutes on two CPU cores. small (Fashion-MNIST, 10 epochs): about two minutes.
tiny: seconds.
Shows: ends and middle alike in accuracy; features of the middle far closer to the mixture than the
two ends are to each other.
"""

from typing import Any

from llfc_jax.experiments import paper as recipes


def get_config(scale: str = "full") -> Any:
    """The config."""
    return recipes.row(
        scale,
        data={"name": "mnist"},
        network={"name": "mlp", "widths": (512, 512, 512)},
        train=recipes.ADAM,
        pairs=("spawn_k1", "spawn_k5"),
        small={
            "data": {"name": "fashion_mnist"},
            "train": {"epochs": 10},
            "pairs": ("spawn_k1",),
        },
        tiny={
            "data": recipes.TINY_IMAGES,
            "network": {"widths": (24, 24)},
            "train": {"epochs": 4, "batch_size": 50, "learning_rate": 1e-3},
            "pairs": ("spawn_k1",),
        },
    )
