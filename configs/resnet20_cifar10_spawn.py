"""Row S4 of the LLFC paper: ResNet-20 on CIFAR-10, spawned at epoch 5.

Reproduces: LMC and LLFC of spawned ResNet-20s; stitching 8.99 to 13.35 % error, ends 8.69 and 8.58
%.
Costs: full: an hour on one GPU. middle (Fashion-MNIST's 60,000 images as 32 x 32 x 3, 20 epochs):
five minutes on one GPU, measured. small (full width, 6,000 of Fashion-MNIST as 16 x 16 x 3, 8
epochs): 12 CPU minutes a seed, measured. tiny: half a minute.
Shows: with k large enough no barrier, and features that add up at every layer; at k = 0 neither.
BatchNorm's statistics are interpolated with the weights, as in the paper;
`eval.renormalise=reset` takes them anew at every point of the line.
"""

from typing import Any

from llfc_jax.experiments import paper as recipes


def get_config(scale: str = "full") -> Any:
    """The config."""
    return recipes.row(
        scale,
        data={"name": "cifar10"},
        network={"name": "resnet_cifar", "depth": 20, "norm": "batch", "shortcut": "pad"},
        train={**recipes.SGD, "augment": recipes.CROP_AND_FLIP},
        pairs=("spawn_k5",),
        middle={
            "data": recipes.STAND_IN,
            "train": {"epochs": 20, "boundaries": (10, 15)},
            "pairs": ("spawn_k0", "spawn_k1", "spawn_k2"),
        },
        small={
            "data": {**recipes.HALF_SIZE, "train_size": 6_000, "test_size": 2_000},
            "train": {"epochs": 8, "boundaries": (6,), "augment": {}},
            "pairs": ("spawn_k0", "spawn_k1", "spawn_k2", "spawn_k4"),
        },
        tiny={
            "data": {**recipes.TINY_IMAGES, "pad_to": 16, "channels": 3, "train_size": 100},
            "network": {"width": 0.25},
            "train": {"epochs": 2, "batch_size": 50, "boundaries": (1,), "learning_rate": 0.02},
            "pairs": ("spawn_k1",),
        },
    )
