"""Names the terms that stay free: which are groups, and which groups are inside which.

Groups inside groups. Where an axis and another stand side by side in every value that has the
first (the width of a head beside the heads; the channels within a group of a grouped convolution
beside the groups), stay so where the first is summed over, and the second is never summed over
while the first stays, every equation treats the places of the second one by one. Then the first
may be permuted differently in each place of the second.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np

from llfc_jax.graph import Graph
from llfc_jax.symmetry import axes as layout
from llfc_jax.symmetry.axes import Axis, Fixed, Units
from llfc_jax.symmetry.reading import Reading
from llfc_jax.symmetry.rules import place_of
from llfc_jax.symmetry.spec import Group
from llfc_jax.symmetry.terms import (
    Each,
    Pinned,
    Product,
    Sum,
    Term,
    Unknown,
    atoms,
    find,
    pieces,
    total,
)
from llfc_jax.symmetry.values import Axes


class Names:
    """The groups of a reading.

    Attributes:
        reading: the network's values.
        groups: parents first, otherwise in the order in which the network computes them.
        terms: the unknown that each group's name stands for.
        notes: what was given up.
    """

    def __init__(self, graph: Graph, reading: Reading) -> None:
        self.reading = reading
        values, program = reading.values, graph.program
        leaves = [values[number].axes for number in program.leaves]
        handed = [values[site.value].axes for site in graph.sites if site.kind == "linear"]
        in_leaves = {a for axes in leaves for t in axes for a in atoms(t)}
        ordered = (a for axes in (*handed, *leaves) for t in axes for a in atoms(t))
        terms = list(dict.fromkeys(a for a in ordered if a in in_leaves))
        self._parent, lost = _nesting(terms, reading)
        self._name: dict[Term, str] = {}
        counts: Counter[str] = Counter()
        stems = _stems(graph, reading)
        for term in terms:
            stem = stems[term] + (".inner" if term in self._parent else "")
            counts[stem] += 1
            self._name[term] = stem if counts[stem] == 1 else f"{stem}:{counts[stem]}"
        self.terms = {self._name[term]: term for term in terms}
        found = [
            Group(self._name[t], t.size, self._name[self._parent[t]] if t in self._parent else "")
            for t in terms
        ]
        self.groups = tuple(sorted(found, key=lambda group: bool(group.parent)))
        self.notes = reading.notes() + tuple(
            f"{self._name[term]} could be permuted differently in each place of "
            f"{self._name[other]}, but groups are nested one deep; it has one order in all of them"
            for term, other in lost
        )

    def axes(self, axes: Axes) -> tuple[Axis, ...]:
        """Returns the axes of a value as what its terms turned out to be."""
        return describe(axes, self._name)


def describe(axes: Axes, names: Mapping[Term, str]) -> tuple[Axis, ...]:
    """Returns the axes of a value as expressions, with the unknowns that have names as groups."""

    def one(term: Term) -> Axis:
        term = find(term)
        if isinstance(term, Unknown):
            name = names.get(term)
            return Units(name, term.size) if name else Fixed(term.size, "no parameter has it")
        if isinstance(term, Sum):
            term = total(term.parts, term.labels)  # parts that turned out to be sums join it
        if not isinstance(term, (Product, Sum, Each)):
            return Fixed(term.size, term.reason if isinstance(term, Pinned) else "")
        parts = tuple(map(one, term.parts))
        reasons = [part.reason for part in parts if isinstance(part, Fixed)]
        if len(reasons) == len(parts):
            return Fixed(term.size, next(filter(None, reasons), ""))
        if isinstance(term, Product):
            return layout.Product(parts)
        if isinstance(term, Each):
            along = place_of(axes, term.over)
            assert along is not None
            return layout.Each(along, parts)
        cuts = np.flatnonzero(np.diff(term.labels)) + 1
        runs = tuple((int(run[0]), len(run)) for run in np.split(term.labels, cuts))
        return layout.Sum(parts, runs)

    return tuple(map(one, axes))


def _stems(graph: Graph, reading: Reading) -> dict[Term, str]:
    """For each term the first layer that hands its units out, or a parameter that holds them."""
    stems: dict[Term, str] = {}
    for site in graph.sites:
        if site.kind == "linear":
            for term in (a for t in reading.values[site.value].axes for a in atoms(t)):
                stems.setdefault(term, site.name)
    program = graph.program
    axes = (reading.values[number].axes for number in program.leaves)
    leaves = list(zip(program.paths, axes, strict=True))
    for path, terms in [*((p, t[-1:]) for p, t in leaves), *leaves]:
        parts = path.split("/")
        name = "/".join(parts[1:-1] if parts[0] == "params" and len(parts) > 2 else parts)
        for term in (a for t in terms for a in atoms(t)):
            stems.setdefault(term, name)
    return stems


def _nesting(
    terms: Sequence[Unknown], reading: Reading
) -> tuple[dict[Term, Term], list[tuple[Term, Term]]]:
    """For each free term, the term in whose places it may be permuted independently.

    And the pairs for which that is so, but not expressed.
    """
    beside: dict[Term, Set[Term]] = {}

    def restrict(term: Term, allowed: Set[Term]) -> None:
        beside[term] = beside.get(term, allowed) & allowed - {term}

    for axes in _distinct(reading.seen):
        for term, allowed in _neighbours(axes).items():
            restrict(term, allowed)
    for summed, tied in reading.sums:
        shared = {a for t in tied for a in atoms(t)}
        for piece in _pieces(summed):
            held = {a for axis in piece for a in axis}
            for term in held:
                restrict(term, held | shared)
    for kept, gone in reading.mixed:
        away = {a for t in gone for a in atoms(t)}
        for axis in kept if away else ():
            for (piece,) in _pieces([axis]):
                for term in piece:  # the other may come back with the other operand: not the same
                    restrict(term, beside.get(term, set()) - (away - set(piece)))
    # The one inside which most others may be stands outside.
    outer = Counter(other for allowed in beside.values() for other in allowed)
    parent: dict[Term, Term] = {}
    for term in sorted(terms, key=lambda t: -len(beside.get(t, ()))):
        if term in parent.values():
            continue
        options = [t for t in terms if t in beside.get(term, ()) and t not in parent]
        if options:
            parent[term] = max(options, key=lambda t: outer[t])
    lost: list[tuple[Term, Term]] = [
        (term, other)
        for term in terms
        for other in terms
        if other in beside.get(term, ()) and parent.get(term) is not other
        if not (term in beside.get(other, ()) and parent.get(other) is term)
    ]
    return {term: parent[term] for term in terms if term in parent}, lost


def _distinct(values: Iterable[Axes]) -> Iterable[Axes]:
    """Each list of axes that holds unknowns once."""
    known: set[tuple[int, ...]] = set()
    for axes in values:
        found = tuple(map(find, axes))
        key = tuple(map(id, found))
        if key not in known and any(True for t in found for _ in atoms(t)):
            known.add(key)
            yield found


def _pieces(axes: Sequence[Term]) -> list[list[list[Unknown]]]:
    try:
        return list(pieces(axes))
    except OverflowError:  # nothing is inside anything here
        return [[[a]] for t in axes for a in atoms(t)]


def _neighbours(axes: Axes) -> dict[Unknown, set[Term]]:
    """For each unknown, those that stand beside it in every piece of a value.

    Either both stand in the piece once, or each axis that has one of them has both, once each, as
    the rows and the columns of a weight from a layer of heads to another such.
    """
    found: dict[Unknown, set[Term]] = {}
    for piece in _pieces(axes):
        counts = [Counter(axis) for axis in piece]
        total = Counter(a for axis in piece for a in axis)
        for term in total:
            allowed: set[Term] = {
                other
                for other in total
                if total[term] == total[other] == 1 or all(c[term] == c[other] <= 1 for c in counts)
            }
            found[term] = found.get(term, allowed) & allowed
    return found
