"""Unknowns for axes, and their unification.

While a network's equations are read, the axes of its values are unknown terms. Wherever two axes
meet that must be permuted alike, their terms are unified; wherever an axis may not be permuted,
its term is pinned. A term may turn out to be a row-major product of others (a reshape) or a sum of
others laid out along one axis (a concatenation, a slice, a padding); unifying it with another term
then unifies the parts, splitting the other term where need be. What is left free are the groups.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np


@dataclasses.dataclass(eq=False)
class Term:
    """An axis of `size` places.

    Attributes:
        size: number of places.
        reason: why it is pinned; "" while it is free.
        wild: the value is the same all along the axis, so that no permutation shows.
        link: the term that this one turned out to be.
        parts: what it is made of: factors of a product, or parts of a sum.
        labels: for a sum: which part each place belongs to.
    """

    size: int
    reason: str = ""
    wild: bool = False
    link: "Term | None" = None
    parts: "tuple[Term, ...]" = ()
    labels: np.ndarray | None = None

    @property
    def plain(self) -> bool:
        """Whether it is not (yet) made of parts."""
        return not self.parts


def find(term: Term) -> Term:
    """The term that stands for this one."""
    while term.link is not None:
        if term.link.link is not None:
            term.link = term.link.link
        term = term.link
    return term


def wild(size: int) -> Term:
    """An axis along which the value does not change."""
    return Term(size, wild=True)


def pinned(size: int, reason: str) -> Term:
    """An axis whose places may not move."""
    return Term(size, reason=reason)


def pin(term: Term, reason: str) -> None:
    """Forbid every permutation of an axis; a wild one has nothing to forbid."""
    term = find(term)
    for part in term.parts:
        pin(part, reason)
    if term.plain and not term.wild and not term.reason:
        term.reason = reason


def is_pinned(term: Term) -> bool:
    """Whether no part of the axis may move."""
    term = find(term)
    return bool(term.reason) if term.plain else all(map(is_pinned, term.parts))


def product(parts: Sequence[Term]) -> Term:
    """The row-major product of axes; axes of size 1 vanish."""
    flat = [f for part in parts for f in factors(part) if f.size > 1]
    if len(flat) == 1:
        return flat[0]
    if not flat:
        return wild(1)
    if all(f.wild for f in flat):
        return wild(math.prod(f.size for f in flat))
    return Term(math.prod(f.size for f in flat), parts=tuple(flat))


def factors(term: Term) -> list[Term]:
    """The factors of a product; the term itself where it is none."""
    term = find(term)
    if term.plain or term.labels is not None:
        return [term]
    return [f for part in term.parts for f in factors(part)]


def concatenated(parts: Sequence[Term]) -> Term:
    """Axes laid out one after another."""
    labels = np.repeat(np.arange(len(parts)), [find(p).size for p in parts])
    return total(parts, labels)


def total(parts: Sequence[Term], labels: np.ndarray) -> Term:
    """The axis whose place i belongs to part `labels[i]`."""
    used = sorted(set(labels.tolist()))
    terms = [find(parts[i]) for i in used]
    labels = np.searchsorted(used, labels)
    if len(terms) == 1:
        return terms[0]
    if all(t.wild for t in terms):
        return wild(len(labels))
    if all(map(is_pinned, terms)):
        return pinned(len(labels), _reason(terms[0]))
    size = terms[0].size
    same = all(t is terms[0] for t in terms) and not terms[0].wild
    if same and np.array_equal(labels, np.repeat(np.arange(len(terms)), size)):
        return product([pinned(len(terms), "copies side by side"), terms[0]])
    return Term(len(labels), parts=tuple(terms), labels=labels)


def _reason(term: Term) -> str:
    term = find(term)
    return term.reason if term.plain else _reason(term.parts[0])


def pick(term: Term, labels: np.ndarray) -> list[Term]:
    """Split an axis by label: for each label 0, 1, ... the axis of the places that bear it."""
    term = find(term)
    count = int(labels.max()) + 1
    sizes = np.bincount(labels, minlength=count).tolist()
    if count == 1:
        return [term]
    if term.wild:
        return [wild(n) for n in sizes]
    if term.plain:
        alone = term.reason or "one place among others"
        term.parts = tuple(Term(n, term.reason if n > 1 else alone) for n in sizes)
        term.labels = labels
        return list(term.parts)
    if term.labels is not None:
        return _pick_sum(term, labels, count)
    return _pick_product(term, labels, sizes)


def _pick_sum(term: Term, labels: np.ndarray, count: int) -> list[Term]:
    assert term.labels is not None
    pieces: list[list[tuple[Term, np.ndarray]]] = [[] for _ in range(count)]
    for p, part in enumerate(term.parts):
        places = np.flatnonzero(term.labels == p)
        used, local = np.unique(labels[places], return_inverse=True)
        for label, piece in zip(used, pick(part, local), strict=True):
            pieces[label].append((piece, places[labels[places] == label]))
    found = []
    for of_label in pieces:
        where = np.sort(np.concatenate([places for _, places in of_label]))
        local = np.empty(len(where), int)
        for i, (_, places) in enumerate(of_label):
            local[np.searchsorted(where, places)] = i
        found.append(total([piece for piece, _ in of_label], local))
    return found


def _pick_product(term: Term, labels: np.ndarray, sizes: list[int]) -> list[Term]:
    parts = factors(term)
    grid = labels.reshape([p.size for p in parts])
    for k, part in enumerate(parts):
        along = np.moveaxis(grid, k, 0).reshape(part.size, -1)
        if (along == along[:, :1]).all():
            pieces = pick(part, along[:, 0])
            return [product([*parts[:k], piece, *parts[k + 1 :]]) for piece in pieces]
    pin(term, "cut across a product of axes")
    return [pinned(n, "cut across a product of axes") for n in sizes]


def split(term: Term, left: int, right: int) -> list[Term] | None:
    """An axis as a row-major product of `left * right`; None where it is laid out otherwise."""
    term = find(term)
    if left == 1 or right == 1:
        return [wild(1), term] if left == 1 else [term, wild(1)]
    if term.wild:
        return [wild(left), wild(right)]
    if term.plain:
        term.parts = (Term(left, term.reason), Term(right, term.reason))
        return list(term.parts)
    if term.labels is None:
        return None
    grid = term.labels.reshape(left, right)
    if not (grid == grid[:, :1]).all():
        return None
    # Whole blocks of `right` places belong to one part: cut each part likewise.
    halves = []
    for part in term.parts:
        flat = _regroup(part, [find(part).size // right, right])
        if flat is None:
            return None
        halves.append(flat)
    inner = halves[0][1]
    for _, other in halves[1:]:
        inner = unify(inner, other)
    return [total([outer for outer, _ in halves], grid[:, 0]), inner]


def _regroup(term: Term, sizes: list[int]) -> list[Term] | None:
    return regroup(factors(term), sizes)


def regroup(terms: Sequence[Term], sizes: Sequence[int]) -> list[Term] | None:
    """The same places as axes of other sizes: a reshape. None where the layout forbids it."""
    todo = [f for term in terms for f in factors(term) if f.size > 1][::-1]
    found = []
    for size in sizes:
        taken, need = [], size
        while need > 1:
            if not todo:
                return None
            part = todo.pop()
            if need % part.size == 0:
                taken.append(part)
                need //= part.size
            elif part.size % need == 0:
                halves = split(part, need, part.size // need)
                if halves is None:
                    return None
                todo += reversed([f for half in halves for f in factors(half)])
            else:
                return None
        found.append(product(taken))
    return found


def unify(s: Term, t: Term) -> Term:
    """Tie two axes: from now on they are permuted alike. Returns what both are."""
    s, t = find(s), find(t)
    if s is t or t.wild:
        return s
    if s.wild:
        return t
    if s.size != t.size:
        raise ValueError(f"axes of sizes {s.size} and {t.size} cannot be tied")
    if s.plain and t.plain:
        t.link = s
        s.reason = s.reason or t.reason
        return s
    if s.labels is not None or t.labels is not None:
        return _unify_sum(s, t)
    if s.plain or t.plain:
        whole, single = (t, s) if s.plain else (s, t)
        if single.reason:
            pin(whole, single.reason)
        owned = _own(whole)
        single.link = owned
        return owned
    return _unify_products(s, t)


def _own(term: Term) -> Term:
    """The axis with free terms in place of wild ones, so that another term may become it."""
    term = find(term)
    if term.plain:
        return Term(term.size) if term.wild else term
    parts = tuple(map(_own, term.parts))
    if all(part is find(old) for part, old in zip(parts, term.parts, strict=True)):
        return term
    return Term(term.size, parts=parts, labels=term.labels)


def _unify_sum(s: Term, t: Term) -> Term:
    ours = np.zeros(s.size, int) if s.labels is None else s.labels
    theirs = np.zeros(t.size, int) if t.labels is None else t.labels
    _, labels = np.unique(ours * (theirs.max() + 1) + theirs, return_inverse=True)
    pairs = zip(pick(s, labels), pick(t, labels), strict=True)
    return total([unify(p, q) for p, q in pairs], labels)


def _unify_products(s: Term, t: Term) -> Term:
    left, right = factors(s)[::-1], factors(t)[::-1]
    merged = []
    while left:
        p, q = left.pop(), right.pop()
        if p.size != q.size:
            longer, rest, size = (p, left, q.size) if p.size > q.size else (q, right, p.size)
            halves = split(longer, size, longer.size // size) if longer.size % size == 0 else None
            if halves is None:
                for part in (*left, *right, p, q, s, t):
                    pin(part, "tied to an axis that is laid out otherwise")
                return pinned(s.size, "tied to an axis that is laid out otherwise")
            rest += reversed([f for half in halves for f in factors(half)])
            (left if longer is q else right).append(p if longer is q else q)
            continue
        merged.append(unify(p, q))
    return product(merged)


def atoms(term: Term) -> Iterator[Term]:
    """Every mention of a free term in an axis."""
    for factor in factors(term):
        if factor.labels is not None:
            for part in factor.parts:
                yield from atoms(part)
        elif not factor.wild and not factor.reason:
            yield factor


def pieces(axes: Sequence[Term]) -> Iterator[list[Term]]:
    """The free terms side by side in each piece of an array, one part taken of every sum."""
    flat = [factor for axis in axes for factor in factors(axis)]
    for i, factor in enumerate(flat):
        if factor.labels is not None:
            for part in factor.parts:
                yield from pieces([*flat[:i], part, *flat[i + 1 :]])
            return
    yield [factor for factor in flat if not factor.wild and not factor.reason]
