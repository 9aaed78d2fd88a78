"""What stands along an axis of an array: fixed places, units of a group, and how they are laid out.

An axis is described by a small expression:

- `Fixed(n)`: n places that no permutation moves;
- `Units(group, n)`: the n units of a permutation group;
- `Product(parts)`: the axis was (or could be) split into several in row-major order, as h * w * c
  of a flattened convolution, or heads * width of a fused projection;
- `Each(along, parts)`: another axis in each place of axis `along` of the array, which is fixed, as
  in layers stacked in one array;
- `Sum(parts, runs)`: the axis is laid out from pieces, as concatenated channels, or the channels
  of a shortcut between its zero padding. `runs` says which part the next places belong to.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.errors import MatchingError
from llfc_jax.types import AnyArray

Permutation = Mapping[str, jax.Array]
"""One index array per group: place `i` of the permuted network takes unit `indices[i]`.

[size] for a plain group; [parent size, size] for a group inside a parent, where row h permutes the
units inside the parent's place h, after the parent itself was permuted.
"""
Index = dict[str, jax.Array]
"""A permutation as a plain tree, to go through compiled functions."""


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Places that stay where they are, and why."""

    size: int
    reason: str = ""

    def __str__(self) -> str:
        return str(self.size)


@dataclasses.dataclass(frozen=True)
class Units:
    """The units of a group."""

    group: str
    size: int

    def __str__(self) -> str:
        return f"{self.group}({self.size})"


@dataclasses.dataclass(frozen=True)
class Product:
    """A row-major product of axes."""

    parts: "tuple[Axis, ...]"

    @property
    def size(self) -> int:
        """Number of places."""
        return math.prod(part.size for part in self.parts)

    def __str__(self) -> str:
        return " × ".join(f"[{p}]" if isinstance(p, Sum) else str(p) for p in self.parts)


@dataclasses.dataclass(frozen=True)
class Sum:
    """Parts laid out along one axis; `runs` holds (part, number of places), in order."""

    parts: "tuple[Axis, ...]"
    runs: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """Number of places."""
        return sum(length for _, length in self.runs)

    def places(self, part: int) -> np.ndarray:
        """The places of one part along the axis, in the order of the part's own places."""
        labels = np.repeat([p for p, _ in self.runs], [n for _, n in self.runs])
        return np.flatnonzero(labels == part)

    def __str__(self) -> str:
        seen: dict[int, int] = {}
        words = []
        for part, length in self.runs:
            start = seen.get(part, 0)
            seen[part] = start + length
            whole = length == self.parts[part].size
            words.append(f"{self.parts[part]}" + ("" if whole else f"[{start}:{start + length}]"))
        return " + ".join(words)


@dataclasses.dataclass(frozen=True)
class Each:
    """An axis that differs in each place of another axis of the same array, which is fixed.

    Attributes:
        along: number of the other axis.
        parts: what this axis is in each of its places.
    """

    along: int
    parts: "tuple[Axis, ...]"

    @property
    def size(self) -> int:
        """Number of places."""
        return self.parts[0].size

    def __str__(self) -> str:
        return f"in each place of axis {self.along}: " + ", ".join(map(str, self.parts))


Axis = Fixed | Units | Product | Sum | Each


def units(axis: Axis) -> Iterator[Units]:
    """Yields every mention of a group in an axis."""
    if isinstance(axis, Units):
        yield axis
    elif not isinstance(axis, Fixed):
        for part in axis.parts:
            yield from units(part)


def factors(axis: Axis) -> tuple[Axis, ...]:
    """Returns the axis as a row-major product of axes that are no products themselves."""
    if isinstance(axis, Product):
        return tuple(f for part in axis.parts for f in factors(part))
    return (axis,)


def stacked_along(axes: tuple[Axis, ...]) -> int | None:
    """Returns the number of an axis in whose places others differ; None where there is none."""
    return next((e.along for axis in axes for e in _eaches(axis)), None)


def _eaches(axis: Axis) -> Iterator[Each]:
    if isinstance(axis, Each):
        yield axis
    elif isinstance(axis, (Product, Sum)):
        for part in axis.parts:
            yield from _eaches(part)


