"""Mentions of groups along axes: which of two axes are the same, and where layouts take them.

A group may be mentioned several times along an axis: queries and keys in one projection carry the
same units, once each, and may be acted on differently. A *mention* is (group, its number among the
group's mentions along the axis), in the order in which `axes.units` yields them.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from llfc_jax.symmetry.terms import (
    Each,
    Pinned,
    Product,
    Sum,
    Term,
    Unknown,
    factors,
    find,
    is_wild,
    parts_of,
    product,
    same,
    total,
)
from llfc_jax.symmetry.values import Record, Value

Mention = tuple[Unknown, int]
Place = tuple[int, int, Mention]
"""(number of the value, axis, mention)."""


def unknowns(term: Term) -> Iterator[Unknown]:
    """Yields every mention of an unknown in an axis, in the order of `axes.units`."""
    term = find(term)
    if isinstance(term, Sum):
        term = total(term.parts, term.labels)  # as `naming.describe` does
    if isinstance(term, Unknown):
        yield term
    for part in parts_of(term):
        yield from unknowns(part)


def mentions(term: Term) -> list[Mention]:
    """Returns the mentions along an axis."""
    return _numbered(unknowns(term))


def _numbered(atoms: Iterable[Unknown | None]) -> list[Any]:
    counts: dict[Unknown, int] = {}
    found: list[Any] = []
    for atom in atoms:
        if atom is None:
            found.append(None)
            continue
        counts[atom] = counts.get(atom, -1) + 1
        found.append((atom, counts[atom]))
    return found


def align(s: Term, t: Term) -> list[tuple[Mention | None, Mention | None]] | None:
    """Returns the mentions along two axes of the same places that stand beside each other.

    None beside a mention: the other axis does not vary there. None for all: the two axes are laid
    out differently.
    """
    pairs = _pairs(s, t)
    if pairs is None:
        return None
    left, right = (_numbered(pair[k] for pair in pairs) for k in (0, 1))
    return list(zip(left, right, strict=True))


Pairs = list[tuple[Unknown | None, Unknown | None]]


def _pairs(s: Term, t: Term) -> Pairs | None:
    s, t = (total(f.parts, f.labels) if isinstance(f, Sum) else f for f in (find(s), find(t)))
    if is_wild(s) or is_wild(t):
        return [*((a, None) for a in unknowns(s)), *((None, a) for a in unknowns(t))]
    if same(s, t):
        return [(a, a) for a in unknowns(s)]
    if isinstance(s, Sum) and isinstance(t, Sum):
        alike = np.array_equal(s.labels, t.labels)
        return _together(zip(s.parts, t.parts, strict=True)) if alike else None
    if isinstance(s, Each) and isinstance(t, Each):
        alike = find(s.over) is find(t.over)
        return _together(zip(s.parts, t.parts, strict=True)) if alike else None
    pieces = _matched(factors(s), factors(t))
    return None if pieces is None else _together(pieces)


def _together(pieces: Iterable[tuple[Term, Term]]) -> Pairs | None:
    whole: Pairs = []
    for s, t in pieces:
        found = _pairs(s, t)
        if found is None:
            return None
        whole += found
    return whole


def _matched(ours: list[Term], theirs: list[Term]) -> list[tuple[Term, Term]] | None:
    """Factors of the same sizes side by side; one that does not vary may stand beside several."""
    if len(ours) == len(theirs) == 1:
        return None
    pieces: list[tuple[Term, Term]] = []
    while ours and theirs:
        (s, *ours), (t, *theirs) = ours, theirs
        while s.size != t.size:
            small, rest = (s, ours) if s.size < t.size else (t, theirs)
            large = t if small is s else s
            if not is_wild(large) or not rest:
                return None
            grown = product([small, rest.pop(0)])
            s, t = (grown, t) if small is s else (s, grown)
        pieces.append((s, t))
    return None if ours or theirs else pieces


# -- layouts ---------------------------------------------------------------------------------------


def follow(
    record: Record, lay_out: Callable[[list[Value]], Sequence[Value]]
) -> list[tuple[Place, Place]] | None:
    """Returns where the mentions of the operands are in the results: pairs (before, after).

    Each mention is replaced by an unknown of its own, and all is laid out again.

    Args:
        record: an equation that lays out its operands anew.
        lay_out: does so with other operands of the same shapes.

    Returns:
        None where something else comes out than was recorded.
    """
    tags: dict[Term, Place] = {}
    laid = lay_out([_tagged(value, number, tags) for number, value in enumerate(record.inputs)])
    held: dict[Term, list[Place]] = {}
    for tag, place in tags.items():
        held.setdefault(find(tag), []).append(place)
    found: list[tuple[Place, Place]] = []
    for number, (value, made) in enumerate(zip(laid, record.outputs, strict=True)):
        for j, (term, now) in enumerate(zip(value.axes, made.axes, strict=True)):
            before, after = list(unknowns(term)), mentions(now)
            if len(before) != len(after):
                return None
            for tag, mention in zip(before, after, strict=True):
                sources = held.get(tag, [])
                if not sources or any(atom is not mention[0] for _, _, (atom, _) in sources):
                    return None
                found += [(source, (number, j, mention)) for source in sources]
    return found


def _tagged(value: Value, number: int, tags: dict[Term, Place]) -> Value:
    """The value with an unknown of its own for each mention; nothing else is shared with it."""
    pins: dict[Term, Pinned] = {}

    def copy(term: Term, made: list[Unknown]) -> Term:
        term = find(term)
        if isinstance(term, Sum):
            term = total(term.parts, term.labels)
        if isinstance(term, Unknown):
            made.append(Unknown(term.size))
            return made[-1]
        if isinstance(term, Pinned):
            return pins.setdefault(term, dataclasses.replace(term, bound=None))
        if not isinstance(term, (Product, Sum, Each)):
            return term
        parts = tuple(copy(part, made) for part in term.parts)
        if isinstance(term, Each):
            over = find(term.over)
            assert isinstance(over, Pinned)
            pin = pins.setdefault(over, dataclasses.replace(over, bound=None))
            return dataclasses.replace(term, parts=parts, over=pin)
        return dataclasses.replace(term, parts=parts)

    axes = []
    for i, axis in enumerate(value.axes):
        made: list[Unknown] = []
        axes.append(copy(axis, made))
        tags.update(
            (tag, (number, i, mention)) for tag, mention in zip(made, mentions(axis), strict=True)
        )
    return dataclasses.replace(value, axes=tuple(axes), points=None)
