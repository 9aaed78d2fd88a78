"""The paper's networks and a few others in Flax Linen, by name.

Every module takes `train: bool = False` as a call argument, so `module.apply(variables, x)` is
evaluation; x is float32 [n, h, w, c] (tokens [n, t] of `gpt`), the result logits [n, classes].
"""

from llfc_jax.networks import gpt, lenet, mlp, resnet_cifar, resnet_imagenet, towers, unet, vgg, vit
from llfc_jax.networks.registry import NETWORKS, build, count, init, network

__all__ = [
    "NETWORKS",
    "build",
    "count",
    "gpt",
    "init",
    "lenet",
    "mlp",
    "network",
    "resnet_cifar",
    "resnet_imagenet",
    "towers",
    "unet",
    "vgg",
    "vit",
]
