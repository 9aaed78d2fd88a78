"""The algebra of permutations of a spec's groups, compiled once for each spec."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.parallel.spread import is_spread
from llfc_jax.symmetry.axes import Axis, Index, Permutation, library, permute

Parents = tuple[tuple[str, str], ...]
"""(group, its parent) for each nested group."""


@functools.partial(jax.jit, static_argnums=0)
def draw(shapes: tuple[tuple[str, tuple[int, ...]], ...], key: jax.Array) -> Index:
    """A permutation drawn uniformly, given (group, shape of its index array) for each."""
    # The order of random 32-bit numbers: compiles much faster than jax.random.permutation.
    return {
        name: jnp.argsort(jax.random.bits(jax.random.fold_in(key, i), shape), -1).astype(jnp.int32)
        for i, (name, shape) in enumerate(shapes)
    }


@functools.partial(jax.jit, static_argnums=(0, 1))
def move(
    parents: Parents,
    axes: tuple[tuple[Axis, ...], ...],
    permutation: Permutation,
    leaves: Sequence[Any],
) -> list[jax.Array]:
    """These leaves permuted along every axis that carries a group."""
    inside = dict(parents)
    return [permute(leaf, own, permutation, inside) for leaf, own in zip(leaves, axes, strict=True)]


def move_leaf(
    parents: Parents, axes: tuple[Axis, ...], permutation: Permutation, leaf: Any
) -> jax.Array:
    """Returns one leaf permuted; one that is cut up over several devices stays so."""
    if not is_spread(leaf):
        return move(parents, (axes,), permutation, [leaf])[0]
    return _move_spread(parents, axes, leaf.sharding, permutation, leaf)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _move_spread(
    parents: Parents,
    axes: tuple[Axis, ...],
    sharding: jax.sharding.Sharding,
    permutation: Permutation,
    leaf: jax.Array,
) -> jax.Array:
    moved = permute(leaf, axes, permutation, dict(parents))
    return jax.lax.with_sharding_constraint(moved, sharding)


def invert(parents: Parents, permutation: Index) -> Index:
    """Returns the permutation that undoes this one; NumPy's own stays in NumPy.

    A nested group's places move with its parent.
    """
    numpy = library(*permutation.values()) is np
    return (_invert if numpy else _invert_compiled)(parents, permutation)


def compose(parents: Parents, second: Index, first: Index) -> Index:
    """Returns the permutation that is first `first`, then `second`."""
    numpy = library(*first.values(), *second.values()) is np
    return (_compose if numpy else _compose_compiled)(parents, second, first)


def _invert(parents: Parents, permutation: Index) -> Index:
    inverse = {name: p.argsort(-1) for name, p in permutation.items()}
    for name, parent in parents:
        inverse[name] = inverse[name][inverse[parent]]
    return {name: p.astype(np.int32) for name, p in inverse.items()}


def _compose(parents: Parents, second: Index, first: Index) -> Index:
    xp, inside = library(*first.values(), *second.values()), dict(parents)
    whole = {}
    for name, p in first.items():
        if name in inside:
            p = p[second[inside[name]]]
        whole[name] = xp.take_along_axis(p, second[name], -1).astype(np.int32)
    return whole


_invert_compiled = jax.jit(_invert, static_argnums=0)
_compose_compiled = jax.jit(_compose, static_argnums=0)
