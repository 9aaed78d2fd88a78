"""The algebra of permutations of a spec's groups, compiled once for each spec."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from llfc_jax.symmetry.axes import Axis, Index, permute

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
    permutation: Index,
    leaves: Sequence[Any],
) -> list[jax.Array]:
    """These leaves permuted along every axis that carries a group."""
    inside = dict(parents)
    return [permute(leaf, own, permutation, inside) for leaf, own in zip(leaves, axes, strict=True)]


@functools.partial(jax.jit, static_argnums=0)
def invert(parents: Parents, permutation: Index) -> Index:
    """The permutation that undoes this one; a nested group's places move with its parent."""
    inverse = {name: jnp.argsort(p, -1) for name, p in permutation.items()}
    for name, parent in parents:
        inverse[name] = inverse[name][inverse[parent]]
    return {name: p.astype(jnp.int32) for name, p in inverse.items()}


@functools.partial(jax.jit, static_argnums=0)
def compose(parents: Parents, second: Index, first: Index) -> Index:
    """First `first`, then `second`."""
    inside = dict(parents)
    whole = {}
    for name, p in first.items():
        if name in inside:
            p = p[second[inside[name]]]
        whole[name] = jnp.take_along_axis(p, second[name], -1, mode="clip").astype(jnp.int32)
    return whole
