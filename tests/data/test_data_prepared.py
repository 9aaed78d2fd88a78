import io
import mmap
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from toysets import pictures, png

import llfc_jax
from llfc_jax import data
from llfc_jax.data.tfds import records
from llfc_jax.errors import DataError

ROOT = Path(llfc_jax.__file__).parents[1]


def images(examples):
    return np.stack([image for image, _ in examples])


@pytest.fixture
def toy(prepared_set, tmp_path):
    """A set of 7 train and 4 test images: its folder, its examples, and how to load it."""
    parts = {"train": pictures(7, (5, 4, 3)), "test": pictures(4, (5, 4, 3), seed=1)}
    folder = prepared_set(parts)
    return folder, parts, lambda **options: data.load("toy", data_dir=tmp_path, **options)


@pytest.fixture
def undecodable(monkeypatch):
    """Forbids decoding."""

    def fail(*_):
        raise AssertionError("decoded")

    return lambda: monkeypatch.setattr(records, "_decode", fail)


def test_a_prepared_set_is_read_as_written(toy):
    _, parts, load = toy
    read = load()
    np.testing.assert_array_equal(read.train.images, images(parts["train"]))
    np.testing.assert_array_equal(read.test.images, images(parts["test"]))
    assert read.train.labels.tolist() == [label for _, label in parts["train"]]
    assert read.train.labels.dtype == np.int32
    assert (read.name, read.classes, read.shape) == ("toy", 3, (5, 4, 3))
    np.testing.assert_allclose(read.mean, images(parts["train"]).mean((0, 1, 2)) / 255, rtol=1e-12)


def test_grey_images_have_one_channel(prepared_set, tmp_path):
    parts = {"train": pictures(3, (5, 4, 1)), "test": pictures(3, (5, 4, 1))}
    prepared_set(parts, shape=(5, 4, 1))
    read = data.load("toy", data_dir=tmp_path)
    np.testing.assert_array_equal(read.train.images, images(parts["train"]))


def test_known_sets_have_their_constants(prepared_set, tmp_path):
    parts = {"train": pictures(3, (28, 28, 1)), "test": pictures(3, (28, 28, 1))}
    prepared_set(parts, name="mnist", version="3.0.1", shape=(28, 28, 1))
    read = data.load("mnist:3.0.1", data_dir=tmp_path, pad_to=32, channels=3)
    assert (read.mean, read.std, read.shape) == ((0.1307,) * 3, (0.3081,) * 3, (32, 32, 3))


def test_a_configuration_is_part_of_the_name(prepared_set, tmp_path):
    """As in ImageNet at 64x64, which has a split called validation, and ImageNet's constants."""
    parts = {"train": pictures(4, (5, 4, 3)), "validation": pictures(3, (5, 4, 3), seed=1)}
    prepared_set(parts, name="imagenet_resized", version="64x64/0.1.0")
    read = data.load("imagenet_resized/64x64", data_dir=tmp_path)
    np.testing.assert_array_equal(read.train.images, images(parts["train"]))
    np.testing.assert_array_equal(read.test.images, images(parts["validation"]))
    assert (read.mean[0], read.std[0]) == (0.485, 0.229)


