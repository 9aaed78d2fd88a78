"""Cross-task linearity on the digits: an MLP pretrained on half of the classes, tuned in four ways.

After Zhou et al. (ICML 2024), on data that the package brings: pretrained on the digits 0 to 4,
fine-tuned on all digits (twice, in other orders), on 5 to 9, and on all digits turned by 90°.
Costs: about a minute on two CPU cores. tiny: seconds.
Shows: the closer two tasks, the more linear the features of the mean of both networks, and the less
its merge loses. The page says for each rule on which layers its merge breaks.
"""

from typing import Any

from llfc_jax.experiments import paper as recipes

TASKS = ({}, {}, {"classes": (5, 6, 7, 8, 9)}, {"rotate": 90.0})


def get_config(scale: str = "full") -> Any:
    """The config."""
    config = recipes.row(
        scale,
        data={"name": "digits"},
        network={"name": "mlp", "widths": (128, 128, 128)},
        train={
            "epochs": 40,
            "batch_size": 50,
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "schedule": "constant",
            "weight_decay": 0.0,
        },
        pairs=("finetune_k20_0_1", "finetune_k20_0_2", "finetune_k20_0_3", "finetune_k20_2_3"),
        merge=("mean", "task_arithmetic(scale=0.3)", "task_arithmetic", "ties(density=0.5)"),
        measures=("lmc", "llfc", "ctl", "ensemble"),
        small={},
        tiny={
            "network": {"widths": (16, 16)},
            "train": {"epochs": 4},
            "pairs": ("finetune_k2_0_2",),
        },
    )
    config.finetune.pretrain = {"classes": (0, 1, 2, 3, 4)}
    config.finetune.tasks = TASKS
    return config
