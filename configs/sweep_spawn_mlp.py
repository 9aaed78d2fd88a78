"""Where LLFC begins: MLPs spawned at k = 0, 1, 2, 3, 5, 8 from one trunk, five seeds.

Reproduces: the rise of LLFC with LMC along the spawning epoch, with intervals over seeds.
Costs: full (real Fashion-MNIST): about 30 minutes on two CPU cores. small (20,000 images): 12
minutes. tiny: seconds. `--shard 0/4` to `3/4` split it over processes or machines that share the
directory.
Shows: an MLP has hardly a barrier even at k = 0; the features come closer to the mixture with k.
"""

from typing import Any

from llfc_jax.experiments import paper as recipes


def get_config(scale: str = "full") -> Any:
    """The config."""
    return recipes.row(
        scale,
        data={"name": "fashion_mnist"},
        network={"name": "mlp", "widths": (512, 512, 512)},
        train={**recipes.ADAM, "epochs": 10, "learning_rate": 1e-3},
        **recipes.SPAWNED,
        small={"data": {"name": "fashion_mnist", "train_size": 20_000}},
        tiny={
            "data": recipes.TINY_IMAGES,
            "network": {"widths": (16, 16)},
            "train": {"epochs": 3, "batch_size": 50},
            "pairs": ("spawn_k0", "spawn_k1", "spawn_k2"),
            "sweep": {"seed": (0, 1), "network": {"widths": ((8, 8), (16, 16))}},
        },
    )
