"""Tiny-ImageNet for TensorFlow Datasets, which has no builder of it; importing this adds one."""

from llfc_jax.data.tfds.tiny_imagenet.builder import TinyImagenet

__all__ = ["TinyImagenet"]
