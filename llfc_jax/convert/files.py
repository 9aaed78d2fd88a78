"""Files of weights, by their ending: .npz, .safetensors, .pt, or a directory for Orbax."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from llfc_jax.errors import DataError, ModeError
from llfc_jax.graph.trace import leaf_paths
from llfc_jax.io import aside
from llfc_jax.pair import check_pair

TORCH = (".pt", ".pth", ".bin")
FILES = (".npz", ".safetensors", *TORCH)


def load(path: str | os.PathLike[str], like: Any = None) -> Any:
    """Weights from a file or an Orbax checkpoint.

    A .pt file is read by PyTorch, tensors only, where PyTorch is installed; a .safetensors file
    needs the package safetensors.

    Args:
        path: .npz, .safetensors, .pt, .pth or .bin; anything else is an Orbax directory.
        like: a tree (variables, an NNX state, Equinox's arrays) whose structure, shapes and types
            the result takes; the file's names are then the paths of its leaves.

    Returns:
        Name -> array, as a state dict is; of Orbax the tree as it was saved. With `like` a tree of
        its kind.

    Raises:
        DataError: it is not there, damaged, holds something else, or cannot be read here.
        ModeError: it does not fit `like`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/a.npz", {"dense": {"kernel": np.eye(2)}})
        ...     list(load(f"{folder}/a.npz"))
        ['dense/kernel']
    """
    path = Path(path).expanduser().resolve()
    if not path.exists():
        raise DataError(f"there is no {path}")
    try:
        found = _load(path, like)
    except (DataError, ModeError):
        raise
    except Exception as error:  # each format raises its own
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} cannot be read as {_form(path)}: {line}") from error
    if like is None:
        return found
    if path.suffix in FILES:
        paths = leaf_paths(like)
        if set(paths) != set(found):
            odd = ", ".join(sorted(set(paths) ^ set(found))[:3])
            raise ModeError(f"{path} holds other weights: only one of the two has {odd}")
        found = jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in paths])
    check_pair(found, jax.tree.map(np.zeros_like, like))
    return jax.tree.map(lambda new, old: jax.numpy.asarray(new, old.dtype), found, like)


def save(path: str | os.PathLike[str], weights: Any) -> None:
    """Write weights in the form that the path's ending says; the inverse of `load`.

    Args:
        path: .npz, .safetensors, .pt, .pth or .bin; anything else becomes an Orbax directory.
        weights: a state dict, or any tree of arrays: in a file, its leaves go by their paths.

    Raises:
        DataError: the path is taken by a directory, or the package for this form is missing.
    """
    path = Path(path).expanduser().resolve()
    if path.suffix not in FILES:
        from orbax.checkpoint import v1 as ocp

        ocp.save(str(path), weights, overwrite=True)
        return
    if path.is_dir():
        raise DataError(f"{path} is a directory; choose another name")
    flat = dict(zip(leaf_paths(weights), jax.tree.leaves(weights), strict=True))
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in flat.items()}
    if isinstance(weights, Mapping) and weights.keys() == arrays.keys():
        arrays = {name: arrays[name] for name in weights}  # a state dict keeps its order
    with aside(path) as place:
        if path.suffix == ".npz":
            np.savez(place, allow_pickle=False, **arrays)
        elif path.suffix == ".safetensors":
            _package("safetensors.numpy", path).save_file(arrays, place)
        else:
            torch = _package("torch", path)
            tensors = {n: torch.from_numpy(array.copy()) for n, array in arrays.items()}
            torch.save(tensors, place)


def _load(path: Path, like: Any) -> Any:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    if path.suffix == ".safetensors":
        return _package("safetensors.numpy", path).load_file(path)
    if path.suffix in TORCH:
        torch = _package("torch", path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        return _arrays(state, path)
    from orbax.checkpoint import v1 as ocp

    if like is None:  # the tree as it was saved, but on this machine's device
        read = getattr(ocp, "metadata", None) or ocp.pytree_metadata
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
            read(str(path)).metadata,
        )
    return ocp.load(str(path), like)


def _arrays(state: Any, path: Path) -> dict[str, np.ndarray]:
    """A PyTorch state dict as arrays; NumPy has no bfloat16, which becomes float32."""
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


def _package(name: str, path: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise DataError(
            f"{path.name} needs the package {package}: pip install {package}"
        ) from error


def _form(path: Path) -> str:
    return path.suffix if path.suffix in FILES else "an Orbax checkpoint"
