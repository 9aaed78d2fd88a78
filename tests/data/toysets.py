"""Made images for prepared sets."""

import io

import numpy as np
from PIL import Image

Example = tuple[np.ndarray | bytes, int]


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()


def pictures(count: int, shape: tuple[int, ...], classes: int = 3, seed: int = 0) -> list[Example]:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, *shape), dtype=np.uint8)
    return [(image, i % classes) for i, image in enumerate(images)]
