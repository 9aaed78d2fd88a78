"""The embedded text, and the digits' halves, pixels and pairs."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from toysets import pictures

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


def test_text_sets_of_tfds_are_read_byte_by_byte(prepared_set, tmp_path):
    texts = {"train": [b"abcab", b"bb\xc3\xa9", b"cab" * 10], "validation": [b"aab" * 8, b"b"]}
    features = {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=2)}
    records = {part: [{"text": t, "label": 0} for t in of] for part, of in texts.items()}
    prepared_set(records, features=features)
    found = data.load("toy", data_dir=tmp_path, length=8)
    joined = {part: b"\n".join(of) for part, of in texts.items()}
    vocabulary = sorted(set(b"".join(joined.values())))
    for split, text in zip((found.train, found.test), joined.values(), strict=True):
        tokens = [vocabulary.index(byte) for byte in text]
        n = (len(tokens) - 1) // 8
        assert split.images.ravel().tolist() == tokens[: 8 * n]
        assert split.labels.ravel().tolist() == tokens[1 : 8 * n + 1]
    assert found.classes == len(vocabulary)
    few = data.load("toy", data_dir=tmp_path, length=4, train_size=2, test_size=1)
    assert (few.train.images.shape, few.test.images.shape) == ((2, 4), (1, 4))
    with pytest.raises(DataError, match="too short"):
        data.load("toy", data_dir=tmp_path, length=100)
    with pytest.raises(DataError, match="but there are only"):
        data.load("toy", data_dir=tmp_path, length=8, train_size=1000)


def test_a_text_set_is_cut_where_it_has_no_test_part_and_names_what_it_lacks(
    prepared_set, tmp_path
):
    features = {"text": tfds.features.Text()}
    prepared_set({"train": [{"text": b"abc" * 9}] * 10}, features=features)
    found = data.load("toy", data_dir=tmp_path, length=9)
    assert len(found.train) == (9 * 28 - 2) // 9
    prepared_set({"test": [{"text": b"abc"}]}, features=features, name="bare")
    with pytest.raises(DataError, match="has no train split"):
        data.load("bare", data_dir=tmp_path)
    pair = {"premise": tfds.features.Text(), "hypothesis": tfds.features.Text()}
    record = {"premise": b"a", "hypothesis": b"b"}
    prepared_set({"train": [record], "test": [record]}, features=pair, name="pairs")
    with pytest.raises(DataError, match="is not for image classification"):
        data.load("pairs", data_dir=tmp_path)
    prepared_set({"train": pictures(3, (5, 4, 3)), "test": pictures(3, (5, 4, 3))}, name="seen")
    with pytest.raises(DataError, match="a length goes with text only"):
        data.load("seen", data_dir=tmp_path, length=8)


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
