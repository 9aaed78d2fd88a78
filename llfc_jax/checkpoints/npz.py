"""NumPy's .npz: a zip archive of .npy files."""

import io
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from llfc_jax.checkpoints.mapped import NARROW, Bytes, map_zip, view


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Returns name -> array; the arrays lie in the file, unless they were compressed.

    Raises:
        ValueError: it is damaged, or holds Python objects, which would have to be unpickled.
    """
    members = map_zip(path)
    if not members:
        raise ValueError("it holds no array")
    return {name.removesuffix(".npy"): _read_npy(name, data) for name, data in members.items()}


def _read_npy(name: str, data: Bytes) -> np.ndarray:
    """Returns the array of one .npy file."""
    file = io.BytesIO(bytes(data[: 1 << 16]))
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shape, by_column, dtype = read(file)
    if dtype.kind == "V" and dtype.fields is None and dtype.itemsize == 2:
        dtype = NARROW["bfloat16"]  # NumPy writes no name for it, and no other type has two bytes
    if dtype.kind not in "biufc" and dtype not in NARROW.values():
        raise ValueError(f"{name} is of the type {dtype}, which is no type of numbers")
    array = view(data, file.tell(), dtype, shape[::-1] if by_column else shape)
    if file.tell() + array.nbytes != len(data):
        raise ValueError(f"{name} in it is damaged")
    array = array.T if by_column else array
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes name -> array.

    Raises:
        ValueError: a type that NumPy has no name for.
    """
    for name, array in arrays.items():
        if array.dtype in NARROW.values() and array.dtype != NARROW["bfloat16"]:
            raise ValueError(f"{name} is {array.dtype}, which .npz cannot hold; use .safetensors")
    np.savez(path, allow_pickle=False, **arrays)
