"""CIFAR-10's own archive format, filled with made images, through TFDS's own builder."""

import importlib.util
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

import llfc_jax
from llfc_jax import data
from llfc_jax.errors import DataError

ROOT = Path(llfc_jax.__file__).parents[1]
NAME = "cifar-10-binary.tar.gz"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BATCHES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="needs the extra llfc-jax[prepare]"
)

# Makes the files on disk the official ones, in this process's memory only.
TRUST = """
import sys
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums
infos = tfds.builder_cls("cifar10").url_infos
(url,) = infos
infos[url] = checksums.compute_url_info(sys.argv[1])
"""
COMMAND = """
from llfc_jax.data.tfds.prepare import main
sys.exit(main(["cifar10", "--archives", sys.argv[2], "--data-dir", sys.argv[3]]))
"""


def write(folder, seed):
    """An archive in CIFAR-10's binary format: per image a label byte, then 3 planes of 32 x 32."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    contents = {}
    with tarfile.open(folder / NAME, "w:gz") as tar:

        def add(path, content):
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

        add("cifar-10-batches-bin/batches.meta.txt", "\n".join(CLASSES).encode() + b"\n")
        add("../escaped.txt", b"must not be written")
        add("/tmp/llfc_jax_escaped.txt", b"must not be written")
        link = tarfile.TarInfo("cifar-10-batches-bin/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        for batch in BATCHES:
            labels = random.integers(0, 10, 6, dtype=np.uint8)
            images = random.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
            planes = images.transpose(0, 3, 1, 2).reshape(6, -1)
            add(f"cifar-10-batches-bin/{batch}", np.column_stack([labels, planes]).tobytes())
            contents[batch] = (images, labels)
    return contents


def prepare(archives, data_dir, trusted):
    return subprocess.run(
        [sys.executable, "-c", TRUST + COMMAND, str(trusted), str(archives), str(data_dir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def pairs(images, labels):
    return sorted(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


def check(read, contents):
    train = [contents[batch] for batch in BATCHES[:5]]
    images, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
    assert pairs(read.train.images, read.train.labels) == pairs(images, labels)
    assert pairs(read.test.images, read.test.labels) == pairs(*contents["test_batch.bin"])


def test_made_archives_are_read_back(tmp_path):
    """Two archives of one name, one after the other: nothing of the first may come back."""
    sets = tmp_path / "sets"
    first, second = write(tmp_path / "first", 1), write(tmp_path / "second", 2)
    done = prepare(tmp_path / "first", sets, tmp_path / "first" / NAME)
    assert done.returncode == 0, done.stderr
    read = data.load("cifar10", data_dir=sets)
    assert (read.shape, read.classes, read.mean[0], read.std[0]) == (
        (32, 32, 3),
        10,
        0.4914,
        0.2023,
    )
    check(read, first)

    (sets / "cifar10").rename(tmp_path / "away")
    done = prepare(tmp_path / "second", sets, tmp_path / "second" / NAME)
    assert done.returncode == 0, done.stderr
    check(data.load("cifar10", data_dir=sets), second)
    assert sorted(path.name for path in sets.iterdir()) == ["cifar10"]
    assert not list(tmp_path.rglob("*escaped.txt"))
    assert not Path("/tmp/llfc_jax_escaped.txt").exists()


def test_an_archive_of_other_bytes_is_refused(tmp_path):
    write(tmp_path / "good", 1)
    write(tmp_path / "bad", 2)
    sets = tmp_path / "sets"
    done = prepare(tmp_path / "bad", sets, tmp_path / "good" / NAME)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cifar-10-binary.tar.gz is not the official file" in done.stderr
    assert not list(sets.iterdir())


def test_a_builder_that_fails_leaves_no_set(tmp_path):
    """An archive that is trusted, but not CIFAR-10 inside."""
    folder = tmp_path / "archives"
    folder.mkdir()
    with tarfile.open(folder / NAME, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("cifar-10-batches-bin/nothing.txt"))
    sets = tmp_path / "sets"
    done = prepare(folder, sets, folder / NAME)
    assert done.returncode == 2
    assert "TFDS cannot prepare 'cifar10': " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not [path for path in sets.rglob("*") if path.is_file()]
    with pytest.raises(DataError, match="is not prepared"):
        data.load("cifar10", data_dir=sets)
