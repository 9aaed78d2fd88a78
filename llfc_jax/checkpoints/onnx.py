"""Weights of an ONNX file: its initialisers, read from the protobuf where they lie.

The network of the file is not read: write it in JAX and give it these weights. Not supported, and
said in one line: strings, types of less than a byte, sparse initialisers.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llfc_jax.checkpoints.mapped import Bytes, dtype_named, map_file, view

# Numbers of fields and types, from onnx.proto (IR version 3 on).
_GRAPH = 7  # of ModelProto
_INITIALIZER, _SPARSE = 5, 15  # of GraphProto
_DIMS, _TYPE, _NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 8, 9, 13, 14  # of TensorProto
_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64",
    15: "complex128", 16: "bfloat16", 17: "float8_e4m3fn", 18: "float8_e4m3fnuz",
    19: "float8_e5m2", 20: "float8_e5m2fnuz", 24: "float8_e8m0fnu",
}  # fmt: skip
_FLOATS, _INTS, _LONGS, _DOUBLES, _UNSIGNED = 4, 5, 7, 10, 11  # fields of numbers that are not raw
_FLOATING = {_FLOATS: np.dtype("<f4"), _DOUBLES: np.dtype("<f8")}


class _Field(NamedTuple):
    number: int
    value: Any  # an int, or bytes


def read_onnx(path: Path) -> dict[str, np.ndarray]:
    """Returns name -> array of the initialisers; the arrays lie in the file, or in its data files.

    Raises:
        ValueError: it is cut short, no ONNX model, or holds types that JAX lacks.
    """
    graphs = [field.value for field in _fields(map_file(path)) if field.number == _GRAPH]
    if len(graphs) != 1:
        raise ValueError("it is no ONNX model")
    arrays = {}
    for field in _fields(graphs[0]):
        if field.number == _SPARSE:
            raise ValueError("it has sparse initialisers, which are not supported")
        if field.number == _INITIALIZER:
            name, array = _tensor(field.value, path.parent)
            arrays[name] = array
    if not arrays:
        raise ValueError("it has no initialisers")
    return arrays


def _fields(data: Bytes) -> Iterator[_Field]:
    """Yields the fields of a message."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(data, place)
        elif kind in (1, 2, 5):
            size, place = _varint(data, place) if kind == 2 else ({1: 8, 5: 4}[kind], place)
            value, place = data[place : place + size], place + size
            if place > len(data):
                raise ValueError("it is cut short")
        else:
            raise ValueError("it is no ONNX model, or damaged")
        yield _Field(key >> 3, value)


def _varint(data: Bytes, place: int) -> tuple[int, int]:
    """Returns the number that starts at a byte, seven bits in each, and where the next thing is."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise ValueError("it is cut short")
        byte = int(data[place])
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("it is no ONNX model, or damaged")


def _tensor(message: Bytes, folder: Path) -> tuple[str, np.ndarray]:
    """Returns name and array of a TensorProto."""
    fields = list(_fields(message))
    one = {field.number: field.value for field in fields}
    name, kind = bytes(one.get(_NAME, b"")).decode(), one.get(_TYPE, 0)
    if kind not in _TYPES:
        raise ValueError(f"{name} is of ONNX's type {kind}, which is not supported")
    dtype, shape = dtype_named(_TYPES[kind]), _numbers(fields, _DIMS)
    if one.get(_LOCATION):
        return name, _external(fields, dtype, shape, folder)
    if _RAW in one:
        if len(one[_RAW]) != np.prod(shape, dtype=object) * dtype.itemsize:
            raise ValueError(f"{name} in it does not fit into its place")
        return name, view(one[_RAW], 0, dtype, shape)
    return name, _typed(fields, dtype).reshape(shape)


def _typed(fields: list[_Field], dtype: np.dtype) -> np.ndarray:
    """Returns the numbers of a tensor that holds them one by one, in the field of their type."""
    for number, form in _FLOATING.items():
        parts = [np.frombuffer(bytes(f.value), form) for f in fields if f.number == number]
        if parts:
            flat = np.concatenate(parts)
            return flat.view(dtype) if dtype.kind == "c" else flat.astype(dtype)
    numbers = [n for number in (_INTS, _LONGS, _UNSIGNED) for n in _numbers(fields, number)]
    signed = np.array([n - (1 << 64) if n >> 63 else n for n in numbers], np.int64)
    if dtype.kind in "iub":
        return signed.astype(dtype)
    # float16 and narrower stand as the integers of their bits.
    return signed.astype(f"u{dtype.itemsize}").view(dtype)


def _numbers(fields: list[_Field], number: int) -> list[int]:
    """Returns the integers of a field, whether they stand in one piece or one by one."""
    found: list[int] = []
    for field in fields:
        if field.number == number and isinstance(field.value, int):
            found.append(field.value)
        elif field.number == number:
            place = 0
            while place < len(field.value):
                value, place = _varint(field.value, place)
                found.append(value)
    return found


def _external(fields: list[_Field], dtype: np.dtype, shape: list[int], folder: Path) -> np.ndarray:
    """Returns an array that lies in a file beside the model."""
    entries = {}
    for field in fields:
        if field.number == _EXTERNAL:
            key, value = (bytes(part.value).decode() for part in _fields(field.value))
            entries[key] = value
    part = (folder / entries["location"]).resolve()
    if not part.is_relative_to(folder) or not part.is_file():
        raise ValueError(f"its data file {entries['location']} is not beside it")
    return view(map_file(part), int(entries.get("offset", 0)), dtype, shape)
