"""Where matching begins to connect: ResNet-20s with LayerNorm, wider and wider, three seeds.

Reproduces: what row P3 of the LLFC paper rests on: the wider the networks, the lower the barrier
after matching, and LLFC with it.
Costs: full (CIFAR-10, to width x 32): days on one large GPU. small (6,000 of Fashion-MNIST as 16 x
16 x 3, widths 0.5, 1, 2, 4): 95 CPU minutes. tiny: a minute.
Shows: the wider, the lower the barrier after matching, and the closer the features come to the
mixture. small, trained for 360 steps: activation matching leaves 20 points at width 0.5 and 3 at 4,
weight matching 35 and 17.
"""

from typing import Any

from llfc_jax.experiments import paper as recipes

SEEDS = (0, 1, 2)
P3 = recipes.LAYER_NORM_RESNETS


def get_config(scale: str = "full") -> Any:
    """The config."""
    return recipes.row(
        scale,
        **{
            **P3,
            "measures": ("lmc", "llfc", "commutativity"),
            "sweep": {"network": {"width": (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)}, "seed": SEEDS},
            "small": {
                **P3["small"],
                "sweep": {"network": {"width": (0.5, 1.0, 2.0, 4.0)}, "seed": SEEDS},
            },
            "tiny": {
                **P3["tiny"],
                "measures": ("lmc", "llfc"),
                "sweep": {"network": {"width": (0.125, 0.25)}, "seed": (0, 1)},
            },
        },
    )
