"""The scores of coordinate ascent as sums of edges: one for each block of weights and group on it.

An edge's scores depend on the permutations along the other axes of its block. `Products` builds
them anew, or adds to them only what moved.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.matching.assignment.family import composite, families, units_in_all
from llfc_jax.symmetry.axes import Index
from llfc_jax.symmetry.blocks import Block, blocks
from llfc_jax.symmetry.spec import PermutationSpec

PATCH_FROM = 128
"""Units on an edge's other axis from which only the moved ones are added, on a CPU. On an
accelerator a whole product is faster than a loop of small ones."""
_PATCH = 256  # rows of a patch's products


class Edge(NamedTuple):
    """The scores that one block gives to the units of one of its groups.

    Attributes:
        block: number of the block.
        axis: which of its axes (axis 0 stays fixed).
        group: the group along that axis.
        others: (axis, group) of its other axes: their permutations enter the scores.
    """

    block: int
    axis: int
    group: str
    others: tuple[tuple[int, str], ...]


class Plan(NamedTuple):
    """What the ascent knows about a spec before it sees weights.

    Attributes:
        spec: the spec.
        families: each group that is inside no other, with the groups inside it.
        family_of: number of the family of each group.
        size: `units_in_all` of each group.
        blocks: (leaf number, block) of every block.
        constant: edges whose scores depend on no other group: computed once.
        edges: all other edges.
    """

    spec: PermutationSpec
    families: tuple[tuple[str, tuple[str, ...]], ...]
    family_of: dict[str, int]
    size: dict[str, int]
    blocks: tuple[tuple[int, Block], ...]
    constant: tuple[Edge, ...]
    edges: tuple[Edge, ...]

    def members(self, family: int) -> tuple[str, ...]:
        """The groups of a family."""
        root, inside = self.families[family]
        return (root, *inside)

    def own(self, family: int) -> list[int]:
        """Numbers of the edges that are scores of a family."""
        return [e for e, edge in enumerate(self.edges) if self.family_of[edge.group] == family]

    def neighbours(self, family: int) -> np.ndarray:
        """Whether each family's scores depend on this one: bool [families]."""
        near = np.zeros(len(self.families), bool)
        for edge in self.edges:
            if any(self.family_of[group] == family for _, group in edge.others):
                near[self.family_of[edge.group]] = True
        return near


@functools.cache
def make_plan(spec: PermutationSpec, leaves: frozenset[str]) -> Plan:
    """Cut the leaves that count, given by path, into blocks and edges."""
    found = families(spec)
    cut: list[tuple[int, Block]] = []
    constant, edges = [], []
    for leaf, (path, axes) in enumerate(spec.leaves):
        for block in blocks(axes, spec.parents) if path in leaves else ():
            for axis, group in enumerate(block.groups, 1):
                others = tuple((i, g) for i, g in enumerate(block.groups, 1) if i != axis)
                (edges if others else constant).append(Edge(len(cut), axis, group, others))
            cut.append((leaf, block))
    family_of = {name: i for i, (root, inside) in enumerate(found) for name in (root, *inside)}
    size = {name: units_in_all(spec, name) for name in spec.group}
    return Plan(spec, found, family_of, size, tuple(cut), tuple(constant), tuple(edges))


class Products:
    """The blocks of a pair, as they lie: products read them in place, without copies."""

    def __init__(self, plan: Plan, a: list[jax.Array], b: list[jax.Array]) -> None:
        self.plan = plan
        self.a = [block.extract(jnp.asarray(a[leaf])) for leaf, block in plan.blocks]
        self.b = [block.extract(jnp.asarray(b[leaf])) for leaf, block in plan.blocks]
        self.constant = {name: jnp.zeros((n, n)) for name, n in plan.size.items()}
        for edge in plan.constant:
            own = self.a[edge.block], self.b[edge.block]
            self.constant[edge.group] += _product(*own, 1)

    def build(self, e: int, permutation: Index) -> jax.Array:
        """An edge's scores, from nothing: [n, n]."""
        edge = self.plan.edges[e]
        moved = self.b[edge.block]
        for axis, group in edge.others:
            index = composite(self.plan.spec, permutation, group)
            moved = jnp.take(moved, index, axis=axis, mode="clip")
        return _product(self.a[edge.block], moved, edge.axis)

    def patch(self, e: int, now: jax.Array, seen: jax.Array, scores: jax.Array) -> jax.Array:
        """An edge's scores after its one other group went from `seen` to `now`: [n, n]."""
        edge = self.plan.edges[e]
        a, b, axis = self.a[edge.block], self.b[edge.block], edge.others[0][0]
        chunk = max(8, _PATCH // b.shape[0])
        moved = now != seen
        order = jnp.pad(jnp.argsort(~moved), (0, -len(now) % chunk))
        count = moved.sum()

        def add(t: jax.Array, scores: jax.Array) -> jax.Array:
            rows = jax.lax.dynamic_slice_in_dim(order, t * chunk, chunk)
            change = jnp.take(b, now[rows], axis=axis) - jnp.take(b, seen[rows], axis=axis)
            valid = t * chunk + jnp.arange(chunk) < count
            change = jnp.where(
                jnp.expand_dims(valid, [i for i in range(3) if i != axis]), change, 0
            )
            return scores + _product(jnp.take(a, rows, axis=axis), change, edge.axis)

        return jax.lax.fori_loop(0, -(-count // chunk), add, scores)


def _product(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    """Inner products over all axes but one: [n, n]."""
    summed = [i for i in range(a.ndim) if i != axis]
    return jax.lax.dot_general(a, b, ((summed, summed), ((), ())))


def patches(plan: Plan, e: int) -> bool:
    """Whether an edge is worth patching."""
    edge = plan.edges[e]
    large = len(edge.others) == 1 and plan.size[edge.others[0][1]] >= PATCH_FROM
    return large and jax.default_backend() == "cpu"


def overlap(plan: Plan, a: list[Any], b: list[Any], permutation: Index) -> jax.Array:
    """`sum <A, π(B)>` over the blocks of a plan, for one permutation."""
    total = jnp.zeros(())
    for leaf, block in plan.blocks:
        moved = block.extract(jnp.asarray(b[leaf]))
        for axis, group in enumerate(block.groups, 1):
            index = composite(plan.spec, permutation, group)
            moved = jnp.take(moved, index, axis=axis, mode="clip")
        total += jnp.vdot(block.extract(jnp.asarray(a[leaf])), moved)
    return total