def at_place(axes: tuple[Axis, ...], along: int, place: int) -> tuple[Axis, ...]:
    """Returns the axes of the array's slice at one place of an axis, which keeps that one place."""

    def chosen(axis: Axis) -> Axis:
        if isinstance(axis, Each) and axis.along == along:
            return chosen(axis.parts[place])
        if isinstance(axis, (Product, Sum, Each)):
            return dataclasses.replace(axis, parts=tuple(map(chosen, axis.parts)))
        return axis

    return tuple(Fixed(1) if i == along else chosen(axis) for i, axis in enumerate(axes))


def pairs(flat: Sequence[tuple[int, Axis]], parents: Mapping[str, str]) -> dict[int, int]:
    """Returns, for each factor that is a nested group, the factor that is its parent there.

    The parent on the same axis, or else the one in the array.

    Args:
        flat: (number of the axis, factor) of all factors.
        parents: the parent of each nested group.
    """
    found = {}
    for i, (axis, factor) in enumerate(flat):
        if isinstance(factor, Units) and factor.group in parents:
            above = parents[factor.group]
            places = [
                j for j, (_, f) in enumerate(flat) if isinstance(f, Units) and f.group == above
            ]
            found[i] = next((j for j in places if flat[j][0] == axis), places[0])
    return found


def flatten(axes: tuple[Axis, ...]) -> list[tuple[int, Axis]]:
    """Returns (number of the axis, factor) of all factors of an array's axes."""
    return [(i, factor) for i, axis in enumerate(axes) for factor in factors(axis)]


def permute(
    array: AnyArray, axes: tuple[Axis, ...], permutation: Permutation, parents: Mapping[str, str]
) -> Any:
    """Permutes an array along the axes that carry groups; the array itself where none does.

    NumPy arrays permuted by NumPy indices stay in NumPy.

    Args:
        array: its shape is that of `axes`.
        axes: one expression per axis.
        permutation: index arrays by group.
        parents: the parent of each nested group. A nested group and its parent stand side by side
            among the array's factors; a parent's units move first.
    """
    if not any(True for axis in axes for _ in units(axis)):
        return array
    xp = library(array, *permutation.values())
    along = stacked_along(axes)
    if along is not None:
        pieces = [
            permute(slice_at(array, along, i), at_place(axes, along, i), permutation, parents)
            for i in range(axes[along].size)
        ]
        return xp.concatenate(pieces, along)
    flat = flatten(axes)
    moved = xp.reshape(array, [factor.size for _, factor in flat])
    for i in range(len(flat)):
        if _needs_parts(flat, i, parents):
            moved = _permute_parts(moved, flat, i, permutation, parents)
            return xp.reshape(moved, np.shape(array))
    above = pairs(flat, parents)
    for i, (_, factor) in enumerate(flat):
        if i not in above and any(True for _ in units(factor)):
            moved = _take(xp, moved, indices(factor, permutation, parents), i)
    for i, j in above.items():
        within = _within(permutation[_group(flat[i][1])], i, j, len(flat))
        moved = _take_along(xp, moved, within, i)
    return xp.reshape(moved, np.shape(array))


def _needs_parts(flat: Sequence[tuple[int, Axis]], i: int, parents: Mapping[str, str]) -> bool:
    """Whether factor i is a sum that holds a group without its parent, or a parent without it."""
    axis = flat[i][1]
    if not isinstance(axis, Sum):
        return False
    beside = {parents.get(f.group) for _, f in flat if isinstance(f, Units)}
    return _reaches_out(axis, parents) or any(u.group in beside for u in units(axis))


def _reaches_out(axis: Axis, parents: Mapping[str, str]) -> bool:
    """Whether a nested group's parent does not stand beside it as a factor of its own."""
    if isinstance(axis, Sum):
        return any(_reaches_out(part, parents) for part in axis.parts)
    flat = factors(axis)
    held = {factor.group for factor in flat if isinstance(factor, Units)}
    return any(parents.get(name, name) not in held for name in held) or any(
        _reaches_out(factor, parents) for factor in flat if isinstance(factor, Sum)
    )


