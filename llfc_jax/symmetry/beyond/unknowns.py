"""How each group acts beyond permutations: what a trace's equations allow, gathered and solved.

A permutation group's units stand along axes of values. Where a value x carries the group along an
axis, a larger group may act on it there:

- a *matrix* G, as x → G x. Every value carries G itself or its inverse transpose, the *dual*, as
  queries and keys do. An equation may ask that G is orthogonal, or that it keeps the vector of
  ones, or that it is a permutation after all.
- *scales*: unit i of the value is multiplied by s_i^k, where the exponent k belongs to the value.
  Each equation relates the exponents of its operands and results linearly; all solutions are the
  scalings, one positive number per unit for each dimension of the solutions' space.
- *signs*: the same with -1 in the place of s_i, and exponents modulo 2.

`Actions` holds these unknowns: one node for each (value, axis, group), joined where an equation
makes two nodes the same or dual. `acting` reads the equations.
"""

import dataclasses
from collections.abc import Iterator
from fractions import Fraction

from llfc_jax.symmetry.beyond.exponents import Row, null_space
from llfc_jax.symmetry.terms import Unknown, atoms, find
from llfc_jax.symmetry.values import Value

Node = int
MATRICES = ("any", "orthogonal", "none")


@dataclasses.dataclass
class Freedom:
    """What a group may be besides permutations.

    Attributes:
        matrix: "any" invertible matrix, an "orthogonal" one, or "none".
        keeps_ones: whether the matrix, and its transpose, must keep the vector of ones.
        why: the equation that made the matrix no larger.
        why_ones: the equation that asks for the ones.
    """

    matrix: str = "any"
    keeps_ones: bool = False
    why: str = ""
    why_ones: str = ""


@dataclasses.dataclass(frozen=True)
class Exponents:
    """How one axis of a leaf takes part in a group's actions.

    Attributes:
        dual: it takes the inverse transpose of the matrix.
        scales: exponent of each dimension of the group's scales.
        signs: exponent (0 or 1) of each dimension of the group's signs.
    """

    dual: bool
    scales: tuple[Fraction, ...] = ()
    signs: tuple[int, ...] = ()


