"""Where LLFC begins: LeNet-5s spawned at k = 0, 1, 2, 3, 5, 8 from one trunk, five seeds.

Reproduces: the rise of LLFC with LMC along the spawning epoch, with intervals over seeds.
Costs: full (real Fashion-MNIST): some three hours on two CPU cores. small (20,000 images): 50 CPU
minutes. tiny: seconds. `--shard 0/4` to `3/4` split it over processes or machines that share the
directory.
Shows: the barrier is within a point everywhere and gone after the first epoch; the features go on
coming closer to the mixture with k.
"""

from typing import Any

from llfc_jax.experiments import paper as recipes


def get_config(scale: str = "full") -> Any:
    """The config."""
    return recipes.row(
        scale,
        data={"name": "fashion_mnist"},
        network={"name": "lenet5"},
        train={**recipes.ADAM, "epochs": 10, "learning_rate": 1e-3},
        **recipes.SPAWNED,
        small={"data": {"name": "fashion_mnist", "train_size": 20_000}},
        tiny={
            "data": {**recipes.TINY_IMAGES, "pad_to": 28},
            "train": {"epochs": 2, "batch_size": 50},
            "pairs": ("spawn_k0", "spawn_k1"),
            "sweep": {"seed": (0, 1)},
        },
    )
