"""Weights as the solver wants them: tensors whose axes are whole groups of units.

An array whose axes are products or sums of groups falls into blocks; each block is one tensor
with a first axis for everything that stays fixed and then an axis per group that it touches (so
that a convolution's kernel lies as it is). A group inside a parent shares one axis with it: all
units of all the parent's places.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import numpy as np

from llfc_jax.symmetry.axes import Axis, Fixed, Sum, Units, factors


@dataclasses.dataclass(frozen=True)
class Block:
    """Part of an array.

    Attributes:
        groups: the group along each axis but the first. A nested group stands for itself and its
            parent.
        extract: array -> [fixed, size of each group...]; NumPy arrays stay NumPy's.
    """

    groups: tuple[str, ...]
    extract: Callable[[jax.Array], jax.Array]


def blocks(axes: tuple[Axis, ...], parents: Mapping[str, str]) -> list[Block]:
    """Cut an array with these axes into blocks; together they hold every element once."""
    flat = tuple(factor for axis in axes for factor in factors(axis))
    for i, factor in enumerate(flat):
        if isinstance(factor, Sum):
            return [
                Block(inner.groups, _after(_select(flat, i, factor.places(p)), inner.extract))
                for p, part in enumerate(factor.parts)
                for inner in blocks((*flat[:i], part, *flat[i + 1 :]), parents)
            ]
    return [_block(flat, parents)]


def _after(
    first: Callable[[jax.Array], jax.Array], then: Callable[[jax.Array], jax.Array]
) -> Callable[[jax.Array], jax.Array]:
    return lambda array: then(first(array))


def _select(
    flat: tuple[Axis, ...], axis: int, places: np.ndarray
) -> Callable[[jax.Array], jax.Array]:
    shape = [factor.size for factor in flat]
    contiguous = len(places) and places[-1] - places[0] + 1 == len(places)

    def select(array: jax.Array) -> jax.Array:
        array = array.reshape(shape)
        if contiguous:
            return array[(slice(None),) * axis + (slice(int(places[0]), int(places[-1]) + 1),)]
        return array.take(places, axis=axis)

    return select


def _block(flat: tuple[Axis, ...], parents: Mapping[str, str]) -> Block:
    shape = [factor.size for factor in flat]
    place = {f.group: i for i, f in enumerate(flat) if isinstance(f, Units)}
    with_child = {parents[name] for name in place if name in parents}
    fixed = [i for i, factor in enumerate(flat) if isinstance(factor, Fixed)]
    order, groups, sizes = [], [], []
    for i, factor in enumerate(flat):
        if not isinstance(factor, Units) or factor.group in with_child:
            continue
        along = [i]
        if factor.group in parents:
            along = [place[parents[factor.group]], i]
        order += along
        groups.append(factor.group)
        sizes.append(int(np.prod([shape[j] for j in along])))

    def extract(array: jax.Array) -> jax.Array:
        array = array.reshape(shape).transpose((*fixed, *order))
        return array.reshape(int(np.prod([shape[i] for i in fixed])), *sizes)

    return Block(tuple(groups), extract)
