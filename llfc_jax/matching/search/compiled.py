"""Coordinate ascent as one compiled loop: on accelerators, and inside `jit` and `vmap`.

See `plan` for the algorithm; `host` is its other driver.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from llfc_jax.matching.assignment.family import composite, solve_family
from llfc_jax.matching.assignment.solvers import Solver
from llfc_jax.matching.search.plan import PATCH_SHARE, Plan
from llfc_jax.matching.search.products import correction, move_gain
from llfc_jax.symmetry.axes import Index

T = TypeVar("T")

_PATCH = 256  # rows of a patch's products


class Products:
    """The blocks of a pair, as they lie: products read them in place, without copies."""

    xp: Any = jnp

    def __init__(
        self, plan: Plan, a: Mapping[int, jax.Array], b: Mapping[int, jax.Array], dtype: jnp.dtype
    ) -> None:
        self.plan, self.dtype = plan, dtype
        self._a, self._b = (
            [block.extract(jnp.asarray(side[leaf]).astype(dtype)) for leaf, block in plan.blocks]
            for side in (a, b)
        )
        self.constant = {name: jnp.zeros((n, n), dtype) for name, n in plan.size.items()}
        for edge in plan.constant:
            own = self._a[edge.block], self._b[edge.block]
            self.constant[edge.group] += multiply(*own, 1)

    def build(self, e: int, permutation: Index) -> Float[Array, "n n"]:
        """Returns an edge's scores, from nothing: [n, n]."""
        edge = self.plan.edges[e]
        moved = self._b[edge.block]
        for axis, group in edge.others:
            index = composite(self.plan.spec, permutation, group)
            moved = jnp.take(moved, index, axis=axis, mode="clip")
        return multiply(self._a[edge.block], moved, edge.axis)

    def mix(self, e: int, mixture: Index) -> Float[Array, "n n"]:
        """Returns an edge's scores with the other groups mixed by matrices: [n, n]."""
        edge = self.plan.edges[e]
        moved = self._b[edge.block]
        for axis, group in edge.others:
            mixed = jnp.tensordot(mixture[group], moved, (1, axis))
            moved = jnp.moveaxis(mixed, 0, axis)
        return multiply(self._a[edge.block], moved, edge.axis)

    def patch(
        self,
        e: int,
        now: Int[Array, " n"],
        seen: Int[Array, " n"],
        scores: Float[Array, "n n"],
    ) -> Float[Array, "n n"]:
        """Returns an edge's scores after its one other group went from `seen` to `now`: [n, n]."""
        edge = self.plan.edges[e]
        a, b, axis = self._a[edge.block], self._b[edge.block], edge.others[0][0]
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
            return scores + multiply(jnp.take(a, rows, axis=axis), change, edge.axis)

        return jax.lax.fori_loop(0, -(-count // chunk), add, scores)

    def overlap(self, permutation: Index | None) -> jax.Array:
        """Returns `sum <A, π(B)>`; None is the identity."""
        total = jnp.zeros((), self.dtype)
        for (_, block), a, moved in zip(self.plan.blocks, self._a, self._b, strict=True):
            for axis, group in enumerate(block.groups, 1):
                if permutation is not None:
                    index = composite(self.plan.spec, permutation, group)
                    moved = jnp.take(moved, index, axis=axis, mode="clip")
            total += jnp.vdot(a, moved)
        return total

    def size(self) -> jax.Array:
        """Returns `||A|| ||B||`."""
        squares = [sum((jnp.vdot(x, x) for x in side), 0.0) for side in (self._a, self._b)]
        return jnp.sqrt(jnp.asarray(squares[0])) * jnp.sqrt(jnp.asarray(squares[1]))

    def while_loop(self, running: Callable[[T], jax.Array], step: Callable[[T], T], state: T) -> T:
        """Returns the state after the last step."""
        return jax.lax.while_loop(running, step, state)


def multiply(a: Float[Array, "..."], b: Float[Array, "..."], axis: int) -> Float[Array, "n n"]:
    """Returns inner products over all axes but one: [n, n]."""
    summed = [i for i in range(a.ndim) if i != axis]
    return jax.lax.dot_general(a, b, ((summed, summed), ((), ())))


class _Family(NamedTuple):
    """A family's part of the carry."""

    permutation: Index  # its groups' part of the permutation
    prices: jax.Array  # of its last assignment, to start the next one near
    scores: list[jax.Array]  # of its edges, as of when each was last brought up to date
    seen: list[tuple[jax.Array, ...]]  # the other groups' indices at that time


class State(NamedTuple):
    """Carry of the loop."""

    families: list[_Family]
    dirty: Bool[Array, " families"]  # scores have changed since the last assignment
    gained: jax.Array  # sum of all gains
    history: Float[Array, " sweeps"]  # `gained` after each
    step: jax.Array  # visits looked at, solved or skipped
    sequence: jax.Array  # families in the order of this sweep

    @property
    def permutation(self) -> Index:
        """Index arrays of all groups."""
        return {name: p for family in self.families for name, p in family.permutation.items()}


class Ascent(NamedTuple):
    """The end of one ascent: the permutation, and what each sweep had gained in all."""

    permutation: Index
    gained: jax.Array
    sweeps: jax.Array


def ascend(
    key: jax.Array,
    products: Products,
    start: Index,
    dirty: Bool[Array, " families"],
    tolerance: jax.Array,
    max_sweeps: int,
    order: tuple[int, ...] | None,
    solver: Solver,
) -> Ascent:
    """Ascends from a permutation.

    Args:
        key: for the order of visits.
        products: of the pair.
        start: where to start.
        dirty: which families are left to solve there.
        tolerance: gain above which a move makes the neighbours be solved again.
        max_sweeps: most sweeps.
        order: numbers of the families to visit, instead of random sweeps until none gains.
        solver: for the assignments.
    """
    groups = len(products.plan.families)
    step = functools.partial(_step, key, products, tolerance, order is None, solver)

    def running(state: State) -> jax.Array:
        if order is not None:
            return state.step < len(order)
        return state.dirty.any() & (state.step < max_sweeps * groups)

    sweeps = max_sweeps if order is None else -(-len(order) // groups)
    sequence = jnp.arange(groups) if order is None else jnp.array(order)
    begun = _begin(products, start, dirty, sweeps, sequence)
    state = jax.lax.while_loop(running, step, begun)
    return Ascent(state.permutation, state.history, -(-state.step // groups))


def _step(
    key: jax.Array,
    products: Products,
    tolerance: jax.Array,
    is_random: bool,
    solver: Solver,
    state: State,
) -> State:
    """Visits one family: of random sweeps one that is due, of a given order the next."""
    groups = len(products.plan.families)
    sweep, place = state.step // groups, state.step % groups
    if is_random:
        draw = lambda: jax.random.permutation(jax.random.fold_in(key, sweep), groups)  # noqa: E731
        state = state._replace(sequence=jax.lax.cond(place == 0, draw, lambda: state.sequence))
    chosen = state.sequence[place if is_random else state.step]
    due = state.dirty if is_random else jnp.ones(groups, bool)
    for number in range(groups):
        is_due = (chosen == number) & due[number]
        state = _turn(products, solver, tolerance, number, is_due, state)
    history = state.history.at[sweep].set(state.gained)
    return state._replace(history=history, step=state.step + 1)


def _begin(
    products: Products,
    start: Index,
    dirty: Bool[Array, " families"],
    sweeps: int,
    sequence: Int[Array, " visits"],
) -> State:
    """Returns the state before the first visit."""
    return State(
        [_begin_family(products, start, i) for i in range(len(products.plan.families))],
        dirty=dirty,
        gained=jnp.zeros((), products.dtype),
        history=jnp.full(sweeps, jnp.nan, products.dtype),
        step=jnp.zeros((), jnp.int32),
        sequence=sequence,
    )


def _begin_family(products: Products, start: Index, number: int) -> _Family:
    """Returns a family at its start, with scores that were made from nothing yet."""
    plan, dtype = products.plan, products.dtype
    edges = [plan.edges[e] for e in plan.edges_of[number]]
    return _Family(
        {name: jnp.asarray(start[name], jnp.int32) for name in plan.members(number)},
        jnp.zeros(plan.size[plan.families[number][0]], dtype),
        [jnp.zeros((plan.size[edge.group],) * 2, dtype) for edge in edges],
        [tuple(jnp.full(plan.size[g], -1, jnp.int32) for _, g in edge.others) for edge in edges],
    )


def _turn(
    products: Products,
    solver: Solver,
    tolerance: jax.Array,
    number: int,
    due: jax.Array,
    state: State,
) -> State:
    """Visits a family if it is due."""
    plan, families = products.plan, state.families

    def go(carry: tuple[_Family, jax.Array]) -> tuple[_Family, jax.Array]:
        others = {n: p for f in families for n, p in f.permutation.items()}
        permutation = {**others, **carry[0].permutation}
        return _visit(products, solver, number, carry[0], permutation)

    family, gain = _when(due, go, (families[number], jnp.zeros((), products.dtype)))
    is_other = np.arange(len(families)) != number
    return state._replace(
        families=[family if f == number else x for f, x in enumerate(families)],
        dirty=state.dirty & (is_other | ~due) | plan.neighbours[number] & (gain > tolerance),
        gained=state.gained + jnp.maximum(gain, 0),
    )


def _visit(
    products: Products, solver: Solver, number: int, family: _Family, permutation: Index
) -> tuple[_Family, jax.Array]:
    """Returns a family after its assignment, and what that gained."""
    plan = products.plan
    members, own = plan.members(number), plan.edges_of[number]
    total = {name: products.constant[name] for name in members}
    scores, seen = [], []
    for e, old, before in zip(own, family.scores, family.seen, strict=True):
        fresh, now = _refresh(products, e, old, before, permutation)
        total[plan.edges[e].group] += fresh
        scores.append(fresh)
        seen.append(now)
    index, prices = solve_family(plan.spec, plan.families[number], total, family.prices, solver)
    moved = {**permutation, **index}
    gain = move_gain(plan, members, total, permutation, moved)
    for e, fresh in zip(own, scores, strict=True):
        if plan.is_own_neighbour(e):
            gain += correction(products, e, fresh, permutation, moved)
    kept = {name: jnp.where(gain > 0, p, family.permutation[name]) for name, p in index.items()}
    return _Family(kept, prices, scores, seen), jnp.asarray(gain, products.dtype)


def _refresh(
    products: Products,
    e: int,
    scores: Float[Array, "n n"],
    seen: tuple[jax.Array, ...],
    permutation: Index,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Returns an edge's scores and what they were made from, brought up to date."""
    plan = products.plan
    now = tuple(composite(plan.spec, permutation, g) for _, g in plan.edges[e].others)
    moved = jnp.stack([(p != q).sum() for p, q in zip(now, seen, strict=True)]).max()
    if plan.patches(e) and jax.default_backend() == "cpu":
        few = PATCH_SHARE * moved < len(now[0])
        patch = functools.partial(products.patch, e, now[0], seen[0])
        scores = _when(few & (moved > 0), patch, scores)
        moved = jnp.where(few, 0, moved)
    return _when(moved > 0, lambda _: products.build(e, permutation), scores), now


def _when(condition: jax.Array, change: Callable[[T], T], carry: T) -> T:
    """Returns `change(carry)` where the condition holds, else `carry`.

    A loop of at most one turn, because XLA updates a loop's carry in place but copies whatever
    passes through a conditional.
    """

    def turn(state: tuple[jax.Array, T]) -> tuple[jax.Array, T]:
        return jnp.zeros((), bool), change(state[1])

    return jax.lax.while_loop(lambda state: state[0], turn, (condition, carry))[1]
