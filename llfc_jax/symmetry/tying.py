"""Splits terms and ties them to each other.

`unify` ties two axes. `split`, `regroup` (a reshape) and `pick` (slices) take one apart, as far as
it goes. Only unknown, pinned and `Each` terms are bound, so all that was tied stays tied; what
cannot be expressed is pinned, with a reason, and marked as given up.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from llfc_jax.symmetry.terms import (
    Each,
    Pinned,
    Product,
    Sum,
    Term,
    Unknown,
    Wild,
    each,
    factors,
    find,
    fresh,
    grid_labels,
    has_wild,
    parts_of,
    pin,
    pinned,
    product,
    total,
)

OTHERWISE = "tied to an axis that is laid out otherwise"
ACROSS = "cut across a product of axes"


def split(term: Term, left: int, right: int, why: str = "") -> list[Term] | None:
    """Returns an axis as a product of `left * right`; None where it is laid out otherwise."""
    term = find(term)
    if left == 1 or right == 1:
        return [Wild(1), term] if left == 1 else [term, Wild(1)]
    if isinstance(term, Wild):
        return [Wild(left), Wild(right)]
    if isinstance(term, Pinned):
        return [dataclasses.replace(term, size=n) for n in (left, right)]
    if isinstance(term, Unknown):
        term.bound = Product(term.size, parts=(Unknown(left), Unknown(right)))
        return list(term.bound.parts)
    if isinstance(term, Each):
        halves = [_regrouped(factors(part), (left, right), why) for part in term.parts]
        if any(half is None for half in halves):
            return None
        return [each(term.over, [half[k] for half in halves if half]) for k in (0, 1)]
    return _split_sum(term, left, right, why) if isinstance(term, Sum) else None


def _split_sum(term: Sum, left: int, right: int, why: str) -> list[Term] | None:
    grid = term.labels.reshape(left, right)
    rows, columns = (grid == grid[:, :1]).all(), (grid == grid[:1]).all()
    if rows and all(find(part).size == right for part in term.parts):
        over = Pinned(left, "parts side by side", apart=True)
        return [over, each(over, [term.parts[p] for p in grid[:, 0]])]
    if not rows and not columns:
        return None
    shared = right if rows else left  # the axis that all parts have in common
    halves = []
    for part in term.parts:
        n = find(part).size // shared
        half = _regrouped(factors(part), (n, right) if rows else (left, n), why)
        if half is None:
            return None
        halves.append(half if rows else half[::-1])
    inner = halves[0][1]
    for _, other in halves[1:]:
        inner = unify(inner, other, why)
    outer = total([half[0] for half in halves], grid[:, 0] if rows else grid[0])
    return [outer, inner] if rows else [inner, outer]


def take_apart(term: Term, left: int, n: int, right: int, why: str = "") -> list[Term] | None:
    """Returns an axis as `left * n * right` with other axes in each of the n places."""
    term = find(term)
    labels = grid_labels(left, n, right)
    if isinstance(term, Unknown):
        term.bound = total([product([fresh(left), fresh(right)]) for _ in range(n)], labels)
        term = find(term)
    if not isinstance(term, Sum):
        return None
    rows = []
    for i in range(n):
        piece = pick(term, (labels == i).astype(int), why)[1]
        half = _regrouped(factors(piece), (left, right), why)
        if half is None:
            return None
        rows.append(half)
    over = Pinned(n, "parts side by side", apart=True)
    before, after = (each(over, [row[k] for row in rows]) for k in (0, 1))
    return [before, over, after]


def regroup(
    terms: Sequence[Term], sizes: Sequence[int], why: str = "", apart: Iterable[int] = ()
) -> list[Term]:
    """Returns the same places as axes of other sizes: a reshape.

    Args:
        terms: the axes.
        sizes: of the new axes.
        why: the equation, for the reason where the layout forbids it: those axes are pinned.
        apart: numbers of new axes in each of whose places the others may differ.
    """
    if 0 in sizes:
        return [Wild(n) for n in sizes]
    flat = [f for term in terms for f in factors(term)]
    for j in apart:
        flat = _with_apart(flat, sizes, j, why)
    ends = {math.prod(f.size for f in flat[:i]): i for i in range(len(flat) + 1)}
    found: list[Term] = []
    start, done, pending = 0, 1, []
    for size in sizes:
        pending.append(size)
        done *= size
        if done in ends:  # the axes so far hold the same places: a segment of its own
            found += _segment(flat[start : ends[done]], pending, why)
            start, pending = ends[done], []
    return found


def _segment(flat: Sequence[Term], sizes: Sequence[int], why: str) -> list[Term]:
    exact = _regrouped(flat, sizes, why)
    if exact is not None:
        return exact
    reason = f"{why} cuts across it"
    for factor in flat:
        pin(factor, reason, given_up=True)
    return [pinned(n, reason) for n in sizes]


def _with_apart(flat: list[Term], sizes: Sequence[int], j: int, why: str) -> list[Term]:
    """The factors, with the one that holds new axis j split so that j's places stand apart."""
    before, through = math.prod(sizes[:j]), math.prod(sizes[: j + 1])
    start = 1
    for k, factor in enumerate(flat):
        end = start * factor.size
        if before % start == 0 and end % through == 0 and before < end and factor.size > sizes[j]:
            parts = take_apart(factor, before // start, sizes[j], end // through, why)
            if parts is not None:
                return [*flat[:k], *(f for p in parts for f in factors(p)), *flat[k + 1 :]]
        start = end
    return flat


def _regrouped(flat: Sequence[Term], sizes: Sequence[int], why: str) -> list[Term] | None:
    todo, found = [f for term in flat for f in factors(term)][::-1], []
    for size in sizes:
        taken, need = [], size
        while need > 1:
            if not todo:
                return None
            part, *rest = factors(todo.pop())
            todo += rest[::-1]
            if need % part.size == 0:
                taken.append(part)
                need //= part.size
            elif part.size % need == 0:
                halves = split(part, need, part.size // need, why)
                if halves is None:
                    return None
                todo += [f for half in halves for f in factors(half)][::-1]
            else:
                return None
        found.append(product(taken))
    return found


def pick(term: Term, labels: np.ndarray, why: str = "") -> list[Term]:
    """Returns, for each label 0, 1, ..., the axis of the places that bear it."""
    term = find(term)
    sizes = np.bincount(labels, minlength=int(labels.max(initial=0)) + 1).tolist()
    if len(sizes) == 1:
        return [term]
    if isinstance(term, Wild):
        return [Wild(n) for n in sizes]
    if isinstance(term, Pinned):
        return [pinned(n, term.reason, given_up=term.given_up) for n in sizes]
    if isinstance(term, Unknown):
        term.bound = total([fresh(n) for n in sizes], labels)
        bound = term.bound
        if isinstance(bound, Pinned):
            return [Wild(n) for n in sizes]
        if isinstance(bound, Sum):
            return [bound.parts[bound.labels[np.argmax(labels == i)]] if n else Wild(0)
                    for i, n in enumerate(sizes)]  # fmt: skip
        whole = sizes.index(term.size)
        return [bound if i == whole else Wild(0) for i in range(len(sizes))]
    if isinstance(term, Each):
        rows = [pick(part, labels, why) for part in term.parts]
        return [each(term.over, [row[i] for row in rows]) for i in range(len(sizes))]
    if isinstance(term, Sum):
        return _pick_sum(term, labels, len(sizes), why)
    return _pick_product(term, labels, sizes, why)


def _pick_sum(term: Sum, labels: np.ndarray, count: int, why: str) -> list[Term]:
    pieces: list[list[tuple[Term, np.ndarray]]] = [[] for _ in range(count)]
    for p, part in enumerate(term.parts):
        places = np.flatnonzero(term.labels == p)
        used, local = np.unique(labels[places], return_inverse=True)
        for label, piece in zip(used, pick(part, local, why), strict=True):
            pieces[label].append((piece, places[labels[places] == label]))
    found = []
    for of_label in pieces:
        if not of_label:
            found.append(Wild(0))
            continue
        where = np.sort(np.concatenate([places for _, places in of_label]))
        local = np.empty(len(where), int)
        for i, (_, places) in enumerate(of_label):
            local[np.searchsorted(where, places)] = i
        found.append(total([piece for piece, _ in of_label], local))
    return found


def _pick_product(term: Term, labels: np.ndarray, sizes: list[int], why: str) -> list[Term]:
    parts = factors(term)
    grid = labels.reshape([p.size for p in parts])
    for k, part in enumerate(parts):
        along = np.moveaxis(grid, k, 0).reshape(part.size, -1)
        if (along == along[:, :1]).all():
            pieces = pick(part, along[:, 0], why)
            return [product([*parts[:k], piece, *parts[k + 1 :]]) for piece in pieces]
    for part in parts:  # places within one factor: split it where the cut is regular
        cut = _inner_cut(parts, grid, part)
        if cut is not None and split(part, *cut, why) is not None:
            return pick(product(parts), labels, why)
    for part in parts[:-1]:  # read again, the axis may be a sum over their places
        pin(part, f"{why}: {ACROSS}", given_up=True, apart=True)
    pin(parts[-1], f"{why}: {ACROSS}", given_up=True)
    return [pinned(n, f"{why}: {ACROSS}") for n in sizes]


def _inner_cut(parts: Sequence[Term], grid: np.ndarray, part: Term) -> tuple[int, int] | None:
    """Where an unknown factor has to be split for a contiguous cut of the product to follow it."""
    flat = grid.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    if not isinstance(part, Unknown) or not len(edges):
        return None
    block = math.gcd(*edges.tolist(), len(flat))
    inner = math.prod(p.size for p in parts[list(map(id, parts)).index(id(part)) + 1 :])
    if block % inner or not 1 < block // inner < part.size or part.size % (block // inner):
        return None
    return part.size // (block // inner), block // inner


def collapse(term: Term, why: str = "") -> Term:
    """Returns one axis for all places of an `Each`, which are tied by it."""
    term = find(term)
    if not isinstance(term, Each):
        return term
    one = term.parts[0]
    for part in term.parts[1:]:
        one = unify(one, part, why)
    term.bound = one
    return one


def collapse_where(term: Term, over: Term | None, why: str = "") -> Term:
    """Returns the axis with each `Each` over that axis (over any, for None) collapsed."""
    term = find(term)
    if isinstance(term, Each):
        if over is None or find(term.over) is find(over):
            return collapse(term, why)
        return term
    if isinstance(term, Product):
        return product(collapse_where(part, over, why) for part in term.parts)
    if isinstance(term, Sum):
        return total([collapse_where(part, over, why) for part in term.parts], term.labels)
    return term


def unify(s: Term, t: Term, why: str = "") -> Term:
    """Ties two axes: from now on they are permuted alike. Returns what both are."""
    s, t = find(s), find(t)
    if s is t or isinstance(t, Wild):
        return s
    if isinstance(s, Wild):
        return t
    assert s.size == t.size, (s.size, t.size)
    if isinstance(s, Each) or isinstance(t, Each):
        return _unify_each(s, t, why)
    if isinstance(s, Pinned) and isinstance(t, Pinned):
        if s.given_up and not t.given_up:
            s.reason, s.given_up = t.reason, False
        s.apart |= t.apart
        t.bound = s
        return s
    if isinstance(s, Pinned) or isinstance(t, Pinned):
        return _fix(t, s) if isinstance(s, Pinned) else _fix(s, t)
    if isinstance(s, Unknown) or isinstance(t, Unknown):
        single, whole = (s, t) if isinstance(s, Unknown) else (t, s)
        single.bound = _own(whole)
        return single.bound
    if isinstance(s, Sum) or isinstance(t, Sum):
        return _unify_sums(s, t, why)
    return _unify_products(s, t, why)


def _fix(term: Term, fixed: Term) -> Term:
    """The axis, pinned with `fixed`, also where it is wild: the other value has places there."""
    assert isinstance(fixed, Pinned)
    if isinstance(term, Unknown):
        term.bound = fixed
        return fixed
    pin(term, fixed.reason, given_up=fixed.given_up)
    return term if not has_wild(term) else fixed


def _own(term: Term) -> Term:
    """The axis with unknown terms in place of wild ones: what another axis tied to it may be."""
    term = find(term)
    if isinstance(term, Wild):
        return fresh(term.size)
    if isinstance(term, (Unknown, Pinned)) or not has_wild(term):
        return term
    parts = tuple(map(_own, parts_of(term)))
    if isinstance(term, Sum):
        return total(parts, term.labels)
    assert isinstance(term, Product)
    return Product(term.size, parts=parts)


def _unify_each(s: Term, t: Term, why: str) -> Term:
    if isinstance(s, Each) and isinstance(t, Each) and find(s.over) is find(t.over):
        pairs = zip(s.parts, t.parts, strict=True)
        return each(s.over, [unify(p, q, why) for p, q in pairs])
    return unify(collapse(s, why), collapse(t, why), why)


def _unify_sums(s: Term, t: Term, why: str) -> Term:
    ours = s.labels if isinstance(s, Sum) else np.zeros(s.size, int)
    theirs = t.labels if isinstance(t, Sum) else np.zeros(t.size, int)
    _, labels = np.unique(ours * (int(theirs.max()) + 1) + theirs, return_inverse=True)
    pairs = zip(pick(s, labels, why), pick(t, labels, why), strict=True)
    return total([unify(p, q, why) for p, q in pairs], labels)


def _unify_products(s: Term, t: Term, why: str) -> Term:
    left, right = factors(s)[::-1], factors(t)[::-1]
    merged = []
    while left:
        (p, *more), (q, *others) = factors(left.pop()), factors(right.pop())
        left += more[::-1]
        right += others[::-1]
        if p.size != q.size:
            longer, rest, size = (p, left, q.size) if p.size > q.size else (q, right, p.size)
            halves = None
            if longer.size % size == 0:
                halves = split(longer, size, longer.size // size, why)
            if halves is None:
                reason = f"{why}: {OTHERWISE}"
                for part in (*left, *right, p, q, s, t):
                    pin(part, reason, given_up=True)
                return pinned(s.size, reason)
            rest += [f for half in halves for f in factors(half)][::-1]
            (left if longer is q else right).append(p if longer is q else q)
            continue
        merged.append(unify(p, q, why))
    return product(merged)
