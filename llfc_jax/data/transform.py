"""Changes of a whole split before anything is trained: fewer samples, another size or channels."""

from typing import TYPE_CHECKING

import numpy as np

from llfc_jax.data.dataset import Split
from llfc_jax.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's names, by number of channels


def resize_image(image: "Image.Image", size: int) -> "Image.Image":
    """Scales the shorter side to `size` (bilinear, antialiased) and crops the middle square."""
    from PIL import Image

    width, height = image.size
    if (width, height) == (size, size):
        return image
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def resize(split: Split, size: int) -> Split:
    """Resizes every image to size x size (`resize_image`).

    Raises:
        DataError: unless the images are uint8 with 1, 3 or 4 channels.
    """
    height, width, channels = _pixels(split, "size")
    if (height, width) == (size, size):
        return split
    if split.images.dtype != np.uint8 or channels not in MODES:
        raise DataError("size resizes uint8 images with 1, 3 or 4 channels only; leave it out")
    from PIL import Image

    resized = np.empty((len(split), size, size, channels), np.uint8)
    for i, image in enumerate(split.images):
        picture = Image.fromarray(image[..., 0] if channels == 1 else image)
        resized[i] = np.asarray(resize_image(picture, size)).reshape(size, size, channels)
    return Split(resized, split.labels)


def repeat_channels(split: Split, channels: int) -> Split:
    """Copies the one channel of images to `channels`.

    Raises:
        DataError: if they have several already, and not `channels`.
    """
    *_, present = _pixels(split, "channels")
    if present == channels:
        return split
    if present != 1:
        raise DataError(f"images have {present} channels; only one can be copied to {channels}")
    return Split(np.repeat(split.images, channels, axis=-1), split.labels)


def pad(split: Split, size: int) -> Split:
    """Puts zeros around every image up to size x size; an odd one at the bottom and the right.

    Zeros are put in before images are normalised: they are black pixels.

    Raises:
        DataError: if images are larger than that.
    """
    height, width, _ = _pixels(split, "pad_to")
    if max(height, width) > size:
        raise DataError(f"pad_to is {size}, but images are {height}x{width}")
    rows, columns = size - height, size - width
    around = ((0, 0), (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0))
    return Split(np.pad(split.images, around), split.labels)


def _pixels(split: Split, what: str) -> tuple[int, ...]:
    if split.images.ndim != 4:
        raise DataError(
            f"{what} needs images [n, height, width, channels], not {split.images.shape}"
        )
    return split.images.shape[1:]
