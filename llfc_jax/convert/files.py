"""Files of weights, by their ending: read into name -> array or a tree, and written.

| ending | what |
|---|---|
| .npz | NumPy arrays; nothing is unpickled |
| .safetensors | needs the package safetensors |
| .safetensors.index.json | a model in several .safetensors files, as Hugging Face writes it |
| .msgpack | Flax's serialization of a tree |
| .pt, .pth, .bin, .ckpt | PyTorch's files, tensors only, where PyTorch is installed |
| a directory | an Orbax checkpoint, or the root of a manager's (its latest step) |
"""

import importlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from llfc_jax.convert.orbax import load_orbax, save_orbax
from llfc_jax.errors import DataError, ModeError
from llfc_jax.graph.trace import leaf_paths
from llfc_jax.io import aside
from llfc_jax.pair import check_pair
from llfc_jax.types import Variables

INDEX = ".safetensors.index.json"
STATE_KEYS = (
    "state_dict",
    "model_state_dict",
    "model",
)  # under which a checkpoint keeps its weights


def load(path: str | os.PathLike[str], like: Variables | None = None) -> Variables:
    """Loads weights from a file or an Orbax checkpoint.

    Args:
        path: see `llfc_jax.convert.files`.
        like: a tree (variables, an NNX state, Equinox's arrays) whose structure, shapes and types
            the result takes; the file's names are then the paths of its leaves.

    Returns:
        Name -> array, as a state dict is; of Orbax and msgpack the tree as it was saved. With
        `like` a tree of its kind.

    Raises:
        DataError: it is not there, damaged, holds something else, or cannot be read here.
        ModeError: it does not fit `like`.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/a.npz", {"dense": {"kernel": np.eye(2)}})
        ...     list(load(f"{folder}/a.npz"))
        ['dense/kernel']
    """
    path = Path(path).expanduser().resolve()
    if not path.exists():
        raise DataError(f"there is no {path}")
    form = _form_of(path)
    try:
        loaded = READERS[form](path) if form else load_orbax(path, like)
    except (DataError, ModeError):
        raise
    except Exception as error:  # each format raises its own
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{path} cannot be read as {form or 'an Orbax checkpoint'}: {line}"
        ) from error
    if like is None:
        return loaded
    if form:
        loaded = _into_tree(loaded, like, path)
    check_pair(loaded, jax.tree.map(np.zeros_like, like))
    return jax.tree.map(lambda new, old: jax.numpy.asarray(new, old.dtype), loaded, like)


def save(path: str | os.PathLike[str], weights: Variables) -> None:
    """Writes weights in the form that the path's ending says; undoes `load`.

    Args:
        path: see `llfc_jax.convert.files` (in several files they are only read); an ending that is
            not listed there makes an Orbax directory.
        weights: a state dict, or any tree of arrays: in a file, its leaves go by their paths.

    Raises:
        DataError: the path is taken by a directory, or the package for this form is missing.
    """
    path = Path(path).expanduser().resolve()
    if path.suffix not in WRITERS:
        save_orbax(path, weights)
        return
    if path.is_dir():
        raise DataError(f"{path} is a directory; choose another name")
    flat = dict(zip(leaf_paths(weights), jax.tree.leaves(weights), strict=True))
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in flat.items()}
    if isinstance(weights, Mapping) and weights.keys() == arrays.keys():
        arrays = {name: arrays[name] for name in weights}  # a state dict keeps its order
    with aside(path) as place:
        WRITERS[path.suffix](place, arrays)


def _form_of(path: Path) -> str:
    """Returns the ending that says how to read a path, or "" for an Orbax checkpoint.

    Raises:
        DataError: it is a file of an unknown kind.
    """
    form = next((form for form in READERS if path.name.endswith(form)), "")
    if path.is_file() and not form:
        raise DataError(
            f"{path} is a file of an unknown kind; known are {', '.join(READERS)} and Orbax "
            "directories"
        )
    if path.is_dir() and form:
        raise DataError(f"{path} is a directory, no {form} file")
    return form


def _into_tree(loaded: Variables, like: Variables, path: Path) -> Variables:
    """Returns name -> array, or a tree with the same paths, as a tree like `like`."""
    flat = dict(zip(leaf_paths(loaded), jax.tree.leaves(loaded), strict=True))
    paths = leaf_paths(like)
    if set(paths) != set(flat):
        odd = ", ".join(sorted(set(paths) ^ set(flat))[:3])
        raise ModeError(f"{path} holds other weights: only one of the two has {odd}")
    return jax.tree.unflatten(jax.tree.structure(like), [flat[name] for name in paths])


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    return _package("safetensors.numpy", path).load_file(path)


def _read_index(path: Path) -> dict[str, np.ndarray]:
    """Reads a model in several files, in the index's order."""
    places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    parts = {}
    for name in sorted(set(places.values())):
        part = path.parent / name
        if part.parent != path.parent or not part.is_file():
            raise DataError(f"{path} names a file {name} that is not beside it")
        try:
            parts[name] = _read_safetensors(part)
        except DataError:
            raise
        except Exception as error:
            line = str(error).strip().partition("\n")[0]
            raise DataError(f"{part} cannot be read as .safetensors: {line}") from error
    for name, part in places.items():
        if name not in parts[part]:
            raise DataError(f"{path} places {name} in {part}, which lacks it")
    return {name: parts[part][name] for name, part in places.items()}


def _read_msgpack(path: Path) -> Variables:
    from flax import serialization

    return serialization.msgpack_restore(path.read_bytes())


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    """Reads tensors; NumPy has no bfloat16, which becomes float32."""
    torch = _package("torch", path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    inner = [state[key] for key in STATE_KEYS if isinstance(state, Mapping) and key in state]
    if inner and isinstance(inner[0], Mapping):
        state = inner[0]
    if not isinstance(state, Mapping):
        raise DataError(f"{path} holds a {type(state).__name__}; save model.state_dict() instead")
    for name, value in state.items():
        if not hasattr(value, "numpy"):
            raise DataError(
                f"{path} holds more than a state dict ({name!r} is a {type(value).__name__}); "
                "save model.state_dict() alone"
            )
    return {
        name: (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
        for name, value in state.items()
    }


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(path, allow_pickle=False, **arrays)


def _write_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> None:
    _package("safetensors.numpy", path).save_file(arrays, path)


def _write_msgpack(path: Path, arrays: dict[str, np.ndarray]) -> None:
    from flax import serialization

    path.write_bytes(serialization.msgpack_serialize(dict(arrays)))


def _write_torch(path: Path, arrays: dict[str, np.ndarray]) -> None:
    torch = _package("torch", path)
    torch.save({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, path)


def _package(name: str, path: Path) -> ModuleType:
    """Imports an optional package.

    Raises:
        DataError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise DataError(
            f"{path.name} needs the package {package}: pip install {package}"
        ) from error


READERS: dict[str, Callable[[Path], Any]] = {
    ".npz": _read_npz,
    INDEX: _read_index,
    ".safetensors": _read_safetensors,
    ".msgpack": _read_msgpack,
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".bin": _read_torch,
    ".ckpt": _read_torch,
}
WRITERS: dict[str, Callable[[Path, dict[str, np.ndarray]], None]] = {
    ".npz": _write_npz,
    ".safetensors": _write_safetensors,
    ".msgpack": _write_msgpack,
    ".pt": _write_torch,
    ".pth": _write_torch,
    ".bin": _write_torch,
    ".ckpt": _write_torch,
}
