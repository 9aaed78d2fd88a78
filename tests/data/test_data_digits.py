import numpy as np
import pytest

from llfc_jax import data
from llfc_jax.errors import DataError


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def test_split_is_fixed_and_balanced(digits):
    assert (len(digits.train), len(digits.test), digits.shape) == (1437, 360, (8, 8, 1))
    assert digits.classes == 10
    assert np.bincount(digits.test.labels).tolist() == [36] * 10
    assert digits.fingerprint == "845afcf254306a6d"  # changes only if the data do


def test_train_and_test_are_the_scikit_learn_images_once_each(digits):
    reference = pytest.importorskip("sklearn.datasets").load_digits()
    ours = [
        (*np.round(image.ravel() * (16 / 255)).astype(int), label)
        for split in (digits.train, digits.test)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    theirs = [
        (*image.ravel().astype(int), label)
        for image, label in zip(reference.images, reference.target, strict=True)
    ]
    assert sorted(ours) == sorted(theirs)


def test_pixels_span_the_byte_range(digits):
    values = np.unique(digits.train.images)
    assert values.tolist() == np.floor(np.arange(17) * 255 / 16 + 0.5).astype(int).tolist()


def test_labels_belong_to_their_images(digits):
    """The nearest train image has the right label nearly always."""
    train, test = (s.images.reshape(len(s), -1).astype(float) for s in (digits.train, digits.test))
    distance = (test**2).sum(1)[:, None] - 2 * test @ train.T + (train**2).sum(1)[None, :]
    nearest = digits.train.labels[distance.argmin(axis=1)]
    assert (nearest == digits.test.labels).mean() > 0.97


def test_statistics_are_those_of_the_train_split(digits):
    pixels = digits.train.images / 255
    assert digits.mean == pytest.approx((pixels.mean(),), rel=1e-12)
    assert digits.std == pytest.approx((pixels.std(),), rel=1e-12)


def test_sizes_take_the_first_samples(digits):
    few = data.load("digits", train_size=7, test_size=3)
    np.testing.assert_array_equal(few.train.images, digits.train.images[:7])
    np.testing.assert_array_equal(few.test.labels, digits.test.labels[:3])
    assert few.fingerprint != digits.fingerprint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train_size": 0}, "train_size must be a positive whole number, not 0"),
        ({"test_size": 361}, "test_size is 361, but there are only 360 samples"),
        ({"train_size": True}, "train_size must be a positive whole number"),
        ({"pad_to": 6}, "pad_to is 6, but images are 8x8"),
        ({"pad_to": 2.5}, "pad_to must be a positive whole number"),
        ({"channels": -1}, "channels must be a positive whole number"),
        ({"path": "x.npz"}, "a path goes with data set 'npz' or 'text' only"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(DataError, match=words):
        data.load("digits", **options)
