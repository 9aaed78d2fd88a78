"""The paper's systems as data: recipes that the config files of its rows share, at four scales.

`--config configs/vgg16_cifar10_spawn.py` is a row at full size. `...py:small` is the same code on a
CPU in minutes, with real Fashion-MNIST in CIFAR-10's shape where the row wants CIFAR-10.
`...py:middle`, where a row has it, is the network at full width on all of Fashion-MNIST, with
fewer epochs: minutes on a GPU. `...py:tiny` is for tests: seconds, on the embedded digits.
"""

from collections.abc import Mapping
from typing import Any

from llfc_jax.errors import ConfigError, unknown
from llfc_jax.experiments.config import base

SCALES = ("full", "middle", "small", "tiny")

# Rows S3 to S5: SGD as in the paper's appendix.
SGD: Mapping[str, Any] = {
    "epochs": 160,
    "batch_size": 128,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "schedule": "step",
    "boundaries": (80, 120),
}
# Rows S1 and S2.
ADAM: Mapping[str, Any] = {
    "epochs": 30,
    "batch_size": 128,
    "optimizer": "adam",
    "learning_rate": 1.2e-4,
    "weight_decay": 0.0,
    "schedule": "constant",
}
# Rows P1 to P3: Git Re-Basin's.
REBASIN: Mapping[str, Any] = {
    "epochs": 100,
    "batch_size": 500,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "schedule": "constant",
}
# Studies of where LLFC begins along the spawning epoch.
SPAWNED: Mapping[str, Any] = {
    "pairs": tuple(f"spawn_k{k}" for k in (0, 1, 2, 3, 5, 8)),
    "measures": ("lmc", "llfc", "commutativity", "weak_additivity"),
    "sweep": {"seed": (0, 1, 2, 3, 4)},
}
# Of 32 x 32 pixels; rows P2 and P3 turn the images as well.
CROP_AND_FLIP: Mapping[str, Any] = {"crop": 4, "flip": 0.5}
CROP_FLIP_AND_ROTATE: Mapping[str, Any] = {**CROP_AND_FLIP, "rotate": 30}

# Fashion-MNIST with CIFAR-10's shape: 32 x 32 pixels, three channels.
STAND_IN: Mapping[str, Any] = {"name": "fashion_mnist", "pad_to": 32, "channels": 3}
# The same at half the resolution: four times as fast, for the networks that can be made smaller so.
HALF_SIZE: Mapping[str, Any] = {**STAND_IN, "size": 14, "pad_to": 16}
TINY_IMAGES: Mapping[str, Any] = {"name": "digits", "train_size": 200, "test_size": 100}

# Row P3, and the study of what its width does.
LAYER_NORM_RESNETS: Mapping[str, Any] = {
    "data": {"name": "cifar10"},
    "network": {
        "name": "resnet_cifar",
        "depth": 20,
        "norm": "layer",
        "shortcut": "conv3",
        "width": 32.0,
    },
    "train": {
        **SGD,
        "epochs": 250,
        "batch_size": 100,
        "schedule": "warmup_cosine",
        "warmup_epochs": 5,
        "augment": CROP_FLIP_AND_ROTATE,
    },
    "pairs": ("independent",),
    "align": ("none", "weight", "activation"),
    "small": {
        "data": {**HALF_SIZE, "train_size": 6_000, "test_size": 2_000},
        "network": {"width": 1.0},
        # Without clipping some of these few steps are lost: ends of 39 to 47 % error, not 18 %.
        # Decay makes weights forget their random start, by e^(-λ η T / (1 - momentum)): the paper's
        # 1e-4 by e^-6 over 125,000 steps, by e^-0.02 over these 360; 0.01 by e^-1.8.
        "train": {
            "epochs": 6,
            "warmup_epochs": 1,
            "clip_norm": 1.0,
            "weight_decay": 0.01,
            "augment": {},
        },
    },
    "tiny": {
        "data": {**TINY_IMAGES, "pad_to": 16, "channels": 3, "train_size": 100},
        "network": {"width": 0.25},
        "train": {"epochs": 2, "batch_size": 50, "warmup_epochs": 1, "augment": {}},
        "align": ("none", "weight"),
    },
}


# Rows of independent transformers: alignments beyond permutations.
BEYOND: Mapping[str, Mapping[str, Any]] = {
    "weight_full": {"method": "weight", "symmetry": "full"},
    "activation_full": {"method": "activation", "symmetry": "full"},
    "learned_permutation": {"method": "learned", "symmetry": "permutation"},
    "learned_heads": {"method": "learned", "symmetry": "heads"},
    "learned_full": {"method": "learned", "symmetry": "full"},
    "linearity_full": {"method": "learned", "symmetry": "full", "objective": "linearity"},
}


def align_beyond_permutations(config: Any, scale: str) -> None:
    """Sets the alignments of a row, in place: permutations, and the variants in `BEYOND`."""
    tiny = scale == "tiny"
    names = ("weight_full", "learned_full") if tiny else tuple(BEYOND)
    config.align = ("none", *names) if tiny else ("none", "weight", "activation", *names)
    for name in names:
        learns = BEYOND[name]["method"] == "learned"
        steps = {"steps": 20 if tiny else 400} if learns else {}
        config.match[name] = {**BEYOND[name], **steps}


def row(
    scale: str,
    *,
    data: Mapping[str, Any],
    network: Mapping[str, Any],
    train: Mapping[str, Any],
    small: Mapping[str, Any],
    tiny: Mapping[str, Any],
    middle: Mapping[str, Any] | None = None,
    **fields: object,
) -> Any:
    """Returns the config of a row at a scale.

    Args:
        scale: "full", "middle", "small" or "tiny".
        data: the data set at full size.
        network: the network at full size.
        train: the recipe at full size.
        small: group ("data", "network", "train") or other field -> what differs at this scale.
        tiny: the same.
        middle: the same; None where the row has no such form.
        **fields: other fields of the config, at every scale.

    Raises:
        ConfigError: another scale.
    """
    changes = {"full": {}, "middle": middle, "small": small, "tiny": tiny}
    change_of = {name: change for name, change in changes.items() if change is not None}
    if scale not in change_of:
        raise ConfigError(unknown("scale", scale, change_of))
    config = base()
    groups: dict[str, Any] = {"data": dict(data), "network": dict(network), "train": dict(train)}
    fields = dict(fields)
    for name, change in change_of[scale].items():
        if name in groups:
            # Another data set brings its own cut and shape.
            keep = {} if name == "data" else groups[name]
            groups[name] = {**keep, **change}
        else:
            fields[name] = change
    config.network = groups["network"]
    for name in ("data", "train"):
        for field, value in groups[name].items():
            config[name][field] = value
    config.sweep.update(fields.pop("sweep", {}))
    for name, value in fields.items():
        config[name] = value
    return config
