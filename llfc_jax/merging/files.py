"""Checkpoints in several safetensors files, merged leaf by leaf into such a checkpoint.

Each leaf is read when it is merged and written at once, so memory holds a leaf of each model, in
float32, and never a whole file: neither of what is read nor of what is written.
"""

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from llfc_jax.errors import DataError, MergeError
from llfc_jax.io import aside, write_text
from llfc_jax.merging.options import MergeOptions
from llfc_jax.merging.prepare import prepare_inputs
from llfc_jax.merging.registry import build_rule
from llfc_jax.merging.rule import LeafRule, Rule
from llfc_jax.types import ProgressFn

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES = {
    **{f"{kind}{bits}": np.dtype(f"{word}{bits}") for kind, word in (("U", "uint"), ("I", "int"))
       for bits in (8, 16, 32, 64)},
    **{f"F{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    "BOOL": np.dtype(bool),
    "C64": np.dtype("complex64"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}  # fmt: skip
COPY = 1 << 24  # bytes


@dataclasses.dataclass(frozen=True, eq=False)
class StoredLeaf:
    """An array in a safetensors file, which is read where it is used.

    Attributes:
        path: the file.
        start: where its bytes begin.
        shape: its shape.
        kind: its type, as safetensors names it.
    """

    path: Path
    start: int
    shape: tuple[int, ...]
    kind: str

    @property
    def dtype(self) -> np.dtype:
        """Its type."""
        return DTYPES[self.kind]

    @property
    def size(self) -> int:
        """Number of its entries."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of its bytes."""
        return self.size * self.dtype.itemsize

    def read_entries(self, start: int, stop: int) -> np.ndarray:
        """Reads some of its entries, flat."""
        offset = self.start + start * self.dtype.itemsize
        array = np.fromfile(self.path, self.dtype, stop - start, offset=offset)
        if array.size != stop - start:
            raise DataError(f"{self.path} is cut short")
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Reads it."""
        array = self.read_entries(0, self.size).reshape(self.shape)
        return array.astype(dtype or self.dtype, copy=False)


def merge_files(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    rule: str | Rule = "mean",
    *,
    base: str | os.PathLike[str] | None = None,
    options: MergeOptions | None = None,
    progress: ProgressFn | None = None,
    **rule_options: object,
) -> Path:
    """Merges safetensors checkpoints leaf by leaf, in memory for a few leaves alone.

    Args:
        paths: the models: `.safetensors` files, indices of models in several files
            (`.safetensors.index.json`), or directories that hold one of the two.
        out: the directory to write; it gets the first model's files by name, and its index.
        rule: see `merge`; one that goes leaf by leaf.
        base: the model that they were fine-tuned from.
        options: see `merge`; paths of leaves are their names in the files.
        progress: called as (leaves done, leaves in all, path).
        **rule_options: the fields of the rule's class, where `rule` is a name.

    Returns:
        The path of the written index, or of the one file.

    Raises:
        DataError: a file is missing, damaged, or no safetensors.
        MergeError: `out` is one of the models, the rule needs whole models, or see `merge`.
    """
    built = build_rule(rule, **rule_options)
    if not isinstance(built, LeafRule):
        raise MergeError(f"merge rule {built.name!r} needs whole models in memory; use merge")
    if built.needs_statistics:
        raise MergeError(f"merge rule {built.name!r} needs statistics; use merge on loaded models")
    target = Path(out).expanduser().resolve()
    places = [_find(Path(path)) for path in paths]
    of_base = None if base is None else _find(Path(base))
    if any(target == place.parent for place in (*places, *((of_base,) if of_base else ()))):
        raise MergeError(f"{target} holds one of the models; write the merge elsewhere")
    models = [_read_leaves(place) for place in places]
    stored = None if of_base is None else _read_leaves(of_base)
    inputs = prepare_inputs(models, stored, built, None, options)
    with contextlib.ExitStack() as open_files:
        writer = _Writer(target, {slot.name: models[0][slot.name] for slot in inputs.slots})
        writer.open(open_files)
        for done, (slot, found) in enumerate(inputs.merged(built), 1):
            writer.write(slot.name, found)
            if progress:
                progress(done, len(inputs.slots), slot.name)
    return writer.finish(places[0])


def _find(path: Path) -> Path:
    """Returns the index or the one file of a checkpoint."""
    path = path.expanduser().resolve()
    if path.is_dir():
        found = sorted(path.glob("*.safetensors.index.json")) or sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            raise DataError(f"{path} holds {len(found)} safetensors checkpoints; name one")
        return found[0]
    if not path.is_file():
        raise DataError(f"there is no {path}")
    return path


def _read_leaves(path: Path) -> dict[str, StoredLeaf]:
    """Returns the leaves of a checkpoint by name, without reading them.

    Raises:
        DataError: a file is missing or damaged.
    """
    if not path.name.endswith(".index.json"):
        return _read_header(path)
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        parts = {name: _read_header(path.parent / name) for name in sorted(set(places.values()))}
        return {name: parts[part][name] for name, part in places.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as an index of safetensors: {error}") from error


def _read_header(path: Path) -> dict[str, StoredLeaf]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("its header reaches beyond its end")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        leaves = {}
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            if entry["dtype"] not in DTYPES:
                raise ValueError(f"{name} is of the type {entry['dtype']}, which has no mean here")
            leaf = StoredLeaf(path, 8 + length + begin, tuple(entry["shape"]), entry["dtype"])
            if leaf.nbytes != end - begin or 8 + length + end > path.stat().st_size:
                raise ValueError(f"{name} does not fit into its place")
            leaves[name] = leaf
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{path} cannot be read as safetensors: {error}") from error
    return leaves


class _Writer:
    """Files with the first model's names and leaves, written a leaf at a time."""

    def __init__(self, folder: Path, leaves: Mapping[str, StoredLeaf]) -> None:
        self.folder, self.files = folder, {}
        self.places: dict[str, tuple[str, int]] = {}
        self.headers: dict[str, bytes] = {}
        self.index = {name: leaf.path.name for name, leaf in leaves.items()}
        for file in dict.fromkeys(self.index.values()):
            of_file = {n: leaf for n, leaf in leaves.items() if leaf.path.name == file}
            self.headers[file], starts = _make_header(of_file)
            self.places |= {name: (file, start) for name, start in starts.items()}
        self.bytes = sum(leaf.nbytes for leaf in leaves.values())

    def open(self, stack: contextlib.ExitStack) -> None:
        """Opens every file beside its name, under which it stands when all are whole."""
        for file, header in self.headers.items():
            place = stack.enter_context(aside(self.folder / file))
            self.files[file] = handle = stack.enter_context(place.open("wb"))
            handle.write(header)

    def write(self, name: str, leaf: Any) -> None:
        """Writes one leaf."""
        file, start = self.places[name]
        handle: BinaryIO = self.files[file]
        handle.seek(start)
        array = np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)
        for at in range(0, array.size, COPY):
            handle.write(array[at : at + COPY].data)

    def finish(self, first: Path) -> Path:
        """Writes the index, where the first model has one, and returns the checkpoint's path."""
        if not first.name.endswith(".index.json"):
            return self.folder / first.name
        content = {"metadata": {"total_size": self.bytes}, "weight_map": self.index}
        write_text(self.folder / first.name, json.dumps(content, indent=2) + "\n")
        return self.folder / first.name


def _make_header(leaves: Mapping[str, StoredLeaf]) -> tuple[bytes, dict[str, int]]:
    """Returns a safetensors file's header, and where each leaf begins in the file."""
    entries, reached = {}, 0
    # Wide types first, so that every array begins at a multiple of its items' size.
    for name, leaf in sorted(leaves.items(), key=lambda item: -item[1].dtype.itemsize):
        places = [reached, reached + leaf.nbytes]
        entries[name] = {"dtype": leaf.kind, "shape": list(leaf.shape), "data_offsets": places}
        reached += leaf.nbytes
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return header, {n: len(header) + e["data_offsets"][0] for n, e in entries.items()}
