"""Names of leaves: flat as files hold them, nested as networks do, and fitted to a given tree."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from llfc_jax.errors import ModeError
from llfc_jax.pair import leaf_paths
from llfc_jax.types import AnyArray, Variables


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns name -> array as a tree of dicts.

    Names are cut at "/" if any holds one, else at ".". Where one name would be the beginning of
    another, they stay as they are.

    Examples:
        >>> nest({"layers.0.weight": 1, "layers.0.bias": 2, "norm": 3})
        {'layers': {'0': {'weight': 1, 'bias': 2}}, 'norm': 3}
        >>> nest({"a.b": 1, "a": 2})
        {'a.b': 1, 'a': 2}
    """
    mark = "/" if any("/" in name for name in flat) else "."
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *outer, last = name.split(mark)
        at = tree
        for part in outer:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                return dict(flat)
        if last in at:
            return dict(flat)
        at[last] = leaf
    return tree


def flatten(tree: Mapping[str, Any], mark: str = ".") -> dict[str, Any]:
    """Returns a tree of dicts as name -> leaf, in the order in which the tree holds them.

    Examples:
        >>> flatten({"b": {"w": 1, "a": 2}, "c": 3})
        {'b.w': 1, 'b.a': 2, 'c': 3}
    """
    return dict(_walk(tree, "", mark))


def _walk(tree: Mapping[str, Any], before: str, mark: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _walk(value, f"{before}{name}{mark}", mark)
        else:
            yield f"{before}{name}", value


def fit(loaded: Variables, like: Variables, source: object) -> Variables:
    """Returns loaded weights as a tree like another: its structure, types and places.

    Leaves go by their paths. Two differences of habit are passed over: files that lack the
    collection "params", and NNX's "/value" at the end of a path.

    Args:
        loaded: a tree of arrays.
        like: arrays, or their shapes and types (`jax.ShapeDtypeStruct`). Where a leaf of it has a
            sharding, the array is placed so, part by part; else it stays where it is.
        source: what the line of an error calls the weights.

    Raises:
        ModeError: other paths, shapes or kinds of numbers.
    """
    found = dict(zip(leaf_paths(loaded), jax.tree.leaves(loaded), strict=True))
    paths = leaf_paths(like)
    for rename in (_without_value, _in_params):
        if {rename(name) for name in found} == {_without_value(path) for path in paths}:
            named = {rename(name): leaf for name, leaf in found.items()}
            pairs = zip(paths, jax.tree.leaves(like), strict=True)
            leaves = [_place(named[_without_value(p)], to, p, source) for p, to in pairs]
            return jax.tree.unflatten(jax.tree.structure(like), leaves)
    odd = ", ".join(sorted(set(paths) ^ set(found))[:3])
    raise ModeError(f"{source} holds other weights: only one of the two has {odd}")


def _without_value(name: str) -> str:
    return name.removesuffix("/value")


def _in_params(name: str) -> str:
    return f"params/{name}"


def _place(leaf: AnyArray, to: AnyArray, path: str, source: object) -> Any:
    """Returns a leaf in the type and at the place of another."""
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    dtype = getattr(to, "dtype", None) or np.asarray(to).dtype
    if leaf.shape != np.shape(to):
        raise ModeError(f"{source} does not fit at {path}: shape {leaf.shape}, not {np.shape(to)}")
    if jax.numpy.issubdtype(leaf.dtype, np.inexact) != jax.numpy.issubdtype(dtype, np.inexact):
        raise ModeError(f"{source} does not fit at {path}: it is {leaf.dtype} there, not {dtype}")
    leaf = leaf if leaf.dtype == dtype else leaf.astype(dtype)
    sharding = getattr(to, "sharding", None)
    if sharding is None:
        return leaf
    if isinstance(to, jax.Array) and len(sharding.device_set) == 1:
        return jax.numpy.asarray(leaf)
    return jax.device_put(leaf, sharding)
