"""Row P3 of the LLFC paper: wide ResNet-20s with LayerNorm on CIFAR-10, aligned by permutation.

Reproduces: LMC and LLFC of permuted ResNets at width x 32; `--config.network.width=4` for others.
Costs: full: a day on one large GPU. small (width 1, 6,000 of Fashion-MNIST as 16 x 16 x 3, 6
epochs): 4 CPU minutes a seed, too narrow to be connected; width 2: 9, 4: 23. tiny: half a minute.
Shows: the wider the networks, the lower the barrier after matching, and features that add up with
it.
"""

from typing import Any

from llfc_jax.experiments import paper as recipes


def get_config(scale: str = "full") -> Any:
    """The config."""
    return recipes.row(scale, **recipes.LAYER_NORM_RESNETS)
