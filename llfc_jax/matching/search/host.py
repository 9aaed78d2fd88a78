"""Coordinate ascent on the host: the plan driven from Python over NumPy and SciPy.

Nothing is compiled, so that a cold start costs what the work costs. See `plan` for the algorithm.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
import threadpoolctl

from llfc_jax.matching.assignment.family import composite, solve_family
from llfc_jax.matching.placement import host_array
from llfc_jax.matching.search.plan import PATCH_SHARE, Plan, unsettled
from llfc_jax.matching.search.products import correction, move_gain
from llfc_jax.matching.search.visits import visit_order
from llfc_jax.symmetry.blocks import Block

T = TypeVar("T")
HostIndex = dict[str, np.ndarray]

_SMALL = 2e9
"""Products of at most so many operations run on one thread: a second one only adds waiting."""


class Products:
    """The blocks of a pair, and the products that edges are made of.

    Blocks lie so that every product is one call of BLAS: [fixed, others..., group], except where a
    matrix needs no other layout than the one it has.
    """

    xp: Any = np

    def __init__(
        self, plan: Plan, a: Mapping[int, Any], b: Mapping[int, Any], dtype: np.dtype
    ) -> None:
        self.plan, self.dtype = plan, dtype
        self._a, self._b = (
            [_contiguous(block, host_array(side[leaf], dtype)) for leaf, block in plan.blocks]
            for side in (a, b)
        )
        self._sides = [self._lay(edge.block, edge.axis) for edge in plan.edges]
        self.constant = {name: np.zeros((n, n), dtype) for name, n in plan.size.items()}
        for edge in plan.constant:
            a_side, b_side, axis = self._lay(edge.block, edge.axis)
            self.constant[edge.group] += _product(a_side, b_side, axis)

    def _lay(self, block: int, axis: int) -> tuple[np.ndarray, np.ndarray, int]:
        """A block of both modes with the edge's axis where `_product` wants it, and its number."""
        a, b = self._a[block], self._b[block]
        if axis == a.ndim - 1 or (a.ndim == 3 and a.shape[0] == 1):
            return a, b, axis
        a, b = (np.ascontiguousarray(np.moveaxis(side, axis, -1)) for side in (a, b))
        return a, b, a.ndim - 1

    def build(self, e: int, permutation: HostIndex) -> np.ndarray:
        """Returns an edge's scores, from nothing: [n, n]."""
        a, moved, axis = self._sides[e]
        for other, group in self._others(e):
            index = composite(self.plan.spec, permutation, group)
            moved = moved.take(index, axis=other)
        return _product(a, moved, axis)

    def mix(self, e: int, mixture: HostIndex) -> np.ndarray:
        """Returns an edge's scores with the other groups mixed by matrices: [n, n]."""
        a, moved, axis = self._sides[e]
        for other, group in self._others(e):
            mixed = np.tensordot(mixture[group], moved, (1, other))
            moved = np.moveaxis(mixed, 0, other)
        return _product(a, moved, axis)

    def patch(self, e: int, now: np.ndarray, seen: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Returns an edge's scores after its one other group went from `seen` to `now`: [n, n]."""
        a, b, axis = self._sides[e]
        other, _ = self._others(e)[0]
        rows = np.flatnonzero(now != seen)
        change = b.take(now[rows], axis=other) - b.take(seen[rows], axis=other)
        return scores + _product(a.take(rows, axis=other), change, axis)

    def _others(self, e: int) -> tuple[tuple[int, str], ...]:
        """(axis, group) of an edge's other axes, as its block lies here."""
        edge = self.plan.edges[e]
        if self._sides[e][2] == edge.axis:
            return edge.others
        return tuple((axis - (axis > edge.axis), group) for axis, group in edge.others)

    def overlap(self, permutation: HostIndex | None) -> float:
        """Returns `sum <A, π(B)>`; None is the identity."""
        total = 0.0
        for (_, block), a, moved in zip(self.plan.blocks, self._a, self._b, strict=True):
            for axis, group in enumerate(block.groups, 1):
                if permutation is not None:
                    index = composite(self.plan.spec, permutation, group)
                    moved = moved.take(index, axis=axis)
            total += float(np.vdot(a, moved))
        return total

    def size(self) -> float:
        """Returns `||A|| ||B||`."""
        squares = [sum(float(np.vdot(x, x)) for x in side) for side in (self._a, self._b)]
        return float(np.sqrt(squares[0] * squares[1]))

    def while_loop(self, running: Callable[[T], bool], step: Callable[[T], T], state: T) -> T:
        """Returns the state after the last step."""
        while running(state):
            state = step(state)
        return state


def _contiguous(block: Block, array: Any) -> np.ndarray:
    return np.ascontiguousarray(block.extract(array))


def _product(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    """Inner products over all axes but one, the last or the first of a matrix: [n, n]."""
    n = a.shape[axis]
    if axis == a.ndim - 1:
        return a.reshape(-1, n).T @ b.reshape(-1, n)
    return a.reshape(n, -1) @ b.reshape(n, -1).T


@dataclasses.dataclass
class _Family:
    """A family's scores as of its last visit."""

    prices: np.ndarray
    scores: dict[int, np.ndarray]  # of each of its edges
    seen: dict[int, list[np.ndarray]]  # the other groups' indices that they were made from


@dataclasses.dataclass(frozen=True)
class Ascent:
    """The end of one ascent: the permutation, and what each sweep had gained in all."""

    permutation: HostIndex
    gained: np.ndarray
    sweeps: int


def ascend(
    key: jax.Array,
    products: Products,
    start: HostIndex,
    known: dict[int, np.ndarray] | None,
    tolerance: float,
    max_sweeps: int,
    order: tuple[int, ...] | None,
) -> Ascent:
    """Ascends from a permutation.

    Args:
        key: for the order of visits.
        products: of the pair.
        start: where to start.
        known: scores of edges at the start, if it is the anchored one.
        tolerance: gain above which a move makes the neighbours be solved again.
        max_sweeps: most sweeps.
        order: numbers of the families to visit, instead of random sweeps until none gains.
    """
    plan = products.plan
    families = [
        _Family(np.zeros(plan.size[root], products.dtype), {}, {}) for root, _ in plan.families
    ]
    permutation, gained, history = dict(start), 0.0, []
    dirty = np.ones(len(families), bool)
    if known is not None:
        dirty = unsettled(plan, known)
        for e, scores in known.items():
            family = families[plan.family_of[plan.edges[e].group]]
            family.scores[e], family.seen[e] = scores, _indices(plan, e, start)
    for step, number in enumerate(_visits(key, len(families), max_sweeps, order)):
        if order is None and not dirty.any():
            break
        if step % len(families) == 0:
            history.append(gained)
        if order is None and not dirty[number]:
            continue
        found, gain = _visit(products, number, families[number], permutation)
        dirty[number] = False
        if gain > 0:
            permutation |= found
            gained += gain
        if gain > tolerance:
            dirty |= plan.neighbours[number]
        history[-1] = gained
    return Ascent(permutation, np.array(history or [0.0]), len(history))


def _visits(
    key: jax.Array, families: int, max_sweeps: int, order: tuple[int, ...] | None
) -> Iterator[int]:
    if order is not None:
        yield from order
        return
    for sweep in range(max_sweeps):
        yield from visit_order(key, sweep, families)


def _visit(
    products: Products, number: int, family: _Family, permutation: HostIndex
) -> tuple[HostIndex, float]:
    """Returns a family's best permutation with all others held, and what it gains."""
    plan = products.plan
    members, own = plan.members(number), plan.edges_of[number]
    total = {name: products.constant[name].copy() for name in members}
    for e in own:
        _refresh(products, e, family, permutation)
        total[plan.edges[e].group] += family.scores[e]
    index, family.prices = solve_family(plan.spec, plan.families[number], total, family.prices)
    moved = {**permutation, **index}
    gain = move_gain(plan, members, total, permutation, moved)
    for e in filter(plan.is_own_neighbour, own):
        gain += correction(products, e, family.scores[e], permutation, moved)
    return index, float(gain)


def _refresh(products: Products, e: int, family: _Family, permutation: HostIndex) -> None:
    """Brings an edge's scores up to date."""
    plan = products.plan
    now = _indices(plan, e, permutation)
    seen = family.seen.get(e)
    family.seen[e] = now
    if seen is None:
        family.scores[e] = products.build(e, permutation)
        return
    moved = max(np.count_nonzero(p != q) for p, q in zip(now, seen, strict=True))
    if not moved:
        return
    if plan.patches(e) and PATCH_SHARE * moved < len(now[0]):
        family.scores[e] = products.patch(e, now[0], seen[0], family.scores[e])
    else:
        family.scores[e] = products.build(e, permutation)


def _indices(plan: Plan, e: int, permutation: HostIndex) -> list[np.ndarray]:
    """The indices of the other groups on which an edge depends."""
    return [composite(plan.spec, permutation, group) for _, group in plan.edges[e].others]


def one_thread(plan: Plan) -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which BLAS uses one thread, if no product is large."""
    largest = max(
        (2.0 * edge.scalars * plan.size[edge.group] for edge in (*plan.constant, *plan.edges)),
        default=0.0,
    )
    if largest > _SMALL:
        return contextlib.nullcontext()
    return _thread_pools().limit(limits=1, user_api="blas")


@functools.cache
def _thread_pools() -> threadpoolctl.ThreadpoolController:
    """The libraries of this process that have threads; finding them takes milliseconds."""
    return threadpoolctl.ThreadpoolController()
