"""The two types of data: a `Split` (inputs and targets) and a `Dataset` (two of them).

Inputs are called images and targets labels, which is what they mostly are; tokens and numbers go
the same way.

Both check themselves when they are made, so code that has one can rely on it.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from llfc_jax.errors import DataError


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels, in a fixed order.

    Attributes:
        images: [n, height, width, channels] or [n, features], uint8 (0 to 255) or float32; or
            tokens [n, t], int32.
        labels: int32 [n], or whatever the task wants: [n, ...], int32 or float32.

    Raises:
        DataError: if the arrays are empty, of another type or shape, differ in number, or hold
            NaN or infinity.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype not in (np.uint8, np.float32, np.int32):
            raise DataError(f"images are {images.dtype}; make them uint8 or float32")
        if images.dtype == np.int32 and images.ndim != 2:
            raise DataError(f"tokens have shape {images.shape}; make it [n, t]")
        if images.ndim not in (2, 4):
            raise DataError(
                f"images have shape {images.shape}; make it [n, height, width, channels] "
                "or [n, features]"
            )
        if labels.dtype not in (np.int32, np.float32) or not labels.ndim:
            raise DataError(f"labels are {labels.dtype} {labels.shape}; make them int32 [n]")
        if len(images) != len(labels):
            raise DataError(f"{len(images)} images but {len(labels)} labels")
        if images.size == 0:
            raise DataError(f"no images: their shape is {images.shape}")
        for what, array in (("images", images), ("labels", labels)):
            if array.dtype == np.float32:
                wrong = array.size - np.count_nonzero(np.isfinite(array))
                if wrong:
                    raise DataError(
                        f"{what} hold NaN or infinity in {wrong} of {array.size} values"
                    )

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """What to train on, what to test on, how to normalise.

    Attributes:
        name: what it was loaded as.
        train: the train split.
        test: the test split; its images have the train split's shape and type.
        classes: number of classes, labels being 0 to classes - 1; of outputs, where targets are
            numbers; None where the data do not say.
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
    classes: int | None
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
            if self.classes is None or split.labels.dtype != np.int32:
                continue
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

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the network's inputs: images are float32, tokens int32."""
        return np.dtype(np.int32 if self.train.images.dtype == np.int32 else np.float32)

    def inputs(self, n: int) -> jax.ShapeDtypeStruct:
        """Returns shape and type of n inputs of the network."""
        return jax.ShapeDtypeStruct((n, *self.shape), self.dtype)

    def targets(self, n: int) -> jax.ShapeDtypeStruct:
        """Returns shape and type of their targets."""
        return jax.ShapeDtypeStruct((n, *self.train.labels.shape[1:]), self.train.labels.dtype)


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
