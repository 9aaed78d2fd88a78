"""Weights as the solver wants them: tensors whose axes are whole groups of units.

An array whose axes are products or sums of groups falls into blocks; each block is one tensor
with a first axis for everything that stays fixed and then an axis per group that it touches (so
that a convolution's kernel lies as it is). A group inside a parent shares one axis with it: all
units of all the parent's places. Two groups inside the same place of a parent have an axis each
of that kind; between units of different places stand zeros.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from llfc_jax.symmetry.axes import (
    Axis,
    Fixed,
    Sum,
    Units,
    at_place,
    flatten,
    library,
    pairs,
    slice_at,
    stacked_along,
)

Extract = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Block:
    """Part of an array.

    Attributes:
        groups: the group along each axis but the first. A nested group stands for itself and its
            parent.
        extract: array -> [fixed, size of each group...]; a NumPy array's block is one, too.
    """

    groups: tuple[str, ...]
    extract: Extract


def blocks(axes: tuple[Axis, ...], parents: Mapping[str, str]) -> list[Block]:
    """Cuts an array with these axes into blocks; together they hold every element once."""
    along = stacked_along(axes)
    if along is not None:
        return [
            Block(inner.groups, _after(functools.partial(_slice, along, i), inner.extract))
            for i in range(axes[along].size)
            for inner in blocks(at_place(axes, along, i), parents)
        ]
    return _cut(flatten(axes), parents)


def _cut(flat: list[tuple[int, Axis]], parents: Mapping[str, str]) -> list[Block]:
    for i, (axis, factor) in enumerate(flat):
        if isinstance(factor, Sum):
            found = []
            for p, part in enumerate(factor.parts):
                select = _select(flat, i, factor.places(p))
                pieces = [(axis, f) for _, f in flatten((part,))]
                for inner in _cut([*flat[:i], *pieces, *flat[i + 1 :]], parents):
                    found.append(Block(inner.groups, _after(select, inner.extract)))
            return found
    return [_block(flat, parents)]


def _slice(along: int, place: int, array: Any) -> Any:
    return slice_at(array, along, place)


def _after(first: Extract, then: Extract) -> Extract:
    return lambda array: then(first(array))


def _select(flat: list[tuple[int, Axis]], axis: int, places: np.ndarray) -> Extract:
    shape = [factor.size for _, factor in flat]
    contiguous = len(places) and places[-1] - places[0] + 1 == len(places)
    start = int(places[0]) if len(places) else 0
    index = slice(start, start + len(places)) if contiguous else places

    def select(array: Any) -> Any:
        return array.reshape(shape)[(slice(None),) * axis + (index,)]

    return select


def _block(flat: list[tuple[int, Axis]], parents: Mapping[str, str]) -> Block:
    shape = [factor.size for _, factor in flat]
    above = pairs(flat, parents)
    children: dict[int, list[int]] = {}
    for i, j in above.items():
        children.setdefault(j, []).append(i)
    fixed = [i for i, (_, factor) in enumerate(flat) if isinstance(factor, Fixed)]
    order, groups, inner = [], [], []
    for i, (_, factor) in enumerate(flat):
        if isinstance(factor, Units) and i not in children:
            order += [above[i], i] if i in above else [i]
            inner.append((above.get(i), i))
            groups.append(factor.group)
    letters = {i: chr(97 + i) for i in range(len(flat))}
    shared = {j: held[1:] for j, held in children.items() if len(held) > 1}
    # Further groups inside a parent have a copy of its axis, on the diagonal with the first.
    copies = {i: chr(65 + n) for n, i in enumerate(i for held in shared.values() for i in held)}
    source = "".join(letters.values())
    eyes = "".join(f",{letters[above[i]]}{copies[i]}" for i in copies)
    result = "".join(letters[i] for i in fixed)
    for j, i in inner:
        result += ("" if j is None else copies.get(i, letters[j])) + letters[i]
    sizes = [shape[i] * (1 if j is None else shape[j]) for j, i in inner]
    matrices = [shape[above[i]] for i in copies]

    def extract(array: Any) -> Any:
        array = array.reshape(shape)
        if not copies:
            return array.transpose(*fixed, *order).reshape(-1, *sizes)
        xp = library(array)
        diagonals = [xp.eye(n, dtype=array.dtype) for n in matrices]
        found = xp.einsum(f"{source}{eyes}->{result}", array, *diagonals)
        return found.reshape(-1, *sizes)

    return Block(tuple(groups), extract)
