"""Language models: small GPTs on characters, spawned at two epochs, and independent ones.

Not in the LLFC paper, and nowhere else layer by layer: LMC in nats per token, and LLFC of every
token at every block, attention, MLP and at the head.
Costs: full: for a GPU (10.6 million parameters, not run yet). small: about a quarter of an hour on
two CPU cores. tiny: half a minute, compilation included.
Shows (small, seed 0): 1.94 nats per token at the ends, where label frequencies alone give 3.19.
`spawn_k3` (3 of 8 epochs shared) is connected, 0.001 nats at the middle, and its features are
linear at every block; `spawn_k1` has a barrier of 0.09 nats though its features nearly add up;
`independent` has one of 2.1 nats, and features that do not.
"""

from typing import Any

from llfc_jax.experiments import paper as recipes

SITES = ("embed", "*/attention/out", "*/down", "*.silu", "block?", "head")


def get_config(scale: str = "full") -> Any:
    """The config."""
    config = recipes.row(
        scale,
        data={"name": "text", "length": 256},
        network={
            "name": "gpt",
            "dim": 384,
            "depth": 6,
            "heads": 6,
            "mlp_dim": 1024,
            "dropout": 0.2,
        },
        train={
            "epochs": 40,
            "batch_size": 32,
            "optimizer": "adamw",
            "learning_rate": 1e-3,
            "weight_decay": 0.1,
            "decay": "kernels",
            "clip_norm": 1.0,
            "schedule": "warmup_cosine",
            "warmup_epochs": 1,
        },
        pairs=("spawn_k2", "spawn_k10", "independent"),
        task="tokens",
        small={
            "data": {"name": "text", "length": 64, "train_size": 2_800},
            "network": {"dim": 64, "depth": 2, "heads": 4, "mlp_dim": 128, "dropout": 0.0},
            "train": {"epochs": 8, "learning_rate": 3e-3},
            "pairs": ("spawn_k1", "spawn_k3", "independent"),
        },
        tiny={
            "data": {"name": "text", "length": 16, "train_size": 640, "test_size": 128},
            "network": {"dim": 16, "depth": 1, "heads": 2, "mlp_dim": 24, "dropout": 0.0},
            "train": {"epochs": 4, "learning_rate": 1e-2},
            "pairs": ("spawn_k1",),
        },
        measures=("lmc", "llfc", "ensemble", "weak_additivity", "commutativity"),
    )
    config.eval.update(sites=SITES, per="token", batch_size=64)
    return config
