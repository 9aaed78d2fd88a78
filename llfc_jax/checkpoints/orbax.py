"""Orbax checkpoints: one alone, a manager's step, one of its items, or a root (its latest step)."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from llfc_jax.errors import DataError
from llfc_jax.pair import leaf_paths
from llfc_jax.types import Variables

FINISHED = "_CHECKPOINT_METADATA"  # a file of every finished checkpoint
TREE = "_METADATA"  # a file of every tree in one
ITEMS = ("default", "state", "pytree", "params", "model")
"""Names of the tree that is read, where a checkpoint holds several; the first that is there."""


def find_orbax(path: Path) -> Path | None:
    """Returns the tree that a directory stands for; None where it holds no finished checkpoint.

    Args:
        path: a checkpoint, one of its trees, or a manager's root, of which the latest step counts.

    Raises:
        DataError: a checkpoint that holds several trees, none of which has a usual name.
    """
    if (path / TREE).exists():
        return path if (path / FINISHED).exists() or (path.parent / FINISHED).exists() else None
    if (path / FINISHED).exists():
        return _find_item(path)
    steps = {}
    for folder in path.iterdir():
        number = re.fullmatch(r"(?:.*_)?(\d+)", folder.name)
        if number and (folder / FINISHED).exists():
            steps[int(number[1])] = folder
    return find_orbax(steps[max(steps)]) if steps else None


def _find_item(checkpoint: Path) -> Path:
    """Returns the tree of a checkpoint."""
    trees = {folder.parent.name: folder.parent for folder in checkpoint.glob(f"*/{TREE}")}
    usual = [name for name in ITEMS if name in trees] or list(trees)[: len(trees) == 1]
    if not usual:
        held = f"several trees, {', '.join(sorted(trees))}; name one" if trees else "no tree"
        raise DataError(f"the Orbax checkpoint {checkpoint} holds {held}")
    return trees[usual[0]]


def load_orbax(path: Path, like: Variables | None = None) -> Variables:
    """Loads a tree of an Orbax checkpoint.

    Args:
        path: the tree's directory (`find_orbax`).
        like: a tree with the same paths; where a leaf of it has a sharding, each device reads its
            own part. The others are read onto the host.

    Raises:
        ValueError: it is damaged.
    """
    import orbax.checkpoint as ocp
    from etils import epath

    handler, folder = ocp.PyTreeCheckpointHandler(), epath.Path(path)
    tree = handler.metadata(folder).tree
    wanted = {} if like is None else dict(zip(leaf_paths(like), jax.tree.leaves(like), strict=True))
    stored = zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True)
    arguments = [_restored_as(leaf, wanted.get(name)) for name, leaf in stored]
    restored = jax.tree.unflatten(jax.tree.structure(tree), arguments)
    return handler.restore(folder, args=ocp.args.PyTreeRestore(restore_args=restored))


def _restored_as(stored: Any, to: Any) -> Any:
    """Returns how a leaf is read: onto the host, or placed as another, if it has its shape."""
    import orbax.checkpoint as ocp

    sharding = getattr(to, "sharding", None)
    if sharding is None or to.shape != getattr(stored, "shape", None):
        return ocp.RestoreArgs(restore_type=np.ndarray)
    return ocp.ArrayRestoreArgs(sharding=sharding, global_shape=to.shape, dtype=to.dtype)


def save_orbax(path: Path, weights: Variables) -> None:
    """Saves a tree as a checkpoint, in place of one that is there."""
    from orbax.checkpoint import v1 as ocp

    ocp.save(str(path), weights, overwrite=True)
