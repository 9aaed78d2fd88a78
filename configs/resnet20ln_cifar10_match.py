"""Row P3 of the LLFC paper: wide ResNet-20s with LayerNorm on CIFAR-10, aligned by permutation.

Reproduces: LMC and LLFC of permuted ResNets at width x 32; `--config.network.width=4` for others.
Costs: full: a day on one large GPU. small (width 1, 6,000 of Fashion-MNIST as 16 x 16 x 3, 6
epochs): about 5 minutes on two CPU cores, too narrow to be connected; width 2: 12 minutes, 4: 40
minutes. tiny: half a minute.
Shows: the wider the networks, the lower the barrier after matching, and features that add up with
it.
"""

from typing import Any

from llfc_jax import recipes


def get_config(scale: str = "full") -> Any:
    """The config."""
    return recipes.row(
        scale,
        data={"name": "cifar10"},
        network={
            "name": "resnet_cifar",
            "depth": 20,
            "norm": "layer",
            "shortcut": "conv3",
            "width": 32.0,
        },
        train={
            **recipes.SGD,
            "epochs": 250,
            "batch_size": 100,
            "schedule": "warmup_cosine",
            "warmup_epochs": 5,
            "augment": recipes.CROP_FLIP_AND_ROTATE,
        },
        pairs=("independent",),
        align=("none", "weight", "activation"),
        small={
            "data": {**recipes.HALF_SIZE, "train_size": 6_000, "test_size": 2_000},
            "network": {"width": 1.0},
            "train": {"epochs": 6, "warmup_epochs": 1, "augment": {}},
        },
        tiny={
            "data": {**recipes.TINY_IMAGES, "pad_to": 16, "channels": 3, "train_size": 100},
            "network": {"width": 0.25},
            "train": {"epochs": 2, "batch_size": 50, "warmup_epochs": 1, "augment": {}},
            "align": ("none", "weight"),
        },
    )
