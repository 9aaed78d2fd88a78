"""Terms for axes, and their unification: what a permutation of units does along each axis.

A *term* says how permutations of units act on the places along one axis of one value:

- `Unknown`: places that may be permuted freely, until an equation says more; it is then *bound*
  to another term. What is left unbound in the end are the groups of units.
- `Pinned`: places that stay.
- `Wild`: the value is the same all along the axis, so every action leaves it as it is.
- `Product`: a row-major product of axes (a reshape).
- `Sum`: axes laid out along one axis (a concatenation, a slice, padding, gates in one kernel);
  place i belongs to part `labels[i]`.
- `Each`: beside a pinned axis `over` of the same value; in its place i the axis is `parts[i]`
  (layers stacked in one array; queries, keys and values in one).

The invariant, which each rule keeps: *a value to whose axes the terms' action is applied is the
value that the network computes from permuted parameters*. It holds for a value with a wild axis
whatever the action there is; hence a wild term takes any identity (`unify` returns the other
one), never passes its own on, and is never bound: each use of the value chooses anew. But it
stays a factor of products and a part of sums, so that what stands beside it meets the right
places of the other axis; and places of parts that are wild each for themselves are not alike.

Here terms are made and read; `tying` splits and unifies them.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

ALONE = "one place among others"


@dataclasses.dataclass(eq=False)
class Term:
    """An axis of `size` places; `bound` is the term that it turned out to be."""

    size: int
    bound: "Term | None" = dataclasses.field(default=None, kw_only=True, repr=False)


@dataclasses.dataclass(eq=False)
class Wild(Term):
    """An axis along which the value does not change."""


@dataclasses.dataclass(eq=False)
class Unknown(Term):
    """An axis whose places may be permuted."""


@dataclasses.dataclass(eq=False)
class Pinned(Term):
    """An axis whose places stay.

    Attributes:
        reason: why.
        given_up: another writing of the same function would have left it free.
        apart: each place was looked at by itself.
    """

    reason: str = ""
    given_up: bool = False
    apart: bool = False


@dataclasses.dataclass(eq=False)
class Product(Term):
    """A row-major product of axes, none of which is a product or has one place."""

    parts: tuple[Term, ...] = ()


@dataclasses.dataclass(eq=False)
class Sum(Term):
    """Axes laid out along one; place i belongs to part `labels[i]`."""

    parts: tuple[Term, ...] = ()
    labels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, int))


@dataclasses.dataclass(eq=False)
class Each(Term):
    """In place i of the pinned axis `over` of the same value, the axis is `parts[i]`."""

    parts: tuple[Term, ...] = ()
    over: Pinned = dataclasses.field(default_factory=lambda: Pinned(0))


def find(term: Term) -> Term:
    """Returns the term that stands for this one."""
    while term.bound is not None:
        if term.bound.bound is not None:
            term.bound = term.bound.bound
        term = term.bound
    return term


def fresh(size: int) -> Term:
    """Returns an axis of which nothing is known."""
    return Unknown(size) if size > 1 else Wild(size)


def pinned(size: int, reason: str, *, given_up: bool = False, apart: bool = False) -> Term:
    """Returns an axis whose places stay."""
    return Pinned(size, reason, given_up, apart) if size > 1 else Wild(size)


def pin(term: Term, reason: str, *, given_up: bool = False, apart: bool = False) -> None:
    """Forbids every permutation along an axis; a wild one has nothing to forbid."""
    term = find(term)
    if isinstance(term, Unknown):
        term.bound = Pinned(term.size, reason, given_up, apart)
    elif isinstance(term, Pinned):
        if term.given_up and not given_up:
            term.reason, term.given_up = reason, False
        term.apart |= apart
    else:
        for part in parts_of(term):
            pin(part, reason, given_up=given_up)


def parts_of(term: Term) -> tuple[Term, ...]:
    """Returns what a term is made of."""
    term = find(term)
    return term.parts if isinstance(term, (Product, Sum, Each)) else ()


def is_fixed(term: Term) -> bool:
    """Whether no permutation shows along the axis."""
    term = find(term)
    return not isinstance(term, Unknown) and all(map(is_fixed, parts_of(term)))


def is_wild(term: Term) -> bool:
    """Whether the value is the same all along the axis."""
    return isinstance(find(term), Wild)


def has_wild(term: Term) -> bool:
    """Whether the value is the same along any part of the axis."""
    return is_wild(term) or any(map(has_wild, parts_of(term)))


def same(s: Term, t: Term) -> bool:
    """Whether two terms say the same: pinned ones are alike, whichever they are."""
    s, t = find(s), find(t)
    if s is t:
        return True
    if type(s) is not type(t) or s.size != t.size or isinstance(s, Unknown):
        return False
    if isinstance(s, Sum) and isinstance(t, Sum) and not np.array_equal(s.labels, t.labels):
        return False
    if isinstance(s, Each) and isinstance(t, Each) and find(s.over) is not find(t.over):
        return False
    ours, theirs = parts_of(s), parts_of(t)
    return len(ours) == len(theirs) and all(map(same, ours, theirs))


def factors(term: Term) -> list[Term]:
    """Returns the factors of a product; the term itself where it is none."""
    term = find(term)
    if isinstance(term, Product):
        return [f for part in term.parts for f in factors(part)]
    return [term] if term.size != 1 else []


def atoms(term: Term) -> Iterator[Unknown]:
    """Yields every mention of an unknown in an axis."""
    term = find(term)
    if isinstance(term, Unknown):
        yield term
    for part in parts_of(term):
        yield from atoms(part)


def overs(term: Term) -> Iterator[Term]:
    """Yields the axes over which parts of this one vary."""
    term = find(term)
    if isinstance(term, Each):
        yield find(term.over)
    for part in parts_of(term):
        yield from overs(part)


def product(parts: Iterable[Term]) -> Term:
    """Returns the row-major product of axes; axes of one place vanish."""
    flat: list[Term] = []
    for factor in (f for part in parts for f in factors(part)):
        if flat and is_wild(flat[-1]) and is_wild(factor):
            factor = Wild(flat.pop().size * factor.size)
        flat.append(factor)
    if len(flat) <= 1:
        return flat[0] if flat else Wild(1)
    for k, factor in enumerate(flat):
        if isinstance(factor, Pinned) and (
            factor.apart or any(isinstance(f, Each) and find(f.over) is factor for f in flat)
        ):
            return _laid_out(flat, k)
    return Product(math.prod(f.size for f in flat), parts=tuple(flat))


def _laid_out(flat: Sequence[Term], k: int) -> Term:
    """The product of factors some of which depend on the place of factor k: a sum over it."""
    n, over = flat[k].size, flat[k]
    rows = [
        product(
            f.parts[i] if isinstance(f, Each) and find(f.over) is over else f
            for j, f in enumerate(flat)
            if j != k
        )
        for i in range(n)
    ]
    left, right = (math.prod(f.size for f in part) for part in (flat[:k], flat[k + 1 :]))
    return total(rows, grid_labels(left, n, right))


def grid_labels(left: int, n: int, right: int) -> np.ndarray:
    """The middle index of each place of a row-major product of three axes."""
    return np.broadcast_to(np.arange(n)[None, :, None], (left, n, right)).reshape(-1)


def concatenated(parts: Sequence[Term]) -> Term:
    """Returns axes laid out one after another."""
    return total(parts, np.repeat(np.arange(len(parts)), [find(p).size for p in parts]))


def total(parts: Sequence[Term], labels: np.ndarray) -> Term:
    """Returns the axis whose place i belongs to part `labels[i]`."""
    flat: list[Term] = []
    refined = np.zeros(len(labels), int)
    for p in np.unique(labels).tolist():
        part, places = find(parts[p]), np.flatnonzero(labels == p)
        inner = part.labels if isinstance(part, Sum) else np.zeros(part.size, int)
        refined[places] = inner + len(flat)
        flat += map(find, part.parts if isinstance(part, Sum) else (part,))
    if len(flat) == 1:
        return flat[0]
    if not flat:
        return Wild(0)
    if all(isinstance(part, Pinned) or part.size == 1 for part in flat):
        reason = next((p.reason for p in flat if isinstance(p, Pinned)), ALONE)
        return pinned(len(labels), reason, apart=all(part.size == 1 for part in flat))
    order = list(dict.fromkeys(refined.tolist()))  # parts in the order of their first places
    number = np.argsort(order)
    return Sum(len(labels), parts=tuple(flat[p] for p in order), labels=number[refined])


def each(over: Term, parts: Sequence[Term]) -> Term:
    """Returns the axis that is `parts[i]` in place i of another axis of the same value."""
    parts = tuple(map(find, parts))
    if all(same(part, parts[0]) for part in parts):
        return parts[0]
    if all(isinstance(part, (Pinned, Wild)) for part in parts):
        return next(part for part in parts if isinstance(part, Pinned))
    over = find(over)
    assert isinstance(over, Pinned)
    return Each(parts[0].size, parts=parts, over=over)


def at_place(term: Term, over: Term, places: np.ndarray, now: Term) -> Term:
    """Returns the axis after only some places of `over` were kept, which are now `now`."""
    term = find(term)
    if isinstance(term, Each):
        if find(term.over) is not find(over):
            parts = [at_place(part, over, places, now) for part in term.parts]
            return each(term.over, parts)
        parts = [term.parts[i] for i in places]
        if not parts:
            return Wild(term.size)
        return parts[0] if len(parts) == 1 else each(now, parts)
    if isinstance(term, Product):
        return product(at_place(part, over, places, now) for part in term.parts)
    if isinstance(term, Sum):
        return total([at_place(part, over, places, now) for part in term.parts], term.labels)
    return term


def pieces(axes: Sequence[Term], most: int = 2000) -> Iterator[list[list[Unknown]]]:
    """Yields the unknowns along each axis, for each way to take one part of every sum.

    Raises:
        OverflowError: there are more than `most` ways.
    """
    left = [most]

    def expand(axes: list[list[Term]]) -> Iterator[list[list[Unknown]]]:
        for i, axis in enumerate(axes):
            for k, factor in enumerate(axis):
                if isinstance(factor, Each):
                    over = find(factor.over)
                    for place in range(len(factor.parts)):
                        chosen = [
                            [
                                f
                                for t in terms
                                for f in factors(at_place(t, over, np.array([place]), over))
                            ]
                            for terms in axes
                        ]
                        yield from expand(chosen)
                    return
                if isinstance(factor, Sum):
                    for part in dict.fromkeys(map(find, factor.parts)):
                        changed = [*axis[:k], *factors(part), *axis[k + 1 :]]
                        yield from expand([*axes[:i], changed, *axes[i + 1 :]])
                    return
        left[0] -= 1
        if left[0] < 0:
            raise OverflowError
        yield [[f for f in axis if isinstance(f, Unknown)] for axis in axes]

    yield from expand([factors(axis) for axis in axes])
