"""The safetensors format: a JSON header with types, shapes and places, then the plain bytes."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llfc_jax.checkpoints.mapped import NARROW, map_file, view

_NAMES = {
    "BOOL": "bool",
    **{f"{kind}{bits}": f"{word}{bits}" for kind, word in (("U", "uint"), ("I", "int"))
       for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "C64": "complex64",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
DTYPES = {name: NARROW.get(own) or np.dtype(own) for name, own in _NAMES.items()}


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Returns name -> array; the arrays lie in the file.

    Raises:
        ValueError: the file is cut short, or holds something else.
    """
    data = map_file(path)
    start = 8 + int.from_bytes(bytes(data[:8]), "little")
    if len(data) < 8 or start > len(data):
        raise ValueError("its header reaches beyond its end")
    header = json.loads(bytes(data[8:start]).decode())
    header.pop("__metadata__", None)
    arrays, spans = {}, []
    for name, entry in header.items():
        kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if kind not in DTYPES:
            raise ValueError(f"{name} is of the type {kind}, for which JAX has none")
        arrays[name] = view(data, start + begin, DTYPES[kind], shape)
        if begin < 0 or arrays[name].nbytes != end - begin:
            raise ValueError(f"{name} does not fit into its place")
        spans.append((begin, end))
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise ValueError("its arrays overlap, or leave gaps")
        reached = end
    if start + reached != len(data):
        raise ValueError(f"it should be {start + reached:,} bytes long, and is {len(data):,}")
    return arrays


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes name -> array.

    Raises:
        ValueError: an array of a type that the format lacks.
    """
    header, places = make_header(arrays)
    with path.open("wb") as file:
        file.write(header)
        for name in places:
            file.write(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)


def make_header(arrays: Mapping[str, Any]) -> tuple[bytes, dict[str, int]]:
    """Returns how a file begins that holds these arrays, and where each of them starts in it.

    Args:
        arrays: name -> array, or its shape and type.

    Raises:
        ValueError: an array of a type that the format lacks.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    entries, places, reached = {}, {}, 0
    # Wide types first, so that every array starts at a multiple of its item's size.
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        if array.dtype not in names:
            raise ValueError(f"{name} is {array.dtype}, which safetensors does not have")
        places[name] = reached
        reached += math.prod(array.shape) * array.dtype.itemsize
        span = [places[name], reached]
        kind, shape = names[array.dtype], list(array.shape)
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": span}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return header, {name: len(header) + place for name, place in places.items()}
