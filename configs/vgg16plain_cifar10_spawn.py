"""Row S3 of the LLFC paper without normalisation: plain VGG-16 on CIFAR-10, spawned at epoch 5.

Reproduces: LMC and LLFC of spawned VGG-16s, as `vgg16_cifar10_spawn.py` does with BatchNorm.
Costs: as there. full: hours on one GPU. small (VGG-11 at 1/8 width, 8,000 of Fashion-MNIST as 32 x
32 x 3, 8 epochs): 4 CPU minutes a seed, measured. tiny: seconds.
Shows: with k large enough no barrier, and features that add up at every layer; at k = 0 neither.
Plain networks of this depth die easily, and a dead one looks like perfect LLFC: hence the rate of
the VGG paper (0.01), at the small scale a warm-up, and 128 hidden units rather than a few behind
the dropout. Where an end is at chance all the same, the report says that LLFC means nothing there.
"""

from typing import Any

from llfc_jax.experiments import paper as recipes


def get_config(scale: str = "full") -> Any:
    """The config."""
    return recipes.row(
        scale,
        data={"name": "cifar10"},
        network={"name": "vgg", "depth": 16, "norm": "none"},
        train={**recipes.SGD, "learning_rate": 0.01, "augment": recipes.CROP_AND_FLIP},
        pairs=("spawn_k5",),
        small={
            "data": {**recipes.STAND_IN, "train_size": 8_000, "test_size": 2_000},
            "network": {"depth": 11, "width": 0.125, "hidden": (1024, 1024)},
            "train": {
                "epochs": 8,
                "learning_rate": 0.02,
                "schedule": "warmup_cosine",
                "warmup_epochs": 1,
                "augment": {},
            },
            "pairs": ("spawn_k0", "spawn_k2"),
        },
        tiny={
            "data": {**recipes.TINY_IMAGES, "pad_to": 32, "channels": 3},
            "network": {"depth": 11, "width": 0.0625, "hidden": (16,)},
            "train": {"epochs": 2, "batch_size": 50, "boundaries": (1,), "learning_rate": 0.02},
            "pairs": ("spawn_k1",),
        },
    )
