"""Checkpoints by their path: which reader takes it, what it gives, and how weights are written."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from llfc_jax.checkpoints.flax_msgpack import read_msgpack, write_msgpack
from llfc_jax.checkpoints.names import fit, flatten, nest
from llfc_jax.checkpoints.npz import read_npz, write_npz
from llfc_jax.checkpoints.onnx import read_onnx
from llfc_jax.checkpoints.orbax import find_orbax, load_orbax, save_orbax
from llfc_jax.checkpoints.safetensors import read_safetensors, write_safetensors
from llfc_jax.checkpoints.torch_zip import read_torch, write_torch
from llfc_jax.errors import DataError, LlfcError
from llfc_jax.io import aside
from llfc_jax.pair import leaf_paths
from llfc_jax.types import Variables

INDEX = ".index.json"
READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": read_safetensors,
    ".npz": read_npz,
    ".msgpack": read_msgpack,
    ".pt": read_torch,
    ".pth": read_torch,
    ".bin": read_torch,
    ".ckpt": read_torch,
    ".onnx": read_onnx,
}
WRITERS: dict[str, Callable[[Path, dict[str, np.ndarray]], None]] = {
    ".safetensors": write_safetensors,
    ".npz": write_npz,
    ".msgpack": write_msgpack,
    ".pt": write_torch,
    ".pth": write_torch,
    ".bin": write_torch,
    ".ckpt": write_torch,
}
KNOWN = f"{', '.join((*READERS, INDEX))} and Orbax directories"


def load(path: str | os.PathLike[str], like: Variables | None = None) -> Variables:
    """Loads weights from a file or a directory.

    Arrays lie in the file and are read where they are used, as far as the format allows it; then
    they are read-only. Nothing is ever unpickled.

    Args:
        path: a file of weights, an index of several (`.index.json`), a directory that holds one of
            these, or an Orbax checkpoint: alone, a manager's step, or its root, of which the latest
            step counts. `llfc_jax.checkpoints` lists the formats.
        like: a tree (variables, an NNX state, Equinox's arrays, or shapes and types) whose
            structure and types the result takes; leaves go by their paths. Where a leaf of it has a
            sharding, the array is placed so, and each device reads its own part.

    Returns:
        A tree of dicts, names cut at "/" or "."; with `like` a tree of its kind.

    Raises:
        DataError: it is not there, damaged, holds something else, or cannot be read.
        ModeError: it does not fit `like`.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/a.safetensors", {"dense": {"kernel": np.eye(2)}})
        ...     load(f"{folder}/a.safetensors")["dense"]["kernel"].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    path = Path(path).expanduser().absolute()
    if not path.exists():
        raise DataError(f"there is no {path}")
    tree = find_orbax(path) if path.is_dir() else None
    if tree is not None:
        loaded = _read(tree, "an Orbax checkpoint", lambda folder: load_orbax(folder, like))
    else:
        loaded = _load_file(_choose_file(path) if path.is_dir() else path)
    if not jax.tree.leaves(loaded):
        raise DataError(f"{path} holds no arrays")
    return loaded if like is None else fit(loaded, like, path)


def save(path: str | os.PathLike[str], weights: Variables) -> None:
    """Writes weights in the form that the path's ending says; undoes `load`.

    Args:
        path: ends in .safetensors, .npz, .msgpack, .pt, .pth, .bin or .ckpt; any other ending makes
            an Orbax directory.
        weights: a state dict, or any tree of arrays: in a file, its leaves go by their paths.

    Raises:
        DataError: the path is taken by a directory, or the form has no such type.
    """
    path = Path(path).expanduser().absolute()
    if path.suffix not in WRITERS:
        save_orbax(path, weights)
        return
    if path.is_dir():
        raise DataError(f"{path} is a directory; choose another name")
    flat = dict(zip(leaf_paths(weights), jax.tree.leaves(weights), strict=True))
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in flat.items()}
    if isinstance(weights, Mapping) and weights.keys() == arrays.keys():
        arrays = {name: arrays[name] for name in weights}  # a state dict keeps its order
    with aside(path) as place:
        try:
            WRITERS[path.suffix](place, arrays)
        except ValueError as error:
            raise DataError(f"cannot write {path}: {error}") from error


