import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax import data
from llfc_jax.data import Batches, Dataset, Split
from llfc_jax.errors import DataError

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def split(n=10, shape=(4, 3, 3), dtype=np.uint8, classes=3):
    random = np.random.default_rng(n)
    images = random.integers(0, 256, (n, *shape)).astype(dtype)
    return Split(images, np.arange(n, dtype=np.int32) % classes)


def dataset(train, **changes):
    fields = {"name": "made", "train": train, "test": train, "classes": 3, "mean": MEAN, "std": STD}
    return Dataset(**fields | changes)


def test_normalise_is_the_formula():
    images = split().images
    expected = (images / 255 - np.array(MEAN)) / np.array(STD)
    for compiled in (data.normalise, jax.jit(data.normalise, static_argnums=(1, 2))):
        x = compiled(images, MEAN, STD)
        assert x.dtype == jnp.float32
        np.testing.assert_allclose(x, expected, atol=1e-6)


def test_normalise_leaves_float_images_in_their_units():
    images = np.array([[2.0, 4.0]], np.float32)
    np.testing.assert_allclose(data.normalise(images, (1.0,), (2.0,)), [[0.5, 1.5]])
    half = data.normalise(images.astype(np.float16), (1.0,), (2.0,))
    assert half.dtype == jnp.float32


def test_normalise_maps_over_samples():
    images = split().images
    each = jax.vmap(lambda x: data.normalise(x, MEAN, STD))(images)
    np.testing.assert_allclose(each, data.normalise(images, MEAN, STD), atol=1e-6)


def test_normalise_refuses_other_types():
    with pytest.raises(DataError, match="images are int16"):
        data.normalise(np.zeros((1, 2), np.int16), (0.0,), (1.0,))


def test_batches_are_the_split_in_order_each_time():
    made = split(10)
    batches = Batches(made, dataset(made), 4)
    assert (len(batches), batches.samples) == (3, 10)
    for _ in range(2):
        xs, ys = zip(*batches, strict=True)
        assert [len(x) for x in xs] == [4, 4, 2]
        np.testing.assert_allclose(np.concatenate(xs), (made.images / 255 - MEAN) / STD, atol=1e-6)
        np.testing.assert_array_equal(np.concatenate(ys), made.labels)


def test_batches_keep_the_split_as_stored():
    made = split(10)
    assert Batches(made, dataset(made), 4)._images.dtype == jnp.uint8


def test_streamed_batches_have_the_same_bits():
    made = split(10)
    there, here = (Batches(made, dataset(made, resident_mb=mb), 4) for mb in (1, 0))
    assert isinstance(here._images, np.ndarray)
    for _ in range(2):
        for one, other in zip(there, here, strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])


def test_a_batch_larger_than_the_split_is_the_split():
    made = split(3)
    batches = Batches(made, dataset(made), 100)
    assert [(x.shape, y.shape) for x, y in batches] == [((3, 4, 3, 3), (3,))]


@pytest.mark.parametrize("size", [0, -1, 2.0, True])
def test_batch_size_must_be_positive(size):
    made = split(3)
    with pytest.raises(DataError, match="batch_size must be a positive whole number"):
        Batches(made, dataset(made), size)


def test_fingerprint_sees_every_array():
    made, other = split(10), split(11)
    relabelled = Split(made.images, made.labels[::-1].copy())
    prints = {
        dataset(made).fingerprint,
        dataset(made, test=relabelled).fingerprint,
        dataset(other, test=made).fingerprint,
        dataset(made, test=other).fingerprint,
    }
    assert len(prints) == 4
    assert dataset(split(10)).fingerprint == dataset(made, mean=(0.0,) * 3).fingerprint
    strided = Split(np.asfortranarray(made.images), made.labels)
    assert data.fingerprint(strided) == data.fingerprint(made)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (np.zeros((2, 3), np.float64), np.zeros(2, np.int32), "images are float64"),
        (np.zeros((2, 3, 3), np.uint8), np.zeros(2, np.int32), "images have shape"),
        (np.zeros((2, 3), np.uint8), np.zeros(2, np.int64), "labels are int64"),
        (np.zeros((2, 3), np.uint8), np.zeros(3, np.int32), "2 images but 3 labels"),
        (np.zeros((0, 3), np.uint8), np.zeros(0, np.int32), "no images"),
        (np.array([[np.nan, 0]], np.float32), np.zeros(1, np.int32), "NaN or infinity in 1 of 2"),
    ],
)
def test_split_checks_its_arrays(images, labels, words):
    with pytest.raises(DataError, match=words):
        Split(images, labels)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test": split(4, shape=(4, 4, 3))}, "test images uint8"),
        ({"test": split(4, dtype=np.float32)}, "test images float32"),
        ({"classes": 2}, "train labels run from 0 to 2"),
        ({"mean": (0.5,)}, "one number per channel: 3"),
        ({"std": (0.0, 1.0, 1.0)}, "positive"),
        ({"mean": (float("nan"),) * 3}, "finite"),
    ],
)
def test_dataset_checks_that_its_parts_fit(changes, words):
    with pytest.raises(DataError, match=words):
        dataset(split(), **changes)
