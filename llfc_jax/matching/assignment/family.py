"""Assignments for a family: a group, together with the groups inside it.

All functions take NumPy arrays or JAX arrays (traced ones too), and give back the same kind.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from llfc_jax.matching.assignment import host
from llfc_jax.matching.assignment.solvers import Solver, assign, assign_warm
from llfc_jax.symmetry.axes import Permutation
from llfc_jax.symmetry.spec import PermutationSpec

A = TypeVar("A", np.ndarray, jax.Array)


def families(spec: PermutationSpec) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Returns each group that is inside no other, with the groups inside it."""
    return tuple(
        (group.name, tuple(inner.name for inner in spec.groups if inner.parent == group.name))
        for group in spec.groups
        if not group.parent
    )


def units_in_all(spec: PermutationSpec, name: str) -> int:
    """Returns the number of a group's units, those in all the parent's places counted."""
    shape = spec.shape(name)
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def composite(spec: PermutationSpec, permutation: Mapping[str, A], name: str) -> A:
    """Returns a group's index over the parent's places and the units: [units_in_all]."""
    index, parent = permutation[name], spec.group[name].parent
    if not parent:
        return index
    outer: Any = permutation[parent]
    return (outer[:, None] * index.shape[-1] + index).reshape(-1)


def take_along(array: A, index: A, axis: int) -> A:
    """Returns `take_along_axis`, without a check of the indices inside a trace."""
    if isinstance(array, np.ndarray):
        return np.take_along_axis(array, np.asarray(index), axis)
    return jnp.take_along_axis(array, index, axis, mode="clip")


def assigned_value(scores: A, index: A) -> A:
    """Returns `sum_i scores[..., i, index[..., i]]`."""
    return take_along(scores, index[..., None], -1).sum((-1, -2))  # pyright: ignore


def host_identity(spec: PermutationSpec) -> dict[str, np.ndarray]:
    """Returns the permutation that moves nothing, in NumPy."""
    return {
        g.name: np.broadcast_to(np.arange(g.size, dtype=np.int32), spec.shape(g.name))
        for g in spec.groups
    }


def solve_family(
    spec: PermutationSpec,
    family: tuple[str, tuple[str, ...]],
    scores: Mapping[str, A],
    prices: Any,
    solver: Solver = "auto",
) -> tuple[dict[str, A], Any]:
    """Returns the best joint permutation of a group and the groups inside it, exactly.

    The best order within place h, if it takes the parent's unit k, is an assignment of its own;
    its value then counts for the pair (h, k) in the assignment of the parent.

    Args:
        spec: says the sizes.
        family: the group that is inside no other, and the groups inside it.
        scores: [n, n] per group, n = `units_in_all`.
        prices: [size of the group], from the last call with scores like these; zeros at first.
        solver: see `assign`; NumPy's arrays are always SciPy's.

    Returns:
        The permutation of each group of the family, and the prices for the next call.
    """
    root, inside = family
    outer = scores[root]
    places = outer.shape[0]
    within = {}
    for name in inside:
        n = spec.group[name].size
        pairs = scores[name].reshape(places, n, places, n).swapaxes(-3, -2)
        found = _assign(pairs, solver)
        outer = outer + assigned_value(pairs, found)
        within[name] = found
    if isinstance(outer, np.ndarray):
        index, prices = host.solve_warm(outer, prices)
    else:
        index, prices = assign_warm(outer, prices, solver)
    chosen = {
        name: take_along(found, index[:, None, None], -2)[..., 0, :]
        for name, found in within.items()
    }
    return {root: index, **chosen}, prices


def assign_family(
    spec: PermutationSpec,
    family: tuple[str, tuple[str, ...]],
    scores: Mapping[str, Float[np.ndarray, "n n"]],
    solver: Solver = "auto",
) -> dict[str, np.ndarray]:
    """Returns `solve_family` of scores in NumPy, by any solver and without prices."""
    prices = np.zeros(len(scores[family[0]]), scores[family[0]].dtype)
    if solver in ("auto", "scipy"):
        return solve_family(spec, family, scores, prices)[0]
    there = {name: jnp.asarray(matrix) for name, matrix in scores.items()}
    return as_numpy(solve_family(spec, family, there, jnp.asarray(prices), solver)[0])


def _assign(scores: A, solver: Solver) -> A:
    if isinstance(scores, np.ndarray):
        return host.solve(scores)
    return assign(scores, solver)


def as_numpy(permutation: Permutation) -> dict[str, np.ndarray]:
    """Returns a permutation's index arrays as NumPy's."""
    return {name: np.asarray(index) for name, index in permutation.items()}
