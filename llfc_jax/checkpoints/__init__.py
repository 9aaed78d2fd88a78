"""Checkpoints as people have them: weights read by their path into trees, and written.

| what | read | written |
|---|---|---|
| .safetensors | mapped | yes |
| .safetensors.index.json and other `.index.json`: a model in several files | as its files | |
| .npz | mapped, if it is not compressed | yes |
| .msgpack, Flax's serialization | mapped | yes |
| .pt, .pth, .bin, .ckpt, of PyTorch 1.6 and later | mapped, without PyTorch | yes |
| .onnx | its initialisers, mapped; not the network | |
| a directory that holds one of these | the one file, or the index | |
| an Orbax checkpoint, a manager's step, its root (the latest step) | onto host or devices | yes |

*Mapped*: the arrays lie in the file, and what is read of it is what is used (`numpy.memmap`).
Nothing is ever unpickled.
"""

from llfc_jax.checkpoints.files import load, save
from llfc_jax.checkpoints.names import fit, flatten, nest

__all__ = ["fit", "flatten", "load", "nest", "save"]
