import numpy as np
import pytest

from llfc_jax import data
from llfc_jax.errors import DataError

RANDOM = np.random.default_rng(0)
GOOD = {
    "x_train": RANDOM.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8),
    "y_train": np.arange(12) % 4,
    "x_test": RANDOM.integers(0, 256, (5, 6, 5, 3), dtype=np.uint8),
    "y_test": np.arange(5) % 4,
}


def load(folder, **changes):
    arrays = {k: v for k, v in (GOOD | changes).items() if v is not None}
    np.savez(folder / "mine.npz", **arrays)
    return data.load("npz", path=folder / "mine.npz")


def images(shape, dtype, low=0.0, high=1.0):
    return {
        f"x_{part}": RANDOM.uniform(low, high, (n, *shape)).astype(dtype)
        for part, n in (("train", 12), ("test", 5))
    }


def test_arrays_come_back_as_they_are(tmp_path):
    mine = load(tmp_path)
    np.testing.assert_array_equal(mine.train.images, GOOD["x_train"])
    np.testing.assert_array_equal(mine.test.labels, GOOD["y_test"])
    assert mine.train.images.dtype == np.uint8
    assert (mine.name, mine.classes, mine.shape) == ("npz", 4, (6, 5, 3))
    pixels = GOOD["x_train"] / 255
    np.testing.assert_allclose(mine.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(mine.std, pixels.std(axis=(0, 1, 2)), rtol=1e-12)


def test_the_other_layout_of_names(tmp_path):
    theirs = ("train_images", "train_labels", "test_images", "test_labels")
    names = dict(zip(GOOD, theirs, strict=True))
    np.savez_compressed(
        tmp_path / "m.npz", **{names[k]: v for k, v in GOOD.items()}, val=np.ones(3)
    )
    mine = data.load("npz", path=str(tmp_path / "m.npz"))
    assert mine.fingerprint == load(tmp_path).fingerprint


@pytest.mark.parametrize("dtype", [np.int64, np.uint16])
def test_whole_numbers_within_a_byte_are_bytes(tmp_path, dtype):
    changes = {k: GOOD[k].astype(dtype) for k in ("x_train", "x_test")}
    assert load(tmp_path, **changes).fingerprint == load(tmp_path).fingerprint


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_float_images_become_float32_in_their_units(tmp_path, dtype):
    changes = images((6, 5, 3), dtype, -3, 3)
    mine = load(tmp_path, **changes)
    np.testing.assert_allclose(mine.train.images, changes["x_train"], rtol=1e-6)
    x, _ = next(iter(data.Batches(mine.train, mine, 12)))
    np.testing.assert_allclose(np.mean(x, axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(x, axis=(0, 1, 2)), 1, atol=1e-5)


def test_images_without_channels_get_one(tmp_path):
    mine = load(tmp_path, **images((6, 5), np.float32))
    assert mine.shape == (6, 5, 1)


def test_features_keep_their_shape_and_share_their_statistics(tmp_path):
    changes = images((7,), np.float32)
    mine = load(tmp_path, **changes)
    assert mine.shape == (7,)
    assert mine.mean == pytest.approx((changes["x_train"].mean(),), rel=1e-5)
    with pytest.raises(DataError, match="pad_to needs images"):
        data.load("npz", path=tmp_path / "mine.npz", pad_to=8)


def test_a_constant_channel_is_normalised_to_zeros(tmp_path):
    made = images((6, 5, 2), np.float32)
    for array in made.values():
        array[..., 1] = 0.1
    mine = load(tmp_path, **made)
    x, _ = next(iter(data.Batches(mine.train, mine, 12)))
    np.testing.assert_allclose(x[..., 1], 0, atol=1e-6)


def test_labels_in_a_column(tmp_path):
    assert load(tmp_path, y_train=GOOD["y_train"][:, None]).train.labels.shape == (12,)


def broken(key, value):
    array = images((6, 5, 3), np.float32)
    array[key][0, 0, 0, 0] = value
    return array


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y_test": None}, "must hold x_train, y_train, x_test, y_test; it holds x_test, x_train"),
        ({"x_train": GOOD["x_train"][:7]}, "x_train and y_train: 7 images but 12 labels"),
        ({"x_test": GOOD["x_test"][:, :5]}, "test images uint8"),
        ({"x_train": GOOD["x_train"][0]}, "6 images but 12 labels"),
        ({"x_train": GOOD["x_train"][0, 0, 0]}, "images have shape"),
        ({"x_test": np.zeros((0, 6, 5, 3), np.uint8), "y_test": np.zeros(0, int)}, "no images"),
        (broken("x_train", np.nan), "x_train and y_train: images hold NaN or infinity in 1 of"),
        (broken("x_test", np.inf), "x_test and y_test: images hold NaN or infinity"),
        ({"x_train": np.full((12, 3), 1e300)}, "NaN or infinity in 36 of 36"),
        ({"x_train": np.full((12, 3), 256)}, "must lie in 0 to 255, not 256 to 256"),
        ({"x_train": np.full((12, 3), -1)}, "must lie in 0 to 255"),
        ({"x_train": np.zeros((12, 3), bool)}, "images are bool"),
        ({"x_train": np.zeros((12, 3), complex)}, "images are complex128"),
        ({"x_train": np.zeros((12, 3, 8, 8), np.uint8)}, "channels first"),
        ({"y_train": GOOD["y_train"] * 1.0}, "labels are float64"),
        ({"y_train": GOOD["y_train"] - 1}, "labels run from -1 to 2; number them from 0"),
        ({"y_train": GOOD["y_train"] + 2**31}, "number them from 0"),
        ({"y_train": np.eye(12, dtype=int)}, r"labels are int32 \(12, 12\)"),
        ({"y_train": np.full(12, 99)}, "up to 99, but there are only 12 images"),
        ({"y_train": np.zeros(12, int)}, "at least two classes"),
        ({"y_test": np.full(5, 4)}, "test labels run up to 4, but train labels only to 3"),
        ({"x_train": np.array([[{}]] * 12, object)}, "holds Python objects"),
    ],
)
def test_what_does_not_fit(tmp_path, changes, words):
    with pytest.raises(DataError, match=words) as raised:
        load(tmp_path, **changes)
    assert "\n" not in str(raised.value)


def test_files_that_are_none(tmp_path):
    def attempt(name):
        with pytest.raises(DataError) as raised:
            data.load("npz", path=tmp_path / name)
        return str(raised.value)

    load(tmp_path)
    whole = (tmp_path / "mine.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    middle = len(whole) // 4
    (tmp_path / "flipped.npz").write_bytes(whole[:middle] + b"????" + whole[middle + 4 :])
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").touch()
    np.save(tmp_path / "array.npy", np.zeros(3))
    assert "cannot read" in attempt("missing.npz")
    assert "cannot read" in attempt("")
    for name in ("half.npz", "flipped.npz", "text.npz", "empty.npz"):
        assert "is damaged, no .npz file" in attempt(name)
    assert "is no .npz file" in attempt("array.npy")
    with pytest.raises(DataError, match="'npz' needs the path of the file"):
        data.load("npz")


@pytest.mark.parametrize("field", ["size", "pad_to", "channels"])
def test_images_larger_than_any_network_takes(field):
    with pytest.raises(DataError, match=f"{field} must be at most 4096"):
        data.load("digits", **{field: 10**12})
