"""The embedded data set: 1,797 handwritten digits of 8x8 pixels, 10 classes, no network needed.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
Learning Repository, 1998, https://doi.org/10.24432/C50P49, licence CC BY 4.0
(https://creativecommons.org/licenses/by/4.0/). These are the images of its test part, the ones
that scikit-learn ships as `load_digits`, in the same order, as unsigned bytes.

`digits.npz` beside this file holds
  images  uint8 [1797, 8, 8]: how many of a 4x4 block's pixels are on, 0 to 16;
  labels  uint8 [1797];
  order   uint16 [1797]: a permutation, drawn once. Its first 1,437 entries are the train split,
          the other 360 the test split, with 36 images of each digit.

Changed here: pixels are scaled to 0 to 255, v -> round(255 v / 16), from which the stored value
comes back as round(16 p / 255).
"""

from pathlib import Path

import numpy as np

from llfc_jax.data.dataset import Split
from llfc_jax.data.registry import DatasetRequest, RawDataset, dataset

CLASSES = 10
TRAIN = 1437


@dataset("digits")
def read_digits(request: DatasetRequest) -> RawDataset:
    """Reads the embedded digits: 1,437 train and 360 test images, uint8 [n, 8, 8, 1]."""
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        order = file["order"]
        images = file["images"][order].astype(np.uint16)
        labels = file["labels"][order].astype(np.int32)
    # in whole numbers: 255 v / 16 rounded half up
    images = ((images * 255 + 8) // 16).astype(np.uint8)[..., None]
    train, test = slice(None, TRAIN), slice(TRAIN, None)
    return RawDataset(
        Split(images[train], labels[train]), Split(images[test], labels[test]), CLASSES
    )
