"""The algebra of permutations of a spec's groups, compiled once for each spec."""

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from llfc_jax.matching.axes import Index, permute

if TYPE_CHECKING:
    from llfc_jax.matching.spec import PermutationSpec

_compiled = functools.partial(jax.jit, static_argnums=0)


@_compiled
def draw(spec: "PermutationSpec", key: jax.Array) -> Index:
    """A permutation drawn uniformly."""
    keys = [jax.random.fold_in(key, i) for i in range(len(spec.groups))]
    # The order of random 32-bit numbers: compiles much faster than jax.random.permutation.
    return {
        group.name: jnp.argsort(jax.random.bits(own, spec.shape(group.name)), -1).astype(jnp.int32)
        for group, own in zip(spec.groups, keys, strict=True)
    }


@_compiled
def move(
    spec: "PermutationSpec", permutation: Index, leaves: dict[int, Any]
) -> dict[int, jax.Array]:
    """These leaves, by number, permuted along every axis that carries a group."""
    return {
        i: permute(leaf, spec.leaves[i][1], permutation, spec.parents) for i, leaf in leaves.items()
    }


@_compiled
def invert(spec: "PermutationSpec", permutation: Index) -> Index:
    """The permutation that undoes this one; a nested group's places move with its parent."""
    inverse = {name: jnp.argsort(p, -1) for name, p in permutation.items()}
    for name, parent in spec.parents.items():
        inverse[name] = inverse[name][inverse[parent]]
    return {name: p.astype(jnp.int32) for name, p in inverse.items()}


@_compiled
def compose(spec: "PermutationSpec", second: Index, first: Index) -> Index:
    """First `first`, then `second`."""
    whole = {}
    for name, p in first.items():
        parent = spec.parents.get(name)
        p = p if parent is None else p[second[parent]]
        whole[name] = jnp.take_along_axis(p, second[name], -1, mode="clip").astype(jnp.int32)
    return whole
