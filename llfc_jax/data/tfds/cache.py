"""Decoded splits as `.npy` files: written aside, then renamed; read as memory maps.

A reader sees a whole file or none. A file that is damaged, or of another shape than asked for,
counts as none.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

Chunk = tuple[np.ndarray, np.ndarray]  # some images, uint8, and their labels, int32


def cached(
    folder: Path, key: str, shape: tuple[int, ...], decode: Callable[[], Iterable[Chunk]]
) -> Chunk:
    """Images and labels from the cache, put there first if they are not.

    Where `folder` cannot be written (read-only, full), they are decoded in memory each time.

    Args:
        folder: where the files `KEY.images.npy` and `KEY.labels.npy` lie.
        key: says all on which the contents depend.
        shape: of the images, [n, height, width, channels].
        decode: gives the contents in chunks, from the start whenever it is called.

    Returns:
        Images, uint8, and labels, int32; read-only.
    """
    found = find(folder, key, shape)
    if found is None:
        try:
            _write(folder, key, shape, decode)
        except OSError:
            images, labels = zip(*decode(), strict=True)
            return np.concatenate(images), np.concatenate(labels)
        found = find(folder, key, shape)
    if found is None:
        raise AssertionError(f"{key} was written to {folder}, but cannot be read back")
    return found


def find(folder: Path, key: str, shape: tuple[int, ...]) -> Chunk | None:
    """Returns what `cached` wrote, or None if it is not there whole."""
    try:
        images, labels = (np.load(path, mmap_mode="r") for path in _paths(folder, key))
    except (OSError, ValueError, EOFError):
        return None
    wanted = ((shape, np.uint8), (shape[:1], np.int32))
    fits = ((images.shape, images.dtype), (labels.shape, labels.dtype)) == wanted
    return (np.asarray(images), np.asarray(labels)) if fits else None


def _paths(folder: Path, key: str) -> tuple[Path, Path]:
    return folder / f"{key}.images.npy", folder / f"{key}.labels.npy"


def _write(
    folder: Path, key: str, shape: tuple[int, ...], decode: Callable[[], Iterable[Chunk]]
) -> None:
    """Streams the chunks to disk, so that memory need not hold them."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = _paths(folder, key)
    with _aside(folder) as aside:
        with open(aside / "images", "wb") as x, open(aside / "labels", "wb") as y:
            _header(x, shape, np.uint8)
            _header(y, shape[:1], np.int32)
            for some_images, some_labels in decode():
                x.write(np.ascontiguousarray(some_images, np.uint8).data)
                y.write(np.ascontiguousarray(some_labels, np.int32).data)
        (aside / "labels").replace(labels)
        (aside / "images").replace(images)


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    aside = Path(tempfile.mkdtemp(prefix=f".{os.getpid()}-", dir=folder))
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _header(file: IO[bytes], shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
