"""Weights in and out: PyTorch state dicts, .npz, .safetensors, .pt files, Orbax checkpoints.

`load` and `save` read and write files; `from_torch` puts a PyTorch state dict into a JAX network,
`to_torch` takes it out again. Nothing is ever unpickled.
"""

from llfc_jax.convert.files import load, save
from llfc_jax.convert.torch import from_torch, to_torch

__all__ = ["from_torch", "load", "save", "to_torch"]
