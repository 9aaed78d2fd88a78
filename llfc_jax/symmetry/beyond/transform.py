"""Applies matrices and scales along the axes of an array that carry groups."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from llfc_jax.symmetry.axes import (
    Axis,
    Each,
    Fixed,
    Sum,
    Units,
    at_place,
    factors,
    flatten,
    library,
    pairs,
    slice_at,
    stacked_along,
)
from llfc_jax.types import AnyArray


@dataclasses.dataclass(frozen=True)
class Change:
    """What is done to a group's units along an axis.

    Attributes:
        array: a matrix [..., n, n], which acts as x → G x, or factors [..., n], unit by unit; for
            a nested group with the places of its parent in front.
        is_matrix: which of the two.
    """

    array: Any
    is_matrix: bool


Changes = Mapping[Any, Change]
"""What is done to (axis of the array, group), or to one mention of the group along the axis:
(axis, group, number of the mention in the order of `axes.units`; None for all)."""


@dataclasses.dataclass(frozen=True)
class Mention(Units):
    """The units of a group; `part` tells its mentions along an axis apart."""

    part: int = 0


def transform(
    array: AnyArray, axes: tuple[Axis, ...], changes: Changes, parents: Mapping[str, str]
) -> Any:
    """Returns an array after changes along its axes.

    Args:
        array: its shape is that of `axes`.
        axes: what stands along each axis.
        changes: by axis and group; groups without one stay.
        parents: the parent of each nested group.
    """
    if not changes:
        return array
    return _transform(array, tuple(map(numbered, axes)), changes, parents)


def keep_mention(
    axes: tuple[Axis, ...], group: str, axis: int, part: int | None, parents: Mapping[str, str]
) -> tuple[Axis, ...]:
    """Returns the axes of an array with a group at one axis only, or at one mention along it.

    Elsewhere fixed places stand for it, and everywhere for groups inside it: `blocks` then cuts out
    what the group does there.
    """

    def one(place: Axis, here: bool) -> Axis:
        if isinstance(place, Units):
            kept = here and part in (None, getattr(place, "part", None))
            gone = parents.get(place.group) == group or (place.group == group and not kept)
            return Fixed(place.size) if gone else place
        if isinstance(place, Fixed):
            return place
        return dataclasses.replace(place, parts=tuple(one(p, here) for p in place.parts))

    return tuple(one(numbered(place), i == axis) for i, place in enumerate(axes))


def numbered(axis: Axis) -> Axis:
    """Returns the axis with the mentions of each group numbered."""
    counts: dict[str, int] = {}

    def one(axis: Axis) -> Axis:
        if isinstance(axis, Units):
            counts[axis.group] = counts.get(axis.group, -1) + 1
            return Mention(axis.group, axis.size, counts[axis.group])
        if isinstance(axis, Fixed):
            return axis
        return dataclasses.replace(axis, parts=tuple(map(one, axis.parts)))

    return one(axis)


def _transform(
    array: AnyArray, axes: tuple[Axis, ...], changes: Changes, parents: Mapping[str, str]
) -> Any:
    xp = library(array, *(change.array for change in changes.values()))
    along = stacked_along(axes)
    if along is not None:
        pieces = [
            _transform(slice_at(array, along, i), at_place(axes, along, i), changes, parents)
            for i in range(axes[along].size)
        ]
        return xp.concatenate(pieces, along)
    flat = flatten(axes)
    spread = xp.reshape(array, [factor.size for _, factor in flat])
    return xp.reshape(_pure(xp, spread, flat, changes, parents), np.shape(array))


def _pure(
    xp: ModuleType,
    array: AnyArray,
    flat: Sequence[tuple[int, Axis]],
    changes: Changes,
    parents: Mapping[str, str],
) -> Any:
    """The array, of one axis per factor, after the changes; sums are taken apart."""
    for k, (_, factor) in enumerate(flat):
        assert not isinstance(factor, Each)
        if isinstance(factor, Sum):
            return _parts(xp, array, flat, k, changes, parents)
    above = pairs(flat, parents)
    for k, (axis, factor) in enumerate(flat):
        if isinstance(factor, Mention):
            keys = ((axis, factor.group), *((axis, factor.group, p) for p in (None, factor.part)))
            for change in (changes[key] for key in keys if key in changes):
                array = _along(xp, array, k, above.get(k), change)
    return array


def _parts(
    xp: ModuleType,
    array: AnyArray,
    flat: Sequence[tuple[int, Axis]],
    k: int,
    changes: Changes,
    parents: Mapping[str, str],
) -> Any:
    """Each part of a sum by itself, and then together again."""
    axis, whole = flat[k]
    assert isinstance(whole, Sum)
    places = [whole.places(p) for p in range(len(whole.parts))]
    changed = []
    for part, at in zip(whole.parts, places, strict=True):
        own = [*flat[:k], *((axis, f) for f in factors(part)), *flat[k + 1 :]]
        piece = xp.take(array, at, k)
        opened = xp.reshape(piece, [factor.size for _, factor in own])
        changed.append(xp.reshape(_pure(xp, opened, own, changes, parents), piece.shape))
    return xp.take(xp.concatenate(changed, k), np.argsort(np.concatenate(places)), k)


def _along(xp: ModuleType, array: AnyArray, k: int, parent: int | None, change: Change) -> Any:
    """The array after a change along axis k, in each place of the parent's axis."""
    values = change.array
    if parent is None:
        if change.is_matrix:
            return xp.moveaxis(xp.tensordot(values, array, ([1], [k])), 0, k)
        return array * xp.reshape(values, [-1 if i == k else 1 for i in range(array.ndim)])
    moved = xp.moveaxis(array, (parent, k), (0, 1))
    rest = moved.shape[2:]
    rows = moved.reshape(*moved.shape[:2], -1)
    rows = values @ rows if change.is_matrix else values[..., None] * rows
    return xp.moveaxis(rows.reshape(*moved.shape[:2], *rest), (0, 1), (parent, k))
