"""Mixtures of permutations: a doubly stochastic matrix per group instead of an index array.

`mix` is to them what `permute` is to permutations, and agrees with it on permutation matrices. A
group inside a parent shares one matrix with it, over all units of all the parent's places.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from llfc_jax.matching.assignment.family import composite
from llfc_jax.symmetry.axes import (
    Axis,
    Permutation,
    Sum,
    Units,
    at_place,
    flatten,
    pairs,
    slice_at,
    stacked_along,
    units,
)
from llfc_jax.symmetry.spec import PermutationSpec

Factors = list[tuple[int, Axis]]
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
    if not any(True for axis in axes for _ in units(axis)):
        return array
    along = stacked_along(axes)
    if along is not None:
        pieces = [
            mix(slice_at(array, along, i), at_place(axes, along, i), mixture, parents)
            for i in range(axes[along].size)
        ]
        return jnp.concatenate(pieces, along)
    flat = flatten(axes)
    mixed = jnp.reshape(array, [factor.size for _, factor in flat])
    return jnp.reshape(_mix(mixed, flat, mixture, parents), jnp.shape(array))


def _mix(
    array: jax.Array, flat: Factors, mixture: Mixture, parents: Mapping[str, str]
) -> jax.Array:
    """Returns the same for an array that has an axis for each factor."""
    for i, (axis, factor) in enumerate(flat):
        if isinstance(factor, Sum):
            for p, part in enumerate(factor.parts):
                where = (slice(None),) * i + (factor.places(p),)
                inner = [*flat[:i], *((axis, f) for _, f in flatten((part,))), *flat[i + 1 :]]
                piece = array[where].reshape([f.size for _, f in inner])
                piece = _mix(piece, inner, mixture, parents)
                array = array.at[where].set(piece.reshape(array[where].shape))
            return array
    above = pairs(flat, parents)
    children: dict[int, list[int]] = {i: [] for i in range(len(flat)) if i not in above}
    for i, j in above.items():
        children[j].append(i)
    for j, (_, factor) in enumerate(flat):
        if isinstance(factor, Units) and j not in above:
            names = [flat[i][1].group for i in children[j]]  # pyright: ignore
            matrices = [mixture[name] for name in names or [factor.group]]
            array = _apply(array, matrices, j, children[j])
    return array


def _apply(
    array: jax.Array, matrices: list[jax.Array], parent: int, children: list[int]
) -> jax.Array:
    """Returns one matrix on an axis, or one for each nested group on its axis and its parent's."""
    held, new = "abcdefghijklmnopqrstuvwxyz"[: array.ndim], list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    p, q = held[parent], new.pop()
    result, words, factors = held.replace(p, q), [], []
    for i, matrix in zip(children, matrices, strict=False):
        c, d = held[i], new.pop()
        result = result.replace(c, d)
        words.append(f"{q}{d}{p}{c}")
        factors.append(matrix.reshape(array.shape[parent], array.shape[i], *[
            array.shape[parent], array.shape[i]]))  # fmt: skip
    if not children:
        words, factors = [q + p], matrices
    return jnp.einsum(f"{','.join([*words, held])}->{result}", *factors, array)
