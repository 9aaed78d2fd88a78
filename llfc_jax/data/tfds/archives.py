"""Official archive files that lie on disk already: found by name, verified, restored if need be.

Debian's package `dataset-fashion-mnist` ships the official compressed bytes of Fashion-MNIST, but
its build strips the file name and the time from each gzip header. Both are known, so the official
file can be put together again, and its published checksum shows that it is.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llfc_jax.errors import DataError

_FIXED_HEADER = 10  # bytes: magic (2), method, flags, time (4, little endian), extra, system
_HAS_NAME = 8  # the flag that says that a file name, ended by a zero byte, follows
_TIMES = (1504176606, 1504176627)  # of Fashion-MNIST's train and test files, 31 August 2017


@dataclass(frozen=True)
class Archive:
    """An official file: where it comes from, its name, size in bytes and SHA-256."""

    url: str
    name: str
    size: int
    sha256: str


def collect(folder: Path, wanted: Sequence[Archive], into: Path) -> None:
    """Brings verified archives together under their official names.

    Args:
        folder: where the user has them.
        wanted: which ones are needed.
        into: an empty folder. Restored files are written there; all others that lie in `folder`
            are linked.

    Raises:
        DataError: if `folder` or one of the files is missing, or a file is not the official one.
    """
    if not folder.is_dir():
        raise DataError(f"no folder of archives at {folder}")
    missing = [archive for archive in wanted if not (folder / archive.name).is_file()]
    if missing:
        names = ", ".join(archive.name for archive in missing)
        urls = " ".join(archive.url for archive in missing)
        raise DataError(f"missing in {folder}: {names}; the official files are {urls}")
    for archive in wanted:
        path = folder / archive.name
        if path.stat().st_size == archive.size and _sha256(path) == archive.sha256:
            continue
        restored = restore(path, archive)
        if restored is None:
            raise DataError(
                f"{path} is not the official file (its size or SHA-256 differs); "
                f"get it again from {archive.url}"
            )
        (into / archive.name).write_bytes(restored)
    for path in folder.iterdir():
        if not (into / path.name).exists():
            (into / path.name).symlink_to(path.resolve())


def restore(path: Path, archive: Archive) -> bytes | None:
    """Returns the official bytes of a gzip file whose header lost name and time, or None."""
    name = archive.name.removesuffix(".gz").encode() + b"\0"
    if path.stat().st_size != archive.size - len(name):
        return None
    data = path.read_bytes()
    if data[:4] != b"\x1f\x8b\x08\x00":  # gzip, deflated, no flags
        return None
    for time in _TIMES:
        header = data[:3] + bytes([_HAS_NAME]) + time.to_bytes(4, "little") + data[8:_FIXED_HEADER]
        restored = header + name + data[_FIXED_HEADER:]
        if hashlib.sha256(restored).hexdigest() == archive.sha256:
            return restored
    return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
