"""Weight matching over a network's symmetry: coordinate ascent in closed forms, in NumPy.

Maximises `sum over leaves <A, g B>` over permutations and orthogonal matrices g: with all other
groups held, a permutation is a linear assignment, an orthogonal matrix Procrustes' problem (the
polar factor of the scores), and heads are assigned by the nuclear norms of their scores. Invertible
matrices and scales come in by balancing both networks first (`balance`).

The start is *anchored*: first the family with most weights whose other axes are fixed or settled,
by those weights alone, and so on.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.matching.assignment.family import families, units_in_all
from llfc_jax.matching.beyond.families import (
    Family,
    Found,
    Progress,
    as_element,
    is_plain,
    solve,
)
from llfc_jax.matching.problem import trainable
from llfc_jax.symmetry.axes import permute, units
from llfc_jax.symmetry.beyond.element import Element
from llfc_jax.symmetry.beyond.spec import SymmetrySpec
from llfc_jax.symmetry.beyond.transform import Change, transform
from llfc_jax.symmetry.blocks import Block, blocks
from llfc_jax.types import AnyArray, Variables

SMALLEST = 1e-12


class Ascent:
    """Coordinate ascent on two networks in NumPy.

    Attributes:
        spec: what may be done.
        a: leaves of the network that stays.
        b: leaves of the network that is moved, as they lie now.
        progress: the element that brought B there.
        history: the objective after each sweep.
    """

    def __init__(
        self, spec: SymmetrySpec, a: Sequence[Any], b: Sequence[Any], counted: frozenset[str]
    ) -> None:
        self.spec = spec
        self.a, self.b = ([_wide(leaf) for leaf in side] for side in (a, b))
        self.progress = Progress(spec)
        self.history: list[float] = []
        layout, self._parents = spec.permutations.leaves, spec.permutations.parents
        self._counted = [i for i, (path, _) in enumerate(layout) if path in counted]
        self._blocks = {i: blocks(layout[i][1], self._parents) for i in self._counted}
        self.families: list[Family] = list(families(spec.permutations))
        self._groups = [{u.group for axis in axes for u in units(axis)} for _, axes in layout]

    def run(self, sweeps: int, tolerance: float, *, anchored: bool) -> Element:
        """Returns the element where no family gains more than a share of the norms any more."""
        if anchored:
            self._settle()
        scale = float(
            np.prod(
                [
                    np.sqrt(sum(float(np.vdot(side[i], side[i])) for i in self._counted))
                    for side in (self.a, self.b)
                ]
            )
        )
        self.history.append(self.objective())
        for _ in range(sweeps):
            for family in self.families:
                self._move(family, solve(self.spec, family, self.all_scores(family)))
            self.history.append(self.objective())
            if self.history[-1] - self.history[-2] <= tolerance * scale:
                break
        return self.progress.element()

    def objective(self) -> float:
        """Returns the sum over the counted leaves of `<A, g B>`."""
        return sum(float(np.vdot(self.a[i], self.b[i])) for i in self._counted)

    def scores(self, family: Family, counted: Sequence[int]) -> dict[str, np.ndarray]:
        """Returns [n, n] per group: products of A's and B's units over leaves, as they lie now."""
        names = (family[0], *family[1])
        sizes = {name: units_in_all(self.spec.permutations, name) for name in names}
        total = {name: np.zeros((n, n), np.float32) for name, n in sizes.items()}
        for i in counted:
            for block in self._blocks[i] if self._groups[i] & set(names) else ():
                for name in dict.fromkeys(block.groups):
                    if name in total:
                        a, b = (block_rows(block, name, side[i]) for side in (self.a, self.b))
                        total[name] += a @ b.T
        return total

    def all_scores(self, family: Family) -> dict[str, np.ndarray]:
        """Returns `scores` over all leaves that count."""
        return self.scores(family, self._counted)

    def _settle(self) -> None:
        """Solves each family once, by what is settled before."""
        settled: set[str] = set()
        left = list(self.families)
        while left:
            known = {family: self._known(family, settled) for family in left}
            family = max(left, key=lambda f: sum(self.a[i].size for i in known[f]))
            self._move(family, solve(self.spec, family, self.scores(family, known[family])))
            settled |= {family[0], *family[1]}
            left.remove(family)

    def _known(self, family: Family, settled: set[str]) -> list[int]:
        """The leaves of a family whose other groups are settled."""
        own = {family[0], *family[1]}
        return [
            i for i in self._counted if self._groups[i] & own and self._groups[i] <= own | settled
        ]

    def _move(self, family: Family, found: Found) -> None:
        """Moves B's units by what was found."""
        element = as_element(self.spec, found)
        self.progress.take(family, found)
        names = {family[0], *family[1]}
        for i, (_, axes) in enumerate(self.spec.permutations.leaves):
            if not self._groups[i] & names:
                continue
            changes = {
                (k, name): Change(found.matrices[name], is_matrix=True)
                for k, axis in enumerate(axes)
                for name in {u.group for u in units(axis)} & found.matrices.keys()
            }
            moved = transform(self.b[i], axes, changes, self._parents)
            self.b[i] = permute(moved, axes, element.permutation, self._parents)


def _wide(leaf: AnyArray) -> Any:
    """A leaf of real numbers in float32; others, as counters and keys, as they are."""
    real = jnp.issubdtype(leaf.dtype, jnp.floating)
    return np.asarray(leaf, np.float32) if real else leaf


def block_rows(block: Block, group: str, leaf: AnyArray) -> np.ndarray:
    """Returns a group's units on a block of a leaf in NumPy, flattened: [n, all else]."""
    whole = np.moveaxis(np.asarray(block.extract(leaf)), block.groups.index(group) + 1, 0)
    return whole.reshape(len(whole), -1)


def unit_cosines(spec: SymmetrySpec, a: Variables, b: Variables) -> dict[str, np.ndarray]:
    """Returns the cosines of A's and B's units by all their weights, [n, n] for each group.

    Of the groups that may be permuted only, and that have no others inside: heads are told apart
    by what stands in them.
    """
    counted = trainable(spec.permutations, a)
    between, of_a, of_b = (
        Ascent(spec, jax.tree.leaves(p), jax.tree.leaves(q), counted)
        for p, q in ((a, b), (a, a), (b, b))
    )
    found = {}
    for family in between.families:
        name = family[0]
        if is_plain(spec, family):
            cross, own, other = (x.all_scores(family)[name] for x in (between, of_a, of_b))
            norms = np.sqrt(np.outer(np.diagonal(own), np.diagonal(other)))
            found[name] = cross / np.maximum(norms, SMALLEST)
    return found
