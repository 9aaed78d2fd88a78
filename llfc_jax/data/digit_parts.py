"""Tasks other than classification on the embedded digits: halves, pixels and pairs of halves.

The images and their split are those of `llfc_jax.data.digits`, whose licence is theirs.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from llfc_jax.data.dataset import Split
from llfc_jax.data.digits import CLASSES, read_digits
from llfc_jax.data.registry import DatasetRequest, RawDataset, dataset

INK = 64  # of 255: from here on a pixel belongs to the digit


def _change(
    request: DatasetRequest, change: Callable[[Split], Split], classes: int | None
) -> RawDataset:
    """Returns the digits with other inputs or targets."""
    digits = read_digits(dataclasses.replace(request, name="digits"))
    return RawDataset(change(digits.train), change(digits.test), classes)


@dataset("digits_halves")
def read_halves(request: DatasetRequest) -> RawDataset:
    """Regression: the upper half of a digit [n, 4, 8, 1] to the 32 pixels of the lower, 0 to 1."""

    def change(split: Split) -> Split:
        below = split.images[:, 4:].reshape(len(split), -1).astype(np.float32) / 255
        return Split(np.ascontiguousarray(split.images[:, :4]), below)

    return _change(request, change, 32)


@dataset("digits_pixels")
def read_pixels(request: DatasetRequest) -> RawDataset:
    """Dense labels [n, 8, 8]: of which digit each pixel is a part, 1 to 10; 0 is no ink."""

    def change(split: Split) -> Split:
        ink = split.images[..., 0] >= INK
        labels = np.where(ink, 1 + split.labels[:, None, None], 0)
        return Split(split.images, labels.astype(np.int32))

    return _change(request, change, 1 + CLASSES)


@dataset("digits_towers")
def read_towers(request: DatasetRequest) -> RawDataset:
    """Contrastive: images [n, 8, 8, 1], whose halves two towers see; targets are the digits."""
    return _change(request, lambda split: split, None)