def load_named(path: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """Returns the file, or the index, of a checkpoint, and name -> array as it holds them.

    Args:
        path: see `load`; no Orbax checkpoint.

    Raises:
        DataError: see `load`.
    """
    path = Path(path).expanduser().absolute()
    if not path.exists():
        raise DataError(f"there is no {path}")
    path = _choose_file(path) if path.is_dir() else path
    if path.name.endswith(INDEX):
        return path, _read(path, INDEX, _read_index)
    if path.suffix not in READERS:
        raise DataError(f"{path} is a file of an unknown kind; known are {', '.join(READERS)}")
    return path, flatten(_read(path, path.suffix, READERS[path.suffix]), "/")


def _load_file(path: Path) -> Variables:
    """Returns the tree that a file, or an index of several, holds."""
    if path.name.endswith(INDEX):
        return nest(_read(path, INDEX, _read_index))
    if path.suffix not in READERS:
        raise DataError(f"{path} is a file of an unknown kind; known are {KNOWN}")
    loaded = _read(path, path.suffix, READERS[path.suffix])
    flat = isinstance(loaded, dict) and not any(isinstance(v, dict) for v in loaded.values())
    return nest(loaded) if flat else loaded


def _choose_file(folder: Path) -> Path:
    """Returns the file of weights in a directory, as a model's download has it.

    Raises:
        DataError: there is none, or more than one of a kind.
    """
    for ending in READERS:
        files = sorted(folder.glob(f"*{ending}{INDEX}")) or sorted(folder.glob(f"*{ending}"))
        if len(files) == 1:
            return files[0]
        if files:
            names = ", ".join(file.name for file in files[:3])
            raise DataError(f"{folder} holds several files of weights ({names}); name one")
    raise DataError(f"{folder} holds no weights; known are {KNOWN} that are finished")


def _read(path: Path, form: str, reader: Callable[[Path], Any]) -> Any:
    """Returns what a reader gives.

    Raises:
        DataError: one line that names the file and says what is wrong, whatever the reader raised.
    """
    try:
        _check_content(path)
        return reader(path)
    except LlfcError:
        raise
    except Exception as error:  # damaged bytes make the readers raise almost anything
        words = (str(error).strip().splitlines() or [""])[0][:200]
        if not isinstance(error, ValueError | OSError):
            words = f"it is damaged ({type(error).__name__}: {words})"
        raise DataError(f"{path} cannot be read as {form}: {words}") from error


def _check_content(path: Path) -> None:
    """Checks that a file is none of what often stands in place of weights.

    Raises:
        ValueError: a directory, nothing, a pointer of Git LFS, or a web page.
    """
    if path.is_dir():
        return
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if not start:
        raise ValueError("it is empty")
    if start.startswith(b"version https://git-lfs"):
        raise ValueError("it is a pointer of Git LFS; run git lfs pull")
    if start[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise ValueError("it is a web page; download the file itself")


def _read_index(path: Path) -> dict[str, Any]:
    """Returns name -> array of a model in several files, in the index's order."""
    places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    parts = {}
    for name in sorted(set(places.values())):
        part = path.parent / name
        if part.parent != path.parent or not part.is_file() or part.suffix not in READERS:
            raise DataError(
                f"{path} names a file {name} that is not beside it, or of an unknown kind"
            )
        parts[name] = flatten(_read(part, part.suffix, READERS[part.suffix]), "/")
    for name, part in places.items():
        if name not in parts[part]:
            raise DataError(f"{path} places {name} in {part}, which lacks it")
    return {name: parts[part][name] for name, part in places.items()}
