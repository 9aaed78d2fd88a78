"""Random changes of training images, inside jit, each sample with its own key.

Every function takes `(key, image, strength)` and returns an image of the same shape; pixels
outside the image count as 0. A recipe lists augmentations by name with their strengths; they are
applied in the order of `AUGMENTATIONS`, before the images are normalised. To add one, write the
function below with `@augmentation(name, least, most)`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Key

from llfc_jax.errors import ConfigError, unknown

Image: TypeAlias = Float[Array, "height width channels"]
AugmentFn: TypeAlias = Callable[[Key[Array, ""], Image, float], Image]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """An augmentation and the strengths that it takes.

    Attributes:
        apply: `(key, image, strength) -> image`.
        least: smallest strength.
        most: largest strength.
        whole: whether the strength is a whole number of pixels.
    """

    apply: AugmentFn
    least: float
    most: float
    whole: bool = False


AUGMENTATIONS: dict[str, Augmentation] = {}


def augmentation(
    name: str, least: float, most: float, *, whole: bool = False
) -> Callable[[AugmentFn], AugmentFn]:
    """Registers a function as an augmentation; the arguments are those of `Augmentation`."""

    def register(apply: AugmentFn) -> AugmentFn:
        AUGMENTATIONS[name] = Augmentation(apply, least, most, whole)
        return apply

    return register


@augmentation("resized_crop", 0.01, 1.0)
def resized_crop(key: Key[Array, ""], image: Image, strength: float) -> Image:
    """Returns a random part of the image, at least `strength` of its area, scaled to the whole.

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


@augmentation("crop", 0, 64, whole=True)
def crop(key: Key[Array, ""], image: Image, strength: float) -> Image:
    """Shifts the image by up to `strength` pixels each way: zero padding, then a random crop."""
    pad = int(strength)
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    row, column = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    return jax.lax.dynamic_slice(padded, (row, column, jnp.zeros_like(row)), image.shape)


@augmentation("flip", 0.0, 1.0)
def flip(key: Key[Array, ""], image: Image, strength: float) -> Image:
    """Mirrors the image left to right with probability `strength`."""
    return jnp.where(_uniform(key, 0.0, 1.0) < strength, image[:, ::-1], image)


@augmentation("rotate", 0.0, 180.0)
def rotate(key: Key[Array, ""], image: Image, strength: float) -> Image:
    """Rotates the image about its centre by up to `strength` degrees each way, bilinear."""
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


@augmentation("cutout", 0, 512, whole=True)
def cutout(key: Key[Array, ""], image: Image, strength: float) -> Image:
    """Sets a square of `strength` pixels a side to 0, its centre anywhere in the image.

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


def check_strengths(strengths: Mapping[str, float]) -> None:
    """Checks names and strengths of augmentations.

    Raises:
        ConfigError: for an unknown name or a strength out of its range.
    """
    for name, strength in strengths.items():
        if name not in AUGMENTATIONS:
            raise ConfigError(unknown("augmentation", name, AUGMENTATIONS))
        known = AUGMENTATIONS[name]
        number = isinstance(strength, (int, float)) and not isinstance(strength, bool)
        fits = number and known.least <= strength <= known.most
        if not fits or (known.whole and strength != int(strength)):
            words = "a whole number" if known.whole else "a number"
            raise ConfigError(
                f"augmentation {name!r}: strength must be {words} from {known.least} to "
                f"{known.most}, not {strength!r}"
            )


def augment(
    key: Key[Array, ""],
    images: Float[Array, "samples height width channels"],
    strengths: Mapping[str, float],
) -> Float[Array, "samples height width channels"]:
    """Applies all named augmentations to every image of a batch, each with a key of its own.

    Args:
        key: one key for the batch.
        images: the batch.
        strengths: name -> strength (see `AUGMENTATIONS`); static under jit.
    """

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        for number, (name, known) in enumerate(AUGMENTATIONS.items()):
            if name in strengths:
                image = known.apply(jax.random.fold_in(key, number), image, strengths[name])
        return image

    return jax.vmap(one)(jax.random.split(key, len(images)), images)


def _uniform(key: Key[Array, ""], low: float, high: float) -> Float[Array, ""]:
    """Draws a float32 from [low, high), in x64 mode too."""
    return jax.random.uniform(key, (), jnp.float32, low, high)
