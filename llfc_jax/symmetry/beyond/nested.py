"""Scales and signs of groups that others stand inside: those that the inner groups have anyway.

Heads may be scaled, each by its own number; but where any matrix acts on their widths, in each head
its own, a multiple of the identity does the same. What is left here is what only the outer group
does.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from llfc_jax.symmetry.axes import Axis, Sum, at_place, factors, flatten, pairs, stacked_along
from llfc_jax.symmetry.beyond.element import Action
from llfc_jax.symmetry.beyond.exponents import independent
from llfc_jax.symmetry.beyond.transform import Mention, numbered
from llfc_jax.symmetry.beyond.unknowns import Exponents

Place = tuple[int, int, int]
"""(leaf, axis, mention)."""
Held = Mapping[Place, Exponents]
Vector = dict[int, Fraction]


def own_exponents(
    action: Action,
    held: Held,
    inside: Sequence[tuple[Action, Held]],
    layout: Sequence[tuple[str, tuple[Axis, ...]]],
    parents: Mapping[str, str],
) -> dict[Place, Exponents]:
    """Returns a group's exponents without the dimensions that the groups inside it have.

    Args:
        action: of the outer group.
        held: its exponents.
        inside: the groups inside it, and theirs.
        layout: (path, axes) of every leaf.
        parents: the parent of each nested group.
    """
    places, scales, signs = list(held), [], []
    for inner, own in inside:
        for exponents in _uniform(inner, own, signs=False):
            scales.append(_beside(action.group, inner.group, places, exponents, layout, parents))
        for exponents in _uniform(inner, own, signs=True):
            signs.append(_beside(action.group, inner.group, places, exponents, layout, parents))
    scales, signs = ([v for v in had if v is not None] for had in (scales, signs))
    kept = [_kept([how.scales for how in held.values()], scales, None)]
    kept.append(_kept([how.signs for how in held.values()], signs, 2))
    return {
        place: dataclasses.replace(
            how,
            scales=tuple(how.scales[d] for d in kept[0]),
            signs=tuple(how.signs[d] for d in kept[1]),
        )
        for place, how in held.items()
    }


def _kept(
    columns: Sequence[Sequence[Fraction | int]], had: Sequence[Any], modulus: int | None
) -> list[int]:
    """The dimensions that are no combination of those had, and of those before them."""
    rows = [dict(enumerate(row)) for row in zip(*columns, strict=True)]
    found = independent([*had, *rows], modulus)
    return [i - len(had) for i in found if i >= len(had)]


def _uniform(inner: Action, held: Held, *, signs: bool) -> Iterator[dict[Place, Fraction]]:
    """Yields the exponents of what a group does to all its units alike."""
    if inner.matrix == "none":
        columns = {place: how.signs if signs else how.scales for place, how in held.items()}
        for d in range(inner.signs if signs else inner.scales):
            yield {place: Fraction(column[d]) for place, column in columns.items()}
    elif not inner.keeps_ones and (signs or inner.matrix == "any"):
        yield {place: Fraction(-1 if how.dual else 1) for place, how in held.items()}


def _beside(
    outer: str,
    inner: str,
    places: Sequence[Place],
    exponents: Mapping[Place, Fraction],
    layout: Sequence[tuple[str, tuple[Axis, ...]]],
    parents: Mapping[str, str],
) -> Vector | None:
    """The inner group's exponents as the outer group's, by number of place.

    None where the inner group stands in a part only of what stands beside a place of the outer.
    """
    vector: Vector = {}
    for leaf in dict.fromkeys(leaf for leaf, _, _ in places):
        seen: dict[tuple[int, int], set[frozenset[tuple[int, int]]]] = {}
        for flat in pieces(tuple(map(numbered, layout[leaf][1]))):
            above = pairs(flat, parents)
            for k, (axis, factor) in enumerate(flat):
                if isinstance(factor, Mention) and factor.group == outer:
                    within = frozenset(
                        (flat[i][0], f.part)
                        for i, j in above.items()
                        if j == k and isinstance(f := flat[i][1], Mention) and f.group == inner
                    )
                    seen.setdefault((axis, factor.part), set()).add(within)
        for (axis, part), held in seen.items():
            if len(held) > 1:
                return None
            total = sum((exponents[leaf, i, p] for i, p in next(iter(held))), Fraction(0))
            vector[places.index((leaf, axis, part))] = total
    return vector


def pieces(axes: tuple[Axis, ...]) -> Iterator[list[tuple[int, Axis]]]:
    """Yields (number of the axis, factor) of all factors, for each way to take parts of sums."""
    along = stacked_along(axes)
    if along is not None:
        for place in range(axes[along].size):
            yield from pieces(at_place(axes, along, place))
        return
    yield from _without_sums(flatten(axes))


def _without_sums(flat: list[tuple[int, Axis]]) -> Iterator[list[tuple[int, Axis]]]:
    for k, (axis, factor) in enumerate(flat):
        if isinstance(factor, Sum):
            for part in factor.parts:
                opened = [(axis, f) for f in factors(part)]
                yield from _without_sums([*flat[:k], *opened, *flat[k + 1 :]])
            return
    yield flat
