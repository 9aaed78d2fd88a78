"""The two types of data: a `Split` (images and labels) and a `Dataset` (two of them).

Both check themselves when they are made, so code that has one can rely on it.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from llfc_jax.errors import DataError


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels, in a fixed order.

    Attributes:
        images: [n, height, width, channels] or [n, features]; uint8 (0 to 255) or float32.
        labels: int32 [n].

    Raises:
        DataError: if the arrays are empty, of another type or shape, differ in number, or hold
            NaN or infinity.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype not in (np.uint8, np.float32):
            raise DataError(f"images are {images.dtype}; make them uint8 or float32")
        if images.ndim not in (2, 4):
            raise DataError(
                f"images have shape {images.shape}; make it [n, height, width, channels] "
                "or [n, features]"
            )
        if labels.dtype != np.int32 or labels.ndim != 1:
            raise DataError(f"labels are {labels.dtype} {labels.shape}; make them int32 [n]")
        if len(images) != len(labels):
            raise DataError(f"{len(images)} images but {len(labels)} labels")
        if images.size == 0:
            raise DataError(f"no images: their shape is {images.shape}")
        if images.dtype == np.float32:
            wrong = images.size - np.count_nonzero(np.isfinite(images))
            if wrong:
                raise DataError(f"images hold NaN or infinity in {wrong} of {images.size} values")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """An image classification task: what to train on, what to test on, how to normalise.

    Attributes:
        name: what it was loaded as.
        train: the train split.
        test: the test split; its images have the train split's shape and type.
        classes: number of classes; labels are 0 to classes - 1.
        mean: subtracted when images are normalised, one number per channel (one in all for
            images without channels, [n, features]); for uint8 images in units of 0 to 1.
        std: what they are then divided by, in the same units.
        fingerprint: 16 hex digits that differ for different data; made from the arrays if left
            empty (see `fingerprint`).
        resident_mb: a split of more megabytes does not lie on the device but is streamed
            (`llfc_jax.data.stream`); a quarter of the device's memory if None.

    Raises:
        DataError: if the splits do not fit each other, or the labels or statistics do not fit
            the images.
    """

    name: str
    train: Split
    test: Split
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str = ""
    resident_mb: int | None = None

    def __post_init__(self) -> None:
        train, test = self.train.images, self.test.images
        if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
            raise DataError(
                f"train images are {train.dtype} {train.shape[1:]} each, "
                f"but test images {test.dtype} {test.shape[1:]}"
            )
        for words, split in (("train", self.train), ("test", self.test)):
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= self.classes:
                raise DataError(
                    f"{words} labels run from {low} to {high}; "
                    f"for {self.classes} classes they must lie in 0 to {self.classes - 1}"
                )
        channels = train.shape[-1] if train.ndim == 4 else 1
        if len(self.mean) != channels or len(self.std) != channels:
            raise DataError(
                f"mean {self.mean} and std {self.std} must have one number per channel: {channels}"
            )
        if not np.isfinite(self.mean).all() or not all(0 < s < float("inf") for s in self.std):
            raise DataError(
                f"mean {self.mean} must be finite and std {self.std} finite and positive"
            )
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", fingerprint(self.train, self.test))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image: (height, width, channels) or (features,)."""
        return self.train.images.shape[1:]


def fingerprint(*splits: Split) -> str:
    """Returns 16 hex digits of the SHA-256 over types, shapes and bytes of all arrays, in order.

    The same on every machine of the same byte order; names and statistics do not enter.
    """
    digest = hashlib.sha256()
    for split in splits:
        for array in (split.images, split.labels):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
