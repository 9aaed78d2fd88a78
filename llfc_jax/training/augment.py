"""Random changes of training images, inside jit, each sample with its own key.

Every function takes `(key, image, strength)`, image float32 [h, w, c], and returns an image of
the same shape; where it looks past the border it sees 0. A recipe lists them by name with their
strengths; they are applied in the order of `AUGMENTATIONS`, before the images are normalised.
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from llfc_jax.errors import ConfigError, unknown


def resized_crop(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """A random part of the image, at least `strength` of its area, scaled to the whole.

    Area uniform in [strength, 1], aspect ratio log-uniform in [3/4, 4/3], bilinear with
    antialiasing (Szegedy et al. 2015, "Going deeper with convolutions").
    """
    height, width, _ = image.shape
    for_area, for_ratio, for_place = jax.random.split(key, 3)
    area = _uniform(for_area, strength, 1.0)
    ratio = jnp.exp(_uniform(for_ratio, math.log(3 / 4), math.log(4 / 3)))
    size = jnp.minimum(jnp.sqrt(area * jnp.stack([1 / ratio, ratio])), 1.0)  # share of each side
    corner = jax.random.uniform(for_place, (2,), jnp.float32) * (1.0 - size)
    extent = jnp.array([height, width], jnp.float32)
    return jax.image.scale_and_translate(
        image, image.shape, (0, 1), 1.0 / size, -corner * extent / size, method="linear"
    )


def crop(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """The image shifted by up to `strength` pixels each way: padding, then a random crop."""
    pad = int(strength)
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    row, column = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    return jax.lax.dynamic_slice(padded, (row, column, jnp.zeros_like(row)), image.shape)


def flip(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """The image mirrored left to right with probability `strength`."""
    return jnp.where(_uniform(key, 0.0, 1.0) < strength, image[:, ::-1], image)


def rotate(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """The image turned about its centre by up to `strength` degrees each way, bilinear."""
    height, width, _ = image.shape
    angle = jnp.deg2rad(_uniform(key, -strength, strength))
    rows = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    columns = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    source = [
        cosine * rows - sine * columns + (height - 1) / 2,
        sine * rows + cosine * columns + (width - 1) / 2,
    ]
    turn = lambda channel: map_coordinates(channel, source, order=1, mode="constant")  # noqa: E731
    return jax.vmap(turn, in_axes=2, out_axes=2)(image)


def cutout(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """The image with a square of `strength` pixels a side set to 0, its centre anywhere.

    Reference: DeVries and Taylor 2017, "Improved regularization of CNNs with Cutout".
    """
    height, width, _ = image.shape
    side = int(strength)
    for_row, for_column = jax.random.split(key)
    top = jax.random.randint(for_row, (), 0, height) - side // 2
    left = jax.random.randint(for_column, (), 0, width) - side // 2
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    return jnp.where(inside[:, :, None], 0.0, image)


def _uniform(key: jax.Array, low: float, high: float) -> jax.Array:
    """A float32 from [low, high), in x64 mode too."""
    return jax.random.uniform(key, (), jnp.float32, low, high)


Augmentation = Callable[[jax.Array, jax.Array, float], jax.Array]
AUGMENTATIONS: dict[str, Augmentation] = {
    "resized_crop": resized_crop,
    "crop": crop,
    "flip": flip,
    "rotate": rotate,
    "cutout": cutout,
}
_RANGES = {  # name -> (least, most, whole pixels only)
    "resized_crop": (0.01, 1.0, False),
    "crop": (0, 64, True),
    "flip": (0.0, 1.0, False),
    "rotate": (0.0, 180.0, False),
    "cutout": (0, 512, True),
}


def check(strengths: Mapping[str, float]) -> None:
    """Check names and strengths.

    Raises:
        ConfigError: for an unknown name or a strength out of its range.
    """
    for name, strength in strengths.items():
        if name not in AUGMENTATIONS:
            raise ConfigError(unknown("augmentation", name, AUGMENTATIONS))
        least, most, whole = _RANGES[name]
        number = isinstance(strength, (int, float)) and not isinstance(strength, bool)
        if not number or not least <= strength <= most or (whole and strength != int(strength)):
            words = "a whole number" if whole else "a number"
            raise ConfigError(
                f"augmentation {name!r}: strength must be {words} from {least} to {most}, "
                f"not {strength!r}"
            )


def augment(key: jax.Array, images: jax.Array, strengths: Mapping[str, float]) -> jax.Array:
    """Every image of a batch changed by all named augmentations, each with randomness of its own.

    Args:
        key: one key for the batch.
        images: float32 [n, h, w, c].
        strengths: name -> strength (`AUGMENTATIONS`, `check`); static under jit.
    """

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        for number, (name, change) in enumerate(AUGMENTATIONS.items()):
            if name in strengths:
                image = change(jax.random.fold_in(key, number), image, strengths[name])
        return image

    return jax.vmap(one)(jax.random.split(key, len(images)), images)
