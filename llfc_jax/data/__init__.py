"""Data sets as arrays: the embedded digits, TensorFlow Datasets by name, the user's own arrays.

`load` gives a `Dataset` of two `Split`s in memory (uint8 wherever the source is); `Batches` puts
a split on the device and yields normalised batches. Reading never needs TensorFlow; preparing a
set of TFDS needs it once: `python -m llfc_jax.data.tfds.prepare NAME`.

Examples:
    >>> from llfc_jax import data
    >>> digits = data.load("digits")
    >>> x, y = next(iter(data.Batches(digits.test, digits, batch_size=100)))
    >>> x.shape, str(x.dtype), y.shape
    ((100, 8, 8, 1), 'float32', (100,))
"""

from llfc_jax.data.batches import Batches, normalise
from llfc_jax.data.dataset import Dataset, Split, fingerprint
from llfc_jax.data.loading import load
from llfc_jax.data.registry import DATASETS, DatasetRequest, RawDataset, dataset

__all__ = [
    "DATASETS",
    "Batches",
    "Dataset",
    "DatasetRequest",
    "RawDataset",
    "Split",
    "dataset",
    "fingerprint",
    "load",
    "normalise",
]
