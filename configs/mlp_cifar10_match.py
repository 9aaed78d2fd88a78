"""Row P2 of the LLFC paper: independent MLPs 512 x 3 on CIFAR-10, aligned by permutation.

Reproduces: LMC and LLFC of permuted pairs, before and after each method.
Costs: full: minutes on a GPU, hours on two CPU cores. small (12,000 of Fashion-MNIST as 32 x 32 x
3, 12 epochs): 5 CPU minutes a seed. tiny: seconds.
Shows: a high barrier and no linear features before; both far lower after matching.
"""

from typing import Any

from llfc_jax.experiments import paper as recipes
from llfc_jax.matching import METHODS


def get_config(scale: str = "full") -> Any:
    """The config; for SGD `--config.train.optimizer=sgd --config.train.learning_rate=0.1`."""
    return recipes.row(
        scale,
        data={"name": "cifar10"},
        network={"name": "mlp", "widths": (512, 512, 512)},
        train={
            **recipes.REBASIN,
            "batch_size": 100,
            "optimizer": "adamw",
            "learning_rate": 5e-4,
            "weight_decay": 1e-4,
            "schedule": "warmup_cosine",
            "warmup_epochs": 1,
            "augment": recipes.CROP_FLIP_AND_ROTATE,
        },
        pairs=("independent",),
        align=("none", *METHODS),
        small={
            "data": {**recipes.STAND_IN, "train_size": 12_000},
            "train": {"epochs": 12, "augment": {}},
        },
        tiny={
            "data": recipes.TINY_IMAGES,
            "network": {"widths": (24, 24)},
            "train": {"epochs": 4, "batch_size": 50, "augment": {"crop": 1, "rotate": 10}},
            "align": ("none", "weight", "activation"),
        },
    )
