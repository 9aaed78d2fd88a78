"""PyTorch weights into JAX networks and back: paired in order, laid out anew, checked.

`from_torch` puts a PyTorch state dict into a JAX network, `to_torch` takes it out again.
`llfc_jax.load` and `llfc_jax.save` read and write the files.
"""

from llfc_jax.convert.torch import from_torch, to_torch

__all__ = ["from_torch", "to_torch"]
