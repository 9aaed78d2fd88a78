"""Mixtures of permutations: a doubly stochastic matrix per group instead of an index array.

`mix` is to them what `permute` is to permutations, and agrees with it on permutation matrices. A
group inside a parent shares one matrix with it, over all units of all the parent's places.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from llfc_jax.matching.assignment.family import composite
from llfc_jax.symmetry.axes import Axis, Permutation, Sum, Units, factors, units
from llfc_jax.symmetry.spec import PermutationSpec

Mixture = Mapping[str, jax.Array]
"""One matrix per group, [n, n] with n = `units_in_all`: place i takes `sum_j M[i, j] unit j`."""


def as_mixture(spec: PermutationSpec, permutation: Permutation) -> dict[str, jax.Array]:
    """Returns the matrices of a permutation."""
    permutation = {name: jnp.asarray(index) for name, index in permutation.items()}
    indices = {name: composite(spec, permutation, name) for name in spec.group}
    return {n: jnp.eye(len(index), dtype=jnp.float32)[index] for n, index in indices.items()}


def mix(
    array: jax.Array, axes: tuple[Axis, ...], mixture: Mixture, parents: Mapping[str, str]
) -> jax.Array:
    """Mixes the units along the axes that carry groups; the array itself where none does."""
    flat = tuple(factor for axis in axes for factor in factors(axis))
    if not any(True for factor in flat for _ in units(factor)):
        return array
    mixed = jnp.reshape(array, [factor.size for factor in flat])
    for i, factor in enumerate(flat):
        if isinstance(factor, Sum):
            for p, part in enumerate(factor.parts):
                places = factor.places(p)
                piece = jnp.take(mixed, places, axis=i)
                piece = mix(piece, (*flat[:i], part, *flat[i + 1 :]), mixture, parents)
                where = (slice(None),) * i + (places,)
                mixed = mixed.at[where].set(piece)
            return jnp.reshape(mixed, jnp.shape(array))
    place = {f.group: i for i, f in enumerate(flat) if isinstance(f, Units)}
    with_inner = {parents[name] for name in place if name in parents}
    for i, factor in enumerate(flat):
        if not isinstance(factor, Units) or factor.group in with_inner:
            continue
        along = [i]
        if factor.group in parents:
            along = [place[parents[factor.group]], i]
        mixed = _apply(mixed, mixture[factor.group], along)
    return jnp.reshape(mixed, jnp.shape(array))


def _apply(array: jax.Array, matrix: jax.Array, along: list[int]) -> jax.Array:
    """A matrix on the product of some axes, which keep their places."""
    front = jnp.moveaxis(array, along, range(len(along)))
    flat = front.reshape(matrix.shape[0], -1)
    return jnp.moveaxis((matrix @ flat).reshape(front.shape), range(len(along)), along)