class Actions:
    """The unknown actions of all values, and the equations between them."""

    def __init__(self) -> None:
        self.freedom: dict[Unknown, Freedom] = {}
        self._is_square: dict[Node, bool] = {}
        self._number: dict[tuple[int, int, Unknown], Node] = {}
        self._atom: list[Unknown] = []
        self._above: list[Node] = []
        self._turned: list[bool] = []  # dual to the node above
        self._scales: list[Row] = []
        self._signs: list[Row] = []
        self._kept: list[Value] = []  # so that their identities stay taken

    # -- nodes -----------------------------------------------------------------------------------

    def node(self, value: Value, axis: int, atom: Unknown) -> Node:
        """Returns the node of a group along an axis of a value."""
        key = (id(value), axis, atom)
        if key not in self._number:
            self._number[key] = len(self._atom)
            self._kept.append(value)
            self._atom.append(atom)
            self._above.append(len(self._above))
            self._turned.append(False)
            self.freedom.setdefault(atom, Freedom())
        return self._number[key]

    def nodes(self, value: Value) -> Iterator[Node]:
        """Yields the nodes of all groups of a value."""
        for i, term in enumerate(value.axes):
            for atom in dict.fromkeys(atoms(term)):
                yield self.node(value, i, atom)

    def root(self, node: Node) -> tuple[Node, bool]:
        """Returns the node that stands for this one, and whether this one is dual to it."""
        turned = False
        while self._above[node] != node:
            turned ^= self._turned[node]
            node = self._above[node]
        return node, turned

    # -- what equations say ----------------------------------------------------------------------

    def join(self, first: Node, second: Node, why: str, *, dual: bool = False) -> None:
        """Two nodes take the same action, or one takes the other's dual."""
        (p, turned), (q, also) = self.root(first), self.root(second)
        opposite = turned ^ also ^ dual
        if p != q:
            self._above[max(p, q)], self._turned[max(p, q)] = min(p, q), opposite
        elif opposite:
            self.limit(first, "orthogonal", why)
            self._scales.append({p: 1})

    def linear(self, node: Node, made: Node, why: str) -> None:
        """The result takes the action of the operand; squares stay squares."""
        self.join(node, made, why)
        is_square = self.is_square(node)
        if self._is_square.setdefault(made, is_square) != is_square:
            self.limit(made, "none", why)  # squares beside numbers that are none

    def square(self, made: Node) -> None:
        """The result holds squares: their sum is kept by orthogonal matrices."""
        self._is_square[made] = True

    def is_square(self, node: Node) -> bool:
        """Whether a value holds squares of numbers that a matrix may act on."""
        return self._is_square.get(node, False)

    def limit(self, node: Node, matrix: str, why: str) -> None:
        """The group's matrix is no larger than this."""
        freedom = self.freedom[self._atom[node]]
        if MATRICES.index(matrix) > MATRICES.index(freedom.matrix):
            freedom.matrix, freedom.why = matrix, why

    def keep_ones(self, node: Node, why: str) -> None:
        """A number that is the same for all units is added here, or all units are summed up."""
        freedom = self.freedom[self._atom[node]]
        if not freedom.keeps_ones:
            freedom.keeps_ones, freedom.why_ones = True, why
        self.relate_scales({node: 1})
        self.relate_signs({node: 1})

    def relate_scales(self, row: Row) -> None:
        """The exponents of scales, times these coefficients, add up to zero."""
        self._scales.append(self._at_roots(row, dual=True))

    def relate_signs(self, row: Row) -> None:
        """The exponents of signs, times these coefficients, add up to an even number."""
        self._signs.append(self._at_roots(row, dual=False))

    def freeze(self, node: Node, why: str) -> None:
        """Nothing but permutations acts here."""
        self.limit(node, "none", why)
        self.relate_scales({node: 1})
        self.relate_signs({node: 1})

    def _at_roots(self, row: Row, *, dual: bool) -> Row:
        """The row in terms of roots: a dual node has the opposite exponent."""
        found: dict[int, Fraction] = {}
        for node, factor in row.items():
            root, turned = self.root(node)
            sign = -1 if turned and dual else 1
            found[root] = found.get(root, Fraction(0)) + sign * Fraction(factor)
        return found

    # -- solutions -------------------------------------------------------------------------------

    def solve(self, leaves: list[Value]) -> dict[Unknown, dict[tuple[int, int], Exponents]]:
        """Returns, for each group, how it acts on (leaf's number, axis).

        Dimensions of scales or signs that show on no leaf are left out.
        """
        places: dict[Unknown, dict[tuple[int, int], Node]] = {}
        for number, value in enumerate(leaves):
            for i, term in enumerate(value.axes):
                for atom in dict.fromkeys(atoms(term)):
                    places.setdefault(atom, {})[number, i] = self.node(value, i, atom)
        own: dict[Unknown, list[Node]] = {}
        for node, atom in enumerate(self._atom):
            if self._above[node] == node:
                own.setdefault(atom, []).append(node)
        scales = self._dimensions(self._scales, own, places, None)
        signs = self._dimensions(self._signs, own, places, 2)
        solved: dict[Unknown, dict[tuple[int, int], Exponents]] = {}
        for atom, held in places.items():
            base: bool | None = None
            for place, node in held.items():
                root, turned = self.root(node)
                # The first leaf of a network carries the group itself.
                base = turned if base is None else base
                factor = -1 if turned else 1
                solved.setdefault(atom, {})[place] = Exponents(
                    turned ^ base,
                    tuple(factor * v.get(root, Fraction(0)) for v in scales[atom]),
                    tuple(int(v.get(root, 0)) for v in signs[atom]),
                )
        return solved

    def _dimensions(
        self,
        rows: list[Row],
        own: dict[Unknown, list[Node]],
        places: dict[Unknown, dict[tuple[int, int], Node]],
        modulus: int | None,
    ) -> dict[Unknown, list[dict[int, Fraction]]]:
        """For each group, a basis of its exponents by root."""
        by_atom: dict[Unknown, list[Row]] = {}
        for row in rows:
            # Nodes may have been joined since.
            now = self._at_roots(row, dual=modulus is None)
            if now:
                by_atom.setdefault(self._atom[next(iter(now))], []).append(now)
        found = {}
        for atom, held in places.items():
            roots = own[atom]
            index = {root: i for i, root in enumerate(roots)}
            mine = [{index[r]: c for r, c in row.items()} for row in by_atom.get(atom, [])]
            shown = {self.root(node)[0] for node in held.values()}
            basis = [
                {roots[i]: c for i, c in vector.items()}
                for vector in null_space(mine, len(roots), modulus)
            ]
            found[atom] = [v for v in basis if shown & v.keys()]
        return found


def group_atoms(value: Value, axis: int) -> list[Unknown]:
    """Returns the unknowns along an axis, each once."""
    return list(dict.fromkeys(atoms(find(value.axes[axis]))))
