"""Independent vision transformers on the embedded digits, connected beyond permutations.

Not in the LLFC paper. The networks' symmetries are read off the trace: permutations of hidden units
and heads, invertible matrices inside heads, one orthogonal matrix on the residual stream. Matching
over them in closed forms and by learning, at the networks' own parameter count.
Costs: small, about a quarter of an hour on two CPU cores; tiny, half a minute.
Shows: permutations leave most of the barrier, closed forms over the full group less, and learning,
with labels or without, next to nothing. The decay makes the weights forget their random start. What
a control says about all this is in docs/beyond_permutations.md.
"""

from typing import Any

from llfc_jax.experiments import paper as recipes


def get_config(scale: str = "small") -> Any:
    """The config."""
    config = recipes.row(
        scale,
        data={"name": "digits"},
        network={
            "name": "vit",
            "patch": 2,
            "dim": 128,
            "depth": 4,
            "heads": 4,
            "mlp_dim": 512,
            "norm": "rms",
        },
        train={
            "epochs": 60,
            "batch_size": 64,
            "optimizer": "adamw",
            "learning_rate": 4e-3,
            "weight_decay": 1.0,
            "decay": "kernels",
            "clip_norm": 1.0,
            "schedule": "warmup_cosine",
            "warmup_epochs": 2,
        },
        pairs=("independent",),
        small={
            "network": {"dim": 32, "depth": 2, "mlp_dim": 128},
        },
        tiny={
            "data": {"name": "digits", "train_size": 256, "test_size": 100},
            "network": {"dim": 8, "depth": 1, "heads": 2, "mlp_dim": 16},
            "train": {"epochs": 2},
        },
        measures=("lmc", "llfc", "commutativity", "stitching"),
    )
    recipes.align_beyond_permutations(config, scale)
    return config
