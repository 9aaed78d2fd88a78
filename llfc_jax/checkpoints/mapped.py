"""Files as memory: arrays that lie in a file and are read from it where they are used.

Nothing is read ahead of its use, and the system drops what is no longer used, so two checkpoints
that are larger than the memory can be compared leaf by leaf. The arrays are read-only; a file that
is overwritten in place while they are in use changes them (one that is replaced does not).
"""

import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import UInt8

Bytes = UInt8[np.ndarray, " bytes"]

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field
_DESCRIPTOR = 24  # bytes that may stand behind a file in a zip archive
NARROW = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "float8_e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "float8_e8m0fnu": np.dtype(ml_dtypes.float8_e8m0fnu),
}
"""The types that JAX has and NumPy has not."""


def dtype_named(name: str) -> np.dtype:
    """Returns a type by its name, those that NumPy lacks included.

    Raises:
        ValueError: no type of numbers has this name.
    """
    if name in NARROW:
        return NARROW[name]
    try:
        dtype = np.dtype(name)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "biufc":
        raise ValueError(f"it holds the type {name!r}, which is no type of numbers")
    return dtype


def map_file(path: Path) -> Bytes:
    """Returns a file's bytes as an array that is read where it is used.

    Raises:
        ValueError: the file is empty.
    """
    if not path.stat().st_size:
        raise ValueError("it is empty")
    return np.memmap(path, np.uint8, "r").view(np.ndarray)


def view(data: Bytes, start: int, dtype: np.dtype, shape: Sequence[int]) -> np.ndarray:
    """Returns the array of this type and shape that starts at a byte, without a copy.

    Raises:
        ValueError: the bytes end before it does.
    """
    if any(type(n) is not int or n < 0 for n in (start, *shape)):
        raise ValueError(f"it holds an array of the shape {list(shape)} at byte {start}")
    end = start + math.prod(shape) * dtype.itemsize
    if end > len(data):
        raise ValueError(f"it ends at byte {len(data):,}, but an array in it at {end:,}")
    return data[start:end].view(dtype).reshape(shape)


def release(array: np.ndarray) -> None:
    """Drops what was read of an array in a mapped file from memory; it is read again when used.

    Arrays that do not lie in a file, or lie in one that is mapped for writing, stay.
    """
    owner: Any = array
    while owner is not None and not isinstance(owner, np.memmap):
        owner = getattr(owner, "base", None)
    if owner is None or owner.mode != "r" or not array.size or not hasattr(mmap, "MADV_DONTNEED"):
        return
    while isinstance(owner.base, np.memmap):
        owner = owner.base
    first = np.lib.array_utils.byte_bounds(owner)[0] - owner.offset % mmap.ALLOCATIONGRANULARITY
    low, high = (place - first for place in np.lib.array_utils.byte_bounds(array))
    start = low // mmap.PAGESIZE * mmap.PAGESIZE
    held: Any = owner  # the mapping itself is private to NumPy
    held._mmap.madvise(mmap.MADV_DONTNEED, start, high - start)


def map_zip(path: Path) -> dict[str, Bytes]:
    """Returns the files of a zip archive by name, each as bytes that are read where they are used.

    Compressed ones are read now. The checksum of each is compared, and that none is missing, so
    damage of any kind shows.

    Raises:
        ValueError: it is damaged, or no zip archive.
    """
    whole = map_file(path)
    members, reached = {}, 0
    with zipfile.ZipFile(path) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
            start = _find_data(whole, info)
            if not 0 <= info.header_offset - reached <= _DESCRIPTOR:
                raise ValueError("a part of it is missing")
            reached = start + info.compress_size
            if not info.is_dir():
                members[info.filename] = _member(archive, whole[start:reached], info)
        if not 0 <= archive.start_dir - reached <= _DESCRIPTOR:
            raise ValueError("a part of it is missing")
    return members


def _find_data(whole: Bytes, info: zipfile.ZipInfo) -> int:
    """Returns where a file's bytes begin in its archive."""
    start = info.header_offset
    header = bytes(whole[start : start + _LOCAL_HEADER.size])
    signature, name, extra = _LOCAL_HEADER.unpack(header)
    start += _LOCAL_HEADER.size
    named = bytes(whole[start : start + name]).decode("utf-8", "replace")
    if signature != b"PK\x03\x04" or named != info.orig_filename:
        raise ValueError(f"{info.filename} in it is damaged")
    return start + name + extra


def _member(archive: zipfile.ZipFile, data: Bytes, info: zipfile.ZipInfo) -> Bytes:
    if info.compress_type != zipfile.ZIP_STORED:
        return np.frombuffer(archive.read(info), np.uint8)
    # PyTorch can leave the checksum out.
    checked = info.CRC == 0 or zlib.crc32(data.data) == info.CRC
    if len(data) != info.file_size or not checked:
        raise ValueError(f"{info.filename} in it is damaged")
    return data
