"""What stands along an axis of an array: fixed places, units of a group, and how they are laid out.

An axis is described by a small expression:

- `Fixed(n)`: n places that no permutation moves;
- `Units(group, n)`: the n units of a permutation group;
- `Product(parts)`: the axis was (or could be) split into several in row-major order, as h * w * c
  of a flattened convolution, or heads * width of a fused projection;
- `Sum(parts, runs)`: the axis is laid out from pieces, as concatenated channels, or the channels
  of a shortcut between its zero padding. `runs` says which part the next places belong to.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.errors import MatchingError

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


Axis = Fixed | Units | Product | Sum


def units(axis: Axis) -> Iterator[Units]:
    """Every mention of a group in an axis."""
    if isinstance(axis, Units):
        yield axis
    elif isinstance(axis, (Product, Sum)):
        for part in axis.parts:
            yield from units(part)


def factors(axis: Axis) -> tuple[Axis, ...]:
    """The axis as a row-major product of axes that are no products themselves."""
    if isinstance(axis, Product):
        return tuple(f for part in axis.parts for f in factors(part))
    return (axis,)


def permute(
    array: Any, axes: tuple[Axis, ...], permutation: Permutation, parents: Mapping[str, str]
) -> Any:
    """Permute an array along the axes that carry groups; the array itself where none does.

    Args:
        array: its shape is that of `axes`.
        axes: one expression per axis.
        permutation: index arrays by group.
        parents: the parent of each nested group. A nested group and its parent stand side by side
            among the array's factors; a parent's units move first.
    """
    flat = [factor for axis in axes for factor in factors(axis)]
    carried = [list(units(factor)) for factor in flat]
    if not any(carried):
        return array
    moved = jnp.reshape(array, [factor.size for factor in flat])
    place = {f.group: i for i, f in enumerate(flat) if isinstance(f, Units)}
    for i, factor in enumerate(flat):
        if carried[i] and not (isinstance(factor, Units) and factor.group in parents):
            index = indices(factor, permutation, parents)
            moved = jnp.take(moved, index, axis=i, mode="clip")
    for i, factor in enumerate(flat):
        if isinstance(factor, Units) and factor.group in parents:
            within = _within(permutation, factor.group, i, place[parents[factor.group]], len(flat))
            moved = jnp.take_along_axis(moved, within, axis=i, mode="clip")
    return jnp.reshape(moved, jnp.shape(array))


def indices(axis: Axis, permutation: Permutation, parents: Mapping[str, str]) -> jax.Array:
    """Which place of the old axis each place of the new one takes: int [axis.size]."""
    if isinstance(axis, Fixed):
        return jnp.arange(axis.size)
    if isinstance(axis, Units):
        return jnp.asarray(permutation[axis.group])
    if isinstance(axis, Sum):
        index = jnp.zeros(axis.size, jnp.int32)
        for i, part in enumerate(axis.parts):
            places = axis.places(i)
            inner = indices(part, permutation, parents)
            index = index.at[places].set(jnp.asarray(places, jnp.int32)[inner])
        return index
    flat = factors(axis)
    place = {f.group: i for i, f in enumerate(flat) if isinstance(f, Units)}
    index = jnp.zeros([1] * len(flat), jnp.int32)
    for i, factor in enumerate(flat):
        if isinstance(factor, Units) and factor.group in parents:
            own = _within(permutation, factor.group, i, place[parents[factor.group]], len(flat))
        else:
            own = indices(factor, permutation, parents)
            own = own.reshape([-1 if j == i else 1 for j in range(len(flat))])
        index = index * factor.size + own
    return index.reshape(-1)


def _within(permutation: Permutation, group: str, axis: int, parent: int, rank: int) -> jax.Array:
    """A nested group's indices, shaped to run along its own axis and its parent's."""
    index = jnp.asarray(permutation[group])
    shape = [1] * rank
    shape[parent], shape[axis] = index.shape
    return (index if parent < axis else index.T).reshape(shape)


def to_json(axis: Axis) -> list[Any]:
    """The expression as nested lists; `from_json` reads them back."""
    if isinstance(axis, Fixed):
        return ["fixed", axis.size, axis.reason]
    if isinstance(axis, Units):
        return ["units", axis.group, axis.size]
    parts = [to_json(part) for part in axis.parts]
    if isinstance(axis, Product):
        return ["product", parts]
    return ["sum", parts, [list(run) for run in axis.runs]]


def from_json(value: list[Any]) -> Axis:
    """An axis from what `to_json` wrote.

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
        case ["sum", list(parts), list(runs)]:
            return Sum(tuple(map(from_json, parts)), tuple((int(p), int(n)) for p, n in runs))
    raise MatchingError(f"{str(value)[:60]} describes no axis; was the spec file edited by hand?")