def test_reading_imports_no_tensorflow(toy, tmp_path):
    code = (
        "import sys; from llfc_jax import data; "
        f"assert len(data.load('toy', data_dir={str(tmp_path)!r}).train) == 7; "
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_the_embedded_and_own_data_do_without_tfds():
    code = (
        "import sys; from llfc_jax import data; data.load('digits'); "
        "assert 'tensorflow_datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_decoded_arrays_are_cached(toy, undecodable):
    first = toy[2]()
    undecodable()
    second = toy[2]()
    assert second.fingerprint == first.fingerprint


def test_what_is_streamed_stays_on_disk(toy):
    """Images are windows on a file, whatever their number, and are read a batch at a time."""
    read = toy[2](resident_mb=0)
    owner = read.train.images
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    assert isinstance(owner.base, mmap.mmap)
    batches = data.Batches(read.train, read, 3)
    assert batches._images is read.train.images
    resident = data.Batches(read.train, toy[2](), 3)
    for streamed, kept in zip(batches, resident, strict=True):
        np.testing.assert_array_equal(streamed[0], kept[0])


def test_the_whole_serves_for_a_part(toy, undecodable):
    whole = toy[2]()
    undecodable()
    part = toy[2](train_size=3, test_size=2)
    np.testing.assert_array_equal(part.train.images, whole.train.images[:3])
    np.testing.assert_array_equal(part.test.labels, whole.test.labels[:2])


def test_a_part_is_decoded_and_cached_alone(toy, monkeypatch, undecodable):
    decoded = []
    monkeypatch.setattr(
        records, "_decode", lambda *a, of=records._decode: decoded.append(len(a[2])) or of(*a)
    )
    part = toy[2](train_size=3, test_size=2)
    assert decoded == [3, 2]
    undecodable()
    assert toy[2](train_size=3, test_size=2).fingerprint == part.fingerprint
    with pytest.raises(DataError, match="train_size is 8, but there are only 7 samples"):
        toy[2](train_size=8)


@pytest.mark.parametrize("damage", ["cut", "zeros", "empty", "gone", "other shape", "other type"])
@pytest.mark.parametrize("array", ["images", "labels"])
def test_a_damaged_cache_is_made_anew(toy, damage, array):
    folder, _, load = toy
    before = load().fingerprint
    (path,) = (folder / "llfc_jax").glob(f"train-7-*.{array}.npy")
    content = path.read_bytes()
    stored = np.load(path)
    path.unlink()
    match damage:
        case "cut":
            path.write_bytes(content[:-1])
        case "zeros":
            path.write_bytes(bytes(len(content)))
        case "empty":
            path.touch()
        case "other shape":
            np.save(path, stored[:-1])
        case "other type":
            np.save(path, stored.astype(np.int16))
    assert load().fingerprint == before
    assert path.read_bytes() == content


def test_an_interrupted_write_leaves_no_cache(toy, monkeypatch):
    folder, _, load = toy
    monkeypatch.setattr(records, "_CHUNK", 2)

    def stop(done, total, words):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(progress=stop)
    assert list((folder / "llfc_jax").iterdir()) == []


def test_a_cache_of_other_records_is_not_taken(prepared_set, tmp_path):
    folder = prepared_set({"train": pictures(4, (5, 4, 3)), "test": pictures(4, (5, 4, 3))})
    before = data.load("toy", data_dir=tmp_path)
    kept = tmp_path / "kept"
    shutil.move(folder / "llfc_jax", kept)
    shutil.rmtree(folder)
    after = {"train": pictures(6, (5, 4, 3), seed=2), "test": pictures(4, (5, 4, 3), seed=3)}
    shutil.move(kept, prepared_set(after) / "llfc_jax")
    now = data.load("toy", data_dir=tmp_path, train_size=4)
    assert now.fingerprint != before.fingerprint
    np.testing.assert_array_equal(now.train.images, images(after["train"])[:4])


def test_versions_have_caches_of_their_own(prepared_set, tmp_path):
    for version, seed in (("1.0.0", 1), ("1.1.0", 2)):
        parts = {"train": pictures(4, (5, 4, 3), seed=seed), "test": pictures(4, (5, 4, 3))}
        prepared_set(parts, version=version)
    old, new, latest = (
        data.load(name, data_dir=tmp_path) for name in ("toy:1.0.0", "toy:1.1.0", "toy")
    )
    assert old.fingerprint != new.fingerprint == latest.fingerprint


def test_a_folder_that_cannot_be_written_is_done_without(toy):
    folder, parts, load = toy
    (folder / "llfc_jax").write_text("in the way")
    np.testing.assert_array_equal(load().train.images, images(parts["train"]))


def test_progress_is_told(toy, monkeypatch):
    monkeypatch.setattr(records, "_CHUNK", 3)
    told = []
    toy[2](progress=lambda *words: told.append(words))
    assert told[:4] == [(n, 7, "decoding toy, train") for n in (0, 3, 6, 7)]
    assert told[4:] == [(n, 4, "decoding toy, test") for n in (0, 3, 4)]


@pytest.mark.parametrize("hidden", [False, True])
def test_validation_stands_in_for_a_test_split(prepared_set, tmp_path, hidden):
    """As in ImageNet, whose test labels are hidden."""
    parts = {"train": pictures(4, (5, 4, 3)), "validation": pictures(3, (5, 4, 3), seed=1)}
    if hidden:
        parts["test"] = [(image, -1) for image, _ in pictures(2, (5, 4, 3), seed=2)]
    prepared_set(parts)
    read = data.load("toy", data_dir=tmp_path)
    np.testing.assert_array_equal(read.test.images, images(parts["validation"]))


def test_a_set_with_only_a_train_split_is_cut(prepared_set, tmp_path):
    parts = {"train": pictures(10, (5, 4, 3))}
    prepared_set(parts)
    read = data.load("toy", data_dir=tmp_path)
    np.testing.assert_array_equal(read.train.images, images(parts["train"])[:8])
    np.testing.assert_array_equal(read.test.images, images(parts["train"])[8:])


def test_images_of_different_sizes_need_a_size(prepared_set, tmp_path):
    some = pictures(2, (20, 31, 3)) + pictures(2, (40, 30, 3))
    prepared_set({"train": some, "test": some}, shape=(None, None, 3))
    with pytest.raises(DataError, match=r"differ in size \(20x31 and 40x30\); give a size"):
        data.load("toy", data_dir=tmp_path)
    read = data.load("toy", data_dir=tmp_path, size=10)
    assert read.shape == (10, 10, 3)
    inner = Image.fromarray(some[2][0]).resize((10, 10), Image.Resampling.BILINEAR, (0, 5, 30, 35))
    np.testing.assert_array_equal(read.train.images[2], np.asarray(inner))
    assert data.load("toy", data_dir=tmp_path, size=9).shape == (9, 9, 3)


def test_images_of_one_undeclared_size_need_none(prepared_set, tmp_path):
    some = pictures(4, (6, 7, 3))
    prepared_set({"train": some, "test": some}, shape=(None, None, 3))
    assert data.load("toy", data_dir=tmp_path).shape == (6, 7, 3)


def test_grey_files_in_a_colour_set_are_coloured(prepared_set, tmp_path):
    """ImageNet holds a few."""
    grey = pictures(1, (5, 4, 1))[0][0]
    some = [(png(grey), 0), *pictures(2, (5, 4, 3))]
    prepared_set({"train": some, "test": some})
    read = data.load("toy", data_dir=tmp_path)
    np.testing.assert_array_equal(read.train.images[0], np.repeat(grey, 3, -1))


IMAGE, LABEL = tfds.features.Image(shape=(5, 4, 3)), tfds.features.ClassLabel(num_classes=3)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"x": np.int64}, "'toy' is not for image classification"),
        ({"x": LABEL, "label": LABEL}, "'toy' is not for image classification"),
        ({"x": LABEL, "image": IMAGE}, "'toy' is not for image classification"),
        ({"x": LABEL, "image": IMAGE, "label": np.int64}, "'toy' is not for image classification"),
        (
            {"image": tfds.features.Image(shape=(5, 4, 1), dtype=np.uint16), "label": LABEL},
            "uint16 with 1 channels",
        ),
        ({"image": IMAGE, "label": tfds.features.ClassLabel()}, "how many classes"),
    ],
)
def test_sets_that_are_no_image_classification(prepared_set, tmp_path, features, words):
    """Seen from the declared features alone, so no record is needed."""
    prepared_set({"train": [], "test": []}, features=features)
    with pytest.raises(DataError, match=words):
        data.load("toy", data_dir=tmp_path)


