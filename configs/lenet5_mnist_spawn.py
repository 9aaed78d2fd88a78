"""Row S2 of the LLFC paper: LeNet-5 on MNIST, spawned.

Reproduces: LMC and LLFC of spawned LeNets; k from 0 shows where they begin.
Costs: full: minutes on a GPU. small (Fashion-MNIST, 12,000 samples, 6 epochs): 3 CPU minutes a
seed, measured. tiny: seconds.
Shows: from an early k on no barrier, and features that add up at every layer.
"""

from typing import Any

from llfc_jax.experiments import paper as recipes


def get_config(scale: str = "full") -> Any:
    """The config."""
    return recipes.row(
        scale,
        data={"name": "mnist"},
        network={"name": "lenet5"},
        train=recipes.ADAM,
        pairs=("spawn_k0", "spawn_k1", "spawn_k5"),
        small={
            "data": {"name": "fashion_mnist", "train_size": 12_000},
            "train": {"epochs": 6, "learning_rate": 1e-3},
            "pairs": ("spawn_k0", "spawn_k1", "spawn_k2"),
        },
        tiny={
            "data": {**recipes.TINY_IMAGES, "pad_to": 28},
            "train": {"epochs": 2, "batch_size": 50, "learning_rate": 1e-3},
            "pairs": ("spawn_k1",),
        },
    )
