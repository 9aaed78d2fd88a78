import numpy as np
import pytest
from PIL import Image, ImageOps

from llfc_jax import data
from llfc_jax.data import Split, transform
from llfc_jax.errors import DataError


def split(shape, n=4, dtype=np.uint8):
    images = np.random.default_rng(0).integers(0, 256, (n, *shape)).astype(dtype)
    return Split(images, np.zeros(n, np.int32))


def test_padding_is_black_and_centred_and_channels_are_copies():
    digits = data.load("digits", test_size=5)
    big = data.load("digits", test_size=5, pad_to=11, channels=3)
    assert big.shape == (11, 11, 3)
    for channel in range(3):
        inner = big.test.images[:, 1:9, 1:9, channel]
        np.testing.assert_array_equal(inner, digits.test.images[..., 0])
        assert big.test.images[..., channel].sum() == inner.sum()
    assert (big.mean, big.std) == (digits.mean * 3, digits.std * 3)
    assert big.fingerprint != digits.fingerprint


def test_channels_that_are_there_already_or_cannot_be():
    colour = split((4, 4, 3))
    assert transform.repeat_channels(colour, 3) is colour
    with pytest.raises(DataError, match="3 channels; only one can be copied to 4"):
        transform.repeat_channels(colour, 4)


@pytest.mark.parametrize("shape", [(20, 31, 3), (31, 20, 1), (20, 20, 4)])
def test_resize_agrees_with_cut_then_scale(shape):
    made = split(shape)
    resized = transform.resize(made, 10)
    assert resized.images.shape == (4, 10, 10, shape[-1])
    for image, ours in zip(made.images, resized.images, strict=True):
        theirs = ImageOps.fit(Image.fromarray(image.squeeze()), (10, 10), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(ours.squeeze(), np.asarray(theirs))


def test_resize_to_the_same_size_changes_nothing():
    made = split((6, 6, 1))
    assert transform.resize(made, 6) is made


def test_resize_needs_bytes():
    with pytest.raises(DataError, match="size resizes uint8 images"):
        transform.resize(split((6, 6, 1), dtype=np.float32), 3)
