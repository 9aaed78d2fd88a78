"""The embedded text, and the digits' halves, pixels and pairs."""

import numpy as np
import pytest

from llfc_jax import data
from llfc_jax.data.inputs import as_splits
from llfc_jax.errors import DataError
from llfc_jax.tasks import read_batch


def test_text_is_cut_into_pieces_that_go_on_in_their_targets():
    found = data.load("text", length=32)
    for split in (found.train, found.test):
        assert split.images.dtype == split.labels.dtype == np.int32
        assert split.images.shape == split.labels.shape
        np.testing.assert_array_equal(split.images[:, 1:], split.labels[:, :-1])
        np.testing.assert_array_equal(split.images[1:, 0], split.labels[:-1, -1])
    assert found.dtype == np.int32
    assert found.shape == (32,)
    assert 60 < found.classes < 128
    assert (len(found.train) + len(found.test)) * 32 > 399_000


def test_ones_own_text(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_bytes(b"abcab" * 40)
    found = data.load("text", path=file, length=10)
    assert found.classes == 3
    assert found.train.images[0].tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 0, 1]
    assert len(found.train) == 17
    with pytest.raises(DataError, match="too short"):
        data.load("text", path=file, length=100)
    with pytest.raises(DataError, match="cannot read"):
        data.load("text", path=tmp_path / "none.txt")
    with pytest.raises(DataError, match="a length goes with data set 'text' only"):
        data.load("digits", length=3)


def test_digits_have_other_tasks_too():
    digits = data.load("digits")
    halves, pixels = data.load("digits_halves"), data.load("digits_pixels")
    whole = digits.train.images.astype(float) / 255
    np.testing.assert_allclose(halves.train.labels.reshape(-1, 4, 8), whole[:, 4:, :, 0], atol=1e-6)
    np.testing.assert_array_equal(halves.train.images, digits.train.images[:, :4])
    assert halves.targets(3).shape == (3, 32)
    shown = pixels.test.labels.max((1, 2))
    np.testing.assert_array_equal(shown, digits.test.labels + 1)
    assert (pixels.test.labels[pixels.test.images[..., 0] < 64] == 0).all()
    assert data.load("digits_towers").classes is None


def test_a_data_set_that_is_given_for_training_gives_its_train_split():
    digits = data.load("digits", train_size=30, test_size=20)
    x, y = np.zeros((7, 2), "f4"), np.zeros(7, "i4")
    for splits in (as_splits(digits), as_splits(digits, digits), as_splits((x, y), digits)):
        assert sum(len(read_batch(batch).y) for batch in splits["train"]) == 30
    assert sum(len(read_batch(batch).y) for batch in as_splits(digits, (x, y))["train"]) == 7
