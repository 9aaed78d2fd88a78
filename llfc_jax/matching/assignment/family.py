"""Assignments for a family: a group, together with the groups inside it."""

import jax
import jax.numpy as jnp

from llfc_jax.matching.assignment.solvers import Solver, assign, assign_warm
from llfc_jax.symmetry.axes import Permutation
from llfc_jax.symmetry.spec import PermutationSpec


def families(spec: PermutationSpec) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each group that is inside no other, with the groups inside it."""
    return tuple(
        (group.name, tuple(inner.name for inner in spec.groups if inner.parent == group.name))
        for group in spec.groups
        if not group.parent
    )


def units_in_all(spec: PermutationSpec, name: str) -> int:
    """Number of a group's units, those in all the parent's places counted."""
    shape = spec.shape(name)
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def composite(spec: PermutationSpec, permutation: Permutation, name: str) -> jax.Array:
    """A group's index over `units_in_all`: of an axis with the parent's places and the units."""
    index, parent = jnp.asarray(permutation[name]), spec.group[name].parent
    if not parent:
        return index
    outer = jnp.asarray(permutation[parent])[..., :, None]
    flat = outer * index.shape[-1] + index
    return flat.reshape(*flat.shape[:-2], -1)


def value_of(scores: jax.Array, index: jax.Array) -> jax.Array:
    """`sum_i scores[..., i, index[..., i]]`."""
    return jnp.take_along_axis(scores, index[..., None], -1, mode="clip").sum((-1, -2))


def solve_family(
    spec: PermutationSpec,
    root: str,
    inside: tuple[str, ...],
    scores: dict[str, jax.Array],
    prices: jax.Array,
    solver: Solver = "auto",
) -> tuple[dict[str, jax.Array], jax.Array]:
    """The best joint permutation of a group and the groups inside it, exactly.

    The best order within place h, if it takes the parent's unit k, is an assignment of its own;
    its value then counts for the pair (h, k) in the assignment of the parent.

    Args:
        spec: says the sizes.
        root: the group that is inside no other.
        inside: the groups inside it.
        scores: [..., n, n] per group, n = `units_in_all`.
        prices: [..., size of root], from the last call with scores like these; zeros at first.
        solver: see `assign`.

    Returns:
        The permutation of each group of the family, and the prices for the next call.
    """
    outer = scores[root]
    *batch, places = outer.shape[:-1]
    within = {}
    for name in inside:
        n = spec.group[name].size
        pairs = scores[name].reshape(*batch, places, n, places, n)
        pairs = jnp.swapaxes(pairs, -3, -2)
        found = assign(pairs, solver)
        outer = outer + value_of(pairs, found)
        within[name] = found
    index, prices = assign_warm(outer, prices, solver)
    chosen = {
        name: jnp.take_along_axis(found, index[..., :, None, None], -2, mode="clip")[..., 0, :]
        for name, found in within.items()
    }
    return {root: index, **chosen}, prices
