"""Orbax checkpoints: one alone, a manager's step, or a manager's root (its latest step)."""

import re
from pathlib import Path
from typing import Any

import jax

from llfc_jax.errors import DataError
from llfc_jax.types import Variables

MARK = "_CHECKPOINT_METADATA"  # a file of every finished checkpoint


def load_orbax(path: Path, like: Variables | None = None) -> Variables:
    """Loads a tree from a checkpoint.

    Args:
        path: a directory.
        like: the tree's structure, shapes and types; as it was saved if None.

    Raises:
        DataError: there is no checkpoint in it.
    """
    from orbax.checkpoint import v1 as ocp

    folder = str(_find_checkpoint(path))
    if like is None:  # the tree as it was saved, but on this machine's device
        read: Any = getattr(ocp, "metadata", None) or ocp.pytree_metadata
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
            read(folder).metadata,
        )
    return ocp.load(folder, like)


def save_orbax(path: Path, weights: Variables) -> None:
    """Saves a tree as a checkpoint, in place of one that is there."""
    from orbax.checkpoint import v1 as ocp

    ocp.save(str(path), weights, overwrite=True)


def _find_checkpoint(path: Path) -> Path:
    """Returns the checkpoint itself, of a manager's root the latest, of an item its step."""
    if (path / MARK).exists():
        return path
    if (path.parent / MARK).exists():
        return path.parent
    steps = {}
    for folder in path.iterdir():
        number = re.fullmatch(r"(?:.*_)?(\d+)", folder.name)
        if number and (folder / MARK).exists():
            steps[int(number[1])] = folder
    if not steps:
        raise DataError(f"{path} holds no finished Orbax checkpoint")
    return steps[max(steps)]
