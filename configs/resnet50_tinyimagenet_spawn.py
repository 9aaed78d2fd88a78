"""Row S5 of the LLFC paper: ResNet-50 on Tiny-ImageNet, spawned at epoch 14.

Reproduces: LMC and LLFC of spawned ResNet-50s with bottleneck blocks, on 200 classes.
Costs: full: a day on one large GPU; the data set is prepared once from its archive by `python -m
llfc_jax.data.tfds.prepare tiny_imagenet --archives DIR`. small (a quarter of the width, 6,000 of
Fashion-MNIST as 16 x 16 x 3, 8 epochs, k = 2 and 4): 20 CPU minutes a seed for LMC, LLFC and
commutativity. tiny (ResNet-18): half a minute.
Shows: with k large enough no barrier, and features that add up at every layer; small: at k = 4 with
every seed, at k = 2 not with each.
"""

from typing import Any

from llfc_jax.experiments import paper as recipes


def get_config(scale: str = "full") -> Any:
    """The config."""
    return recipes.row(
        scale,
        data={"name": "tiny_imagenet"},
        network={"name": "resnet_imagenet", "depth": 50, "norm": "batch", "stem": 64},
        train={**recipes.SGD, "augment": {"crop": 8, "flip": 0.5}},
        pairs=("spawn_k14",),
        small={
            "data": {**recipes.HALF_SIZE, "train_size": 6_000, "test_size": 2_000},
            "network": {"width": 0.25, "stem": 32},
            "train": {"epochs": 8, "boundaries": (6,), "augment": {}},
            "pairs": ("spawn_k2", "spawn_k4"),
        },
        tiny={
            "data": {**recipes.TINY_IMAGES, "channels": 3, "train_size": 100},
            "network": {"depth": 18, "width": 0.05, "stem": 32},
            "train": {"epochs": 2, "batch_size": 50, "boundaries": (1,), "learning_rate": 0.02},
            "pairs": ("spawn_k1",),
        },
    )
