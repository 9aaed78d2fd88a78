"""The plan of coordinate ascent on `sum <A, π(B)>`: what is known before any weight is seen.

The algorithm, for both of its drivers (`host` in NumPy, `compiled` in JAX):

- With every other group held, the best permutation of one group is a linear assignment of its
  scores: entry (i, j) is the inner product of all weights of A's unit i with those of B's unit j.
- The scores of a group are a sum of *edges*: one for each block of weights and group along it. An
  edge stays as it is until a group along its block's other axes moves; then it is built anew, or
  only what moved is added to it.
- A *family*, a group with the groups inside it, is solved in one visit. Sweep s visits the families
  in random order (`visits.visit_order`), and skips those whose scores have not changed since their
  last assignment. The ascent ends when no family is left to solve.
"""

import functools
import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from llfc_jax.matching.assignment.family import families, units_in_all
from llfc_jax.symmetry.blocks import Block, blocks
from llfc_jax.symmetry.spec import PermutationSpec

PATCH_FROM = 128
"""Units on an edge's other axis from which only the moved ones are added, on a CPU. On an
accelerator a whole product is faster than a loop of small ones."""
PATCH_SHARE = 4
"""From a quarter of moved units on the whole product is the cheaper one."""


class Edge(NamedTuple):
    """The scores that one block gives to the units of one of its groups.

    Attributes:
        block: number of the block.
        axis: which of its axes (axis 0 stays fixed).
        group: the group along that axis.
        others: (axis, group) of its other axes: their permutations enter the scores.
        scalars: number of entries of the block.
    """

    block: int
    axis: int
    group: str
    others: tuple[tuple[int, str], ...]
    scalars: int


class Plan(NamedTuple):
    """A spec cut into families, blocks and edges.

    Attributes:
        spec: the spec.
        families: each group that is inside no other, with the groups inside it.
        family_of: number of the family of each group.
        size: `units_in_all` of each group.
        blocks: (leaf number, block) of every block.
        constant: edges whose scores depend on no other group: computed once.
        edges: all other edges.
        edges_of: numbers of the edges that are scores of each family.
        neighbours: whether the scores of family j depend on family i: bool [i, j].
    """

    spec: PermutationSpec
    families: tuple[tuple[str, tuple[str, ...]], ...]
    family_of: Mapping[str, int]
    size: Mapping[str, int]
    blocks: tuple[tuple[int, Block], ...]
    constant: tuple[Edge, ...]
    edges: tuple[Edge, ...]
    edges_of: tuple[tuple[int, ...], ...]
    neighbours: Bool[np.ndarray, "families families"]

    def members(self, family: int) -> tuple[str, ...]:
        """Returns the groups of a family."""
        root, inside = self.families[family]
        return (root, *inside)

    def patches(self, e: int) -> bool:
        """Returns whether adding only what moved is worth while for an edge, on a CPU."""
        others = self.edges[e].others
        return len(others) == 1 and self.size[others[0][1]] >= PATCH_FROM

    def operations(self) -> float:
        """Returns the number of operations of building every edge once."""
        return sum(2.0 * edge.scalars * self.size[edge.group] for edge in self.edges)

    def is_own_neighbour(self, e: int) -> bool:
        """Returns whether an edge's scores depend on the family that they are for."""
        edge = self.edges[e]
        return any(self.family_of[g] == self.family_of[edge.group] for _, g in edge.others)


@functools.lru_cache(maxsize=64)
def make_plan(spec: PermutationSpec, leaves: frozenset[str]) -> Plan:
    """Cuts the leaves that count, given by path, into blocks and edges."""
    found = families(spec)
    cut: list[tuple[int, Block]] = []
    constant, edges = [], []
    for leaf, (path, axes) in enumerate(spec.leaves):
        scalars = math.prod(axis.size for axis in axes)
        for block in blocks(axes, spec.parents) if path in leaves and scalars else ():
            for axis, group in enumerate(block.groups, 1):
                others = tuple((i, g) for i, g in enumerate(block.groups, 1) if i != axis)
                kind = edges if others else constant
                kind.append(Edge(len(cut), axis, group, others, scalars))
            cut.append((leaf, block))
    family_of = {name: i for i, (root, inside) in enumerate(found) for name in (root, *inside)}
    size = {name: units_in_all(spec, name) for name in spec.group}
    edges_of: list[list[int]] = [[] for _ in found]
    neighbours = np.zeros((len(found), len(found)), bool)
    for e, edge in enumerate(edges):
        edges_of[family_of[edge.group]].append(e)
        for _, group in edge.others:
            neighbours[family_of[group], family_of[edge.group]] = True
    return Plan(
        spec, found, family_of, size, tuple(cut), tuple(constant), tuple(edges),
        tuple(map(tuple, edges_of)), neighbours,
    )  # fmt: skip


def unsettled(plan: Plan, known: Collection[int]) -> Bool[np.ndarray, " families"]:
    """Returns the families left to solve after the anchored start: those with edges not known."""
    left = np.zeros(len(plan.families), bool)
    for e, edge in enumerate(plan.edges):
        left[plan.family_of[edge.group]] |= e not in known
    return left


def anchor_order(plan: Plan) -> list[tuple[int, list[int]]]:
    """Returns the families in the order in which the anchored start settles them.

    Next is always the family with the most scalars in blocks whose other axes are fixed or
    settled.

    Returns:
        (number of the family, numbers of its edges that are known by then) of each family.
    """
    settled: set[str] = set()
    order: list[tuple[int, list[int]]] = []
    left = list(range(len(plan.families)))
    while left:
        known = {
            f: [
                e
                for e in plan.edges_of[f]
                if settled.issuperset(g for _, g in plan.edges[e].others)
            ]
            for f in left
        }
        scalars = {f: sum(plan.edges[e].scalars for e in known[f]) for f in left}
        for edge in plan.constant:
            if plan.family_of[edge.group] in scalars:
                scalars[plan.family_of[edge.group]] += edge.scalars
        best = max(left, key=lambda f: scalars[f])  # the first of those with equally many
        order.append((best, known[best]))
        settled.update(plan.members(best))
        left.remove(best)
    return order
