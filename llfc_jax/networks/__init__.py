"""The paper's networks in Flax Linen, by name.

Every module takes `train: bool = False` as a call argument, so `module.apply(variables, x)` is
evaluation; x is float32 [n, h, w, c], the result logits [n, classes].
"""

from llfc_jax.networks import lenet, mlp, resnet_cifar, resnet_imagenet, vgg, vit
from llfc_jax.networks.registry import NETWORKS, build, count, init, network

__all__ = [
    "NETWORKS",
    "build",
    "count",
    "init",
    "lenet",
    "mlp",
    "network",
    "resnet_cifar",
    "resnet_imagenet",
    "vgg",
    "vit",
]
