"""Independent language models on characters, connected beyond permutations.

Not in the LLFC paper: small GPTs with RMSNorm and learned positions, whose symmetries are read off
the trace and matched over, at the networks' own parameter count.
Costs: small, about half an hour on two CPU cores; tiny, half a minute.
Shows: what is left of the barrier for each part of the symmetry; see docs/beyond_permutations.md.
"""

from typing import Any

from llfc_jax.experiments import paper as recipes


def get_config(scale: str = "small") -> Any:
    """The config."""
    config = recipes.row(
        scale,
        data={"name": "text", "length": 128},
        network={
            "name": "gpt",
            "dim": 128,
            "depth": 4,
            "heads": 4,
            "mlp_dim": 512,
            "length": 128,
            "norm": "rms",
            "positions": "learned",
            "mlp": "gelu",
        },
        train={
            "epochs": 20,
            "batch_size": 64,
            "optimizer": "adamw",
            "learning_rate": 4e-3,
            "weight_decay": 1.0,
            "decay": "kernels",
            "clip_norm": 1.0,
            "schedule": "warmup_cosine",
            "warmup_epochs": 1,
        },
        pairs=("independent",),
        task="tokens",
        small={
            "data": {"name": "text", "length": 32, "train_size": 8_000, "test_size": 1_000},
            "network": {"dim": 48, "depth": 2, "mlp_dim": 192, "length": 32},
        },
        tiny={
            "data": {"name": "text", "length": 16, "train_size": 512, "test_size": 64},
            "network": {"dim": 16, "depth": 1, "heads": 2, "mlp_dim": 24, "length": 16},
            "train": {"epochs": 1},
        },
        measures=("lmc", "llfc", "commutativity", "stitching"),
    )
    config.eval.update(per="token", batch_size=128)
    recipes.align_beyond_permutations(config, scale)
    return config