def test_a_set_without_a_train_split(prepared_set, tmp_path):
    prepared_set({"test": pictures(4, (5, 4, 3))})
    with pytest.raises(DataError, match="no train split, only test"):
        data.load("toy", data_dir=tmp_path)


def test_labels_beyond_the_classes(prepared_set, tmp_path):
    some = [(image, -1) for image, _ in pictures(3, (5, 4, 3))]
    prepared_set({"train": some, "validation": pictures(3, (5, 4, 3))})
    with pytest.raises(DataError, match="train labels run from -1 to -1"):
        data.load("toy", data_dir=tmp_path)


@pytest.mark.parametrize("damage", ["shard gone", "shard cut", "no image", "metadata"])
def test_a_damaged_set(prepared_set, tmp_path, damage):
    broken = (b"no png", 0) if damage == "no image" else pictures(1, (5, 4, 3))[0]
    folder = prepared_set({"train": [broken] * 3, "test": pictures(3, (5, 4, 3))})
    (shard,) = folder.glob("*-train.*")
    match damage:
        case "shard gone":
            shard.unlink()
        case "shard cut":
            shard.write_bytes(shard.read_bytes()[:-40])
        case "metadata":
            (folder / "features.json").write_text("{")
    with pytest.raises(DataError, match=r"cannot (read|open)") as raised:
        data.load("toy", data_dir=tmp_path)
    assert "\n" not in str(raised.value)
    assert not list(folder.glob("llfc_jax/train*"))


