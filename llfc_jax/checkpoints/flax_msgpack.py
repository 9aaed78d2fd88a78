"""Flax's serialization: a tree in msgpack, with arrays as extension objects.

An array is extension type 1: (shape, name of the type, bytes) in msgpack again. Arrays above 1 GiB
come in chunks. The arrays lie in the file, except those in chunks, which are joined now.
"""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llfc_jax.checkpoints.mapped import Bytes, dtype_named, map_file, view

_NDARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_LENGTHS = {  # code -> (what follows, format of its length)
    0xC4: ("bin", ">B"), 0xC5: ("bin", ">H"), 0xC6: ("bin", ">I"),
    0xC7: ("ext", ">B"), 0xC8: ("ext", ">H"), 0xC9: ("ext", ">I"),
    0xD9: ("str", ">B"), 0xDA: ("str", ">H"), 0xDB: ("str", ">I"),
    0xDC: ("list", ">H"), 0xDD: ("list", ">I"), 0xDE: ("map", ">H"), 0xDF: ("map", ">I"),
}  # fmt: skip


def read_msgpack(path: Path) -> Any:
    """Returns the tree that `flax.serialization.to_bytes` wrote.

    Raises:
        ValueError: the file is cut short, or holds something else.
    """
    data = map_file(path)
    reader = _Reader(data)
    tree = reader.read()
    if reader.place != len(data):
        raise ValueError(f"its content ends at byte {reader.place:,} of {len(data):,}")
    if not isinstance(tree, (Mapping, np.ndarray)):
        raise ValueError("it holds no tree of arrays")
    return tree


def write_msgpack(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes name -> array."""
    from flax import serialization

    path.write_bytes(serialization.msgpack_serialize(dict(arrays)))


class _Reader:
    """Reads objects one after the other from bytes."""

    def __init__(self, data: Bytes) -> None:
        self.data, self.place = data, 0

    def read(self) -> Any:
        """Returns the next object."""
        code = self.take(1)[0]
        if code < 0x80 or code >= 0xE0:
            return int(code) if code < 0x80 else int(code) - 256
        if code in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[int(code)]
        if code in _NUMBERS:
            return self.number(_NUMBERS[int(code)])
        if 0xD4 <= code <= 0xD8:
            return self.extension(1 << (int(code) - 0xD4))
        if code < 0xC0:  # the length stands in the code
            kind = "map" if code < 0x90 else "list" if code < 0xA0 else "str"
            return self.contents(kind, int(code) & (0x1F if kind == "str" else 0x0F))
        if code not in _LENGTHS:
            raise ValueError(f"byte {self.place - 1:,} of it is no msgpack")
        kind, length = _LENGTHS[int(code)]
        return self.contents(kind, self.number(length))

    def take(self, count: int) -> Bytes:
        """Returns the next bytes."""
        self.place += count
        if self.place > len(self.data):
            raise ValueError("it is cut short")
        return self.data[self.place - count : self.place]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)).data)[0]

    def name(self) -> str:
        """Returns the next object, a key of a dict."""
        name = self.read()
        if not isinstance(name, str):
            raise ValueError(f"it holds the name {str(name)[:50]}, which is no text")
        return name

    def contents(self, kind: str, length: int) -> Any:
        """Returns an object of a kind and a length."""
        kinds: dict[str, Callable[[int], Any]] = {
            "ext": self.extension,
            "bin": self.take,
            "str": lambda n: bytes(self.take(n)).decode(),
            "list": lambda n: [self.read() for _ in range(n)],
            "map": lambda n: _join_chunks({self.name(): self.read() for _ in range(n)}),
        }
        return kinds[kind](length)

    def extension(self, length: int) -> Any:
        """Returns an array or a number of Flax's."""
        kind = self.number(">b")
        inner = _Reader(self.take(length)).read()
        if kind == _COMPLEX:
            return complex(*inner)
        if kind not in (_NDARRAY, _SCALAR):
            raise ValueError(f"it holds an extension {kind}, which is not Flax's")
        shape, name, data = inner
        dtype = dtype_named(name.decode() if isinstance(name, bytes) else name)
        if len(data) != int(np.prod(shape, dtype=object)) * dtype.itemsize:
            raise ValueError("an array in it does not fit into its place")
        array = view(data, 0, dtype, shape)
        return array[()] if kind == _SCALAR else array


def _join_chunks(tree: dict[Any, Any]) -> Any:
    """Returns a tree, or the array that it is the chunks of."""
    if _CHUNKED not in tree:
        return tree
    shape, chunks = ([part[str(i)] for i in range(len(part))] for part in (
        tree["shape"], tree["chunks"]))  # fmt: skip
    return np.concatenate(chunks).reshape(shape)