def _permute_parts(
    array: AnyArray,
    flat: Sequence[tuple[int, Axis]],
    i: int,
    permutation: Permutation,
    parents: Mapping[str, str],
) -> Any:
    """Permutes each part of a sum by itself: `array` has an axis per factor, i is the sum's."""
    xp, axis = library(array, *permutation.values()), flat[i][1]
    assert isinstance(axis, Sum)
    places = [axis.places(p) for p in range(len(axis.parts))]
    moved = []
    for part, taken in zip(axis.parts, places, strict=True):
        piece = array[(slice(None),) * i + (taken,)]
        beside = [*flat[:i], (flat[i][0], part), *flat[i + 1 :]]
        last = max(k for k, _ in beside)
        joined = tuple(Product(tuple(f for k, f in beside if k == n)) for n in range(last + 1))
        whole = xp.reshape(piece, [a.size for a in joined])
        moved.append(xp.reshape(permute(whole, joined, permutation, parents), piece.shape))
    order = np.argsort(np.concatenate(places))
    return xp.concatenate(moved, i)[(slice(None),) * i + (order,)]


def library(*arrays: object) -> Any:
    """Returns NumPy where all arrays are its own, else `jax.numpy`."""
    return np if all(isinstance(array, np.ndarray) for array in arrays) else jnp


def slice_at(array: AnyArray, axis: int, place: int) -> Any:
    """Returns the slice of an array at one place of an axis, which keeps that one place."""
    return array[(slice(None),) * axis + (slice(place, place + 1),)]


def _take(xp: ModuleType, array: AnyArray, index: AnyArray, axis: int) -> Any:
    return np.take(array, index, axis) if xp is np else jnp.take(array, index, axis, mode="clip")


def _take_along(xp: ModuleType, array: AnyArray, index: Any, axis: int) -> Any:
    if xp is np:
        return np.take_along_axis(array, index, axis)
    return jnp.take_along_axis(array, index, axis, mode="clip")


def _group(axis: Axis) -> str:
    assert isinstance(axis, Units)
    return axis.group


def indices(axis: Axis, permutation: Permutation, parents: Mapping[str, str]) -> Any:
    """Returns which place of the old axis each place of the new one takes: int [axis.size]."""
    xp = library(*permutation.values())
    if isinstance(axis, Fixed):
        return xp.arange(axis.size)
    if isinstance(axis, Units):
        return xp.asarray(permutation[axis.group])
    if isinstance(axis, Sum):
        places = [axis.places(i) for i in range(len(axis.parts))]
        taken = [
            xp.asarray(place)[indices(part, permutation, parents)]
            for place, part in zip(places, axis.parts, strict=True)
        ]
        return xp.concatenate(taken)[np.argsort(np.concatenate(places))]
    flat = flatten((axis,))
    above = pairs(flat, parents)
    index = xp.zeros([1] * len(flat), xp.int32)
    for i, (_, factor) in enumerate(flat):
        if i in above:
            own = _within(permutation[_group(factor)], i, above[i], len(flat))
        else:
            own = indices(factor, permutation, parents)
            own = own.reshape([-1 if j == i else 1 for j in range(len(flat))])
        index = index * factor.size + own
    return index.reshape(-1)


def _within(index: AnyArray, axis: int, parent: int, rank: int) -> Any:
    """A nested group's indices, shaped to run along its own axis and its parent's."""
    shape = [1] * rank
    shape[parent], shape[axis] = index.shape
    return (index if parent < axis else index.T).reshape(shape)


def to_json(axis: Axis) -> list[Any]:
    """Returns the expression as nested lists; `from_json` reads them back."""
    if isinstance(axis, Fixed):
        return ["fixed", axis.size, axis.reason]
    if isinstance(axis, Units):
        return ["units", axis.group, axis.size]
    parts = [to_json(part) for part in axis.parts]
    if isinstance(axis, Product):
        return ["product", parts]
    if isinstance(axis, Each):
        return ["each", axis.along, parts]
    return ["sum", parts, [list(run) for run in axis.runs]]


def from_json(value: list[Any]) -> Axis:
    """Returns an axis from what `to_json` wrote.

    Raises:
        MatchingError: the lists describe no axis.
    """
    match value:
        case ["fixed", int(size), str(reason)]:
            return Fixed(size, reason)
        case ["units", str(group), int(size)]:
            return Units(group, size)
        case ["product", list(parts)]:
            return Product(tuple(map(from_json, parts)))
        case ["each", int(along), list(parts)]:
            return Each(along, tuple(map(from_json, parts)))
        case ["sum", list(parts), list(runs)]:
            return Sum(tuple(map(from_json, parts)), tuple((int(p), int(n)) for p, n in runs))
    raise MatchingError(f"{str(value)[:60]} describes no axis; was the spec file edited by hand?")