def test_a_preparation_that_was_cut_off_is_no_set(prepared_set, tmp_path):
    """TFDS writes to a folder of this name and renames it at the end."""
    folder = prepared_set(
        {"train": pictures(3, (28, 28, 1))}, name="mnist", version="3.0.1", shape=(28, 28, 1)
    )
    folder.rename(folder.with_name("incomplete.ABC123_3.0.1"))
    with pytest.raises(DataError, match="'mnist' is not prepared"):
        data.load("mnist", data_dir=tmp_path)


def test_a_format_that_only_tensorflow_reads(prepared_set, tmp_path):
    folder = prepared_set({"train": pictures(3, (5, 4, 3)), "test": pictures(3, (5, 4, 3))})
    for shard in folder.glob("*.array_record*"):
        shard.rename(str(shard).replace("array_record", "tfrecord"))
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(DataError, match="holds tfrecord files, which only TensorFlow reads"):
        data.load("toy", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "mnist",
            r"'mnist' is not prepared in .*python -m llfc_jax.data.tfds.prepare mnist --data-dir",
        ),
        ("emnist/letters", r"llfc_jax.data.tfds.prepare emnist/letters"),
        ("fashon_mnist", r"unknown data set 'fashon_mnist'; did you mean 'fashion_mnist'\?"),
        ("zzz", "unknown data set 'zzz'; known: digits, digits_halves, "),
        ("no such/name at/all", "cannot open data set"),
        ("../etc", "cannot open data set"),
        ("", "name must be words"),
    ],
)
def test_sets_that_are_not_there(tmp_path, name, words):
    with pytest.raises(DataError, match=words) as raised:
        data.load(name, data_dir=tmp_path)
    assert "\n" not in str(raised.value)


def test_jpeg_files_are_read(prepared_set, tmp_path):
    file = io.BytesIO()
    Image.fromarray(np.full((5, 4, 3), 90, np.uint8)).save(file, "JPEG", quality=95)
    prepared_set({"train": [(file.getvalue(), 0)] * 3, "test": pictures(2, (5, 4, 3))})
    read = data.load("toy", data_dir=tmp_path)
    np.testing.assert_allclose(read.train.images, 90, atol=2)
