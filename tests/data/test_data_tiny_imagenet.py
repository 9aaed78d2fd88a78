"""Tiny-ImageNet's own archive format, filled with made JPEG files, through the builder of TFDS."""

import importlib.util
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image

import llfc_jax
from llfc_jax import data
from llfc_jax.data.tfds.prepare import main
from llfc_jax.data.tfds.tiny_imagenet import TinyImagenet
from llfc_jax.errors import DataError

REPOSITORY = Path(llfc_jax.__file__).parents[1]
NAME, ROOT = "tiny-imagenet-200.zip", "tiny-imagenet-200"
SYNSETS = ["n03", "n01", "n02"]  # the archive's own list is not sorted either
needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="needs the extra llfc-jax[prepare]"
)

# Makes the file on disk the official one, in this process's memory only.
PREPARE = """
import sys
from llfc_jax.data.tfds.prepare import main
from llfc_jax.data.tfds.tiny_imagenet import TinyImagenet
from tensorflow_datasets.core.download import checksums
(url,) = TinyImagenet.url_infos
TinyImagenet.url_infos[url] = checksums.compute_url_info(sys.argv[1] + "/tiny-imagenet-200.zip")
sys.exit(main(["tiny_imagenet", "--archives", sys.argv[1], "--data-dir", sys.argv[2]]))
"""


def jpeg(image):
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


def decoded(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def write(folder, annotations=None):
    """An archive of 4 train images of each synset and 5 validation images; their JPEG bytes."""
    random = np.random.default_rng(0)
    train, validation, lines = {}, {}, []
    folder.mkdir()

    def picture(mode="RGB"):
        shape = (8, 8, 3)[: 2 + (mode == "RGB")]
        small = Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8))
        return jpeg(small.resize((64, 64)))

    with zipfile.ZipFile(folder / NAME, "w") as archive:
        archive.writestr(f"{ROOT}/wnids.txt", "\n".join(SYNSETS) + "\n")
        archive.writestr("../escaped.JPEG", "must not be written")
        archive.writestr(f"{ROOT}/train/n01/images/../../escaped.JPEG", "must not be read")
        for synset in SYNSETS:
            archive.writestr(f"{ROOT}/train/{synset}/{synset}_boxes.txt", "a.JPEG\t0\t0\t9\t9\n")
            for i in range(4):
                content = picture("L" if i == 3 else "RGB")  # ImageNet has grey ones
                archive.writestr(f"{ROOT}/train/{synset}/images/{synset}_{i}.JPEG", content)
                train[f"{synset}_{i}.JPEG"] = content, sorted(SYNSETS).index(synset)
        for i in range(5):
            content, synset = picture(), SYNSETS[i % 3]
            archive.writestr(f"{ROOT}/val/images/val_{i}.JPEG", content)
            lines.append(f"val_{i}.JPEG\t{synset}\t0\t32\t44\t62")
            validation[f"val_{i}.JPEG"] = content, sorted(SYNSETS).index(synset)
        archive.writestr(f"{ROOT}/val/val_annotations.txt", annotations or "\n".join(lines) + "\n")
        archive.writestr(f"{ROOT}/test/images/test_0.JPEG", picture())
    return train, validation


@pytest.fixture
def builder(tmp_path):
    return tfds.builder("tiny_imagenet", data_dir=tmp_path / "sets")


def test_the_archive_is_read_without_unpacking(builder, tmp_path):
    parts = write(tmp_path / "archives")
    archive = epath.Path(tmp_path / "archives" / NAME)
    for name, expected in zip(("train", "val"), parts, strict=True):
        read = dict(builder._generate_examples(archive, name))
        found = {key: (value["image"].read(), value["label"]) for key, value in read.items()}
        assert found == expected
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {NAME}


def test_annotations_of_unknown_classes_are_told(builder, tmp_path):
    write(tmp_path / "archives", annotations="val_0.JPEG\tn99\t0\t0\t9\t9\n")
    archive = epath.Path(tmp_path / "archives" / NAME)
    with pytest.raises(DataError, match=r"val_0\.JPEG in the archive is of no known class, 'n99'"):
        list(builder._generate_examples(archive, "val"))


@needs_tensorflow
def test_only_the_official_archive_is_taken(tmp_path, capsys):
    ((url, info),) = TinyImagenet.url_infos.items()
    assert (info.size, info.filename) == (248_100_043, NAME)
    write(tmp_path / "archives")
    folders = ["--archives", str(tmp_path / "archives"), "--data-dir", str(tmp_path / "sets")]
    assert main(["tiny_imagenet", *folders]) == 2
    assert f"is not the official file (its size or SHA-256 differs); get it again from {url}" in (
        capsys.readouterr().err
    )


@needs_tensorflow
def test_a_made_archive_is_prepared_and_read_back(tmp_path):
    parts = write(tmp_path / "archives")
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, str(tmp_path / "archives"), str(tmp_path / "sets")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    read = data.load("tiny_imagenet", data_dir=tmp_path / "sets")
    assert (read.shape, read.classes, read.mean) == ((64, 64, 3), 200, (0.4802, 0.4481, 0.3975))
    for split, expected in zip((read.train, read.test), parts, strict=True):
        pairs = zip(split.images, split.labels, strict=True)
        made = ((decoded(content), label) for content, label in expected.values())
        assert sorted((image.tobytes(), int(label)) for image, label in pairs) == sorted(
            (image.tobytes(), label) for image, label in made
        )
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["tiny_imagenet"]
    assert not list(tmp_path.rglob("*escaped*"))
