"""Coordinate ascent on `sum <A, π(B)>` over all groups, as one compiled loop.

With every other group held, the best permutation of one group is a linear assignment of its
scores: entry (i, j) is the inner product of all weights of A's unit i with those of B's unit j.
Scores are sums of `edges`. An edge stays as it is until a group on its other axes moves; then only
what moved is added to it. A group is solved again only after its scores have changed.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.matching.assignment.family import composite, solve_family, value_of
from llfc_jax.matching.assignment.solvers import Solver
from llfc_jax.matching.search.edges import Plan, Products, patches
from llfc_jax.symmetry.axes import Index

T = TypeVar("T")


class Family(NamedTuple):
    """A family's part of the carry; arrays have one leading entry per start."""

    permutation: Index  # its groups' part of the permutation
    prices: jax.Array  # of its last assignment, to start the next one near
    scores: list[jax.Array]  # of its edges, as of when each was last brought up to date
    seen: list[tuple[jax.Array, ...]]  # the other groups' indices at that time


class State(NamedTuple):
    """Carry of the loop; arrays have one leading entry per start."""

    families: list[Family]
    dirty: jax.Array  # [starts, families]: scores have changed since the last assignment
    gained: jax.Array  # [starts]: sum of all gains
    history: jax.Array  # [starts, sweeps]: `gained` after each
    step: jax.Array  # visits looked at, solved or skipped
    solved: jax.Array  # assignments solved

    @property
    def permutation(self) -> Index:
        """Index arrays of all groups."""
        return {name: p for family in self.families for name, p in family.permutation.items()}


def ascend(
    key: jax.Array,
    plan: Plan,
    a: list[jax.Array],
    b: list[jax.Array],
    start: Index,
    tolerance: jax.Array,
    max_sweeps: int,
    solver: Solver = "auto",
    order: tuple[int, ...] | None = None,
) -> State:
    """Ascend from several starts at once.

    Args:
        key: sweep s visits the families in the order
            `jax.random.permutation(jax.random.fold_in(key, s), families)`.
        plan: `make_plan(spec, leaves)`.
        a: A's leaves, in tree order.
        b: B's leaves.
        start: permutations, each with a leading axis of starts.
        tolerance: gain above which a move makes the neighbours be solved again.
        max_sweeps: most sweeps.
        solver: for the assignments.
        order: numbers of the families to visit, instead of random sweeps until none gains.
    """
    weights, groups = Products(plan, a, b), len(plan.families)
    starts = next(iter(start.values())).shape[0]

    def refresh(
        e: int, scores: jax.Array, seen: tuple[jax.Array, ...], permutation: Index
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """An edge's scores and what they were made from, brought up to date."""
        now = tuple(composite(plan.spec, permutation, g) for _, g in plan.edges[e].others)
        moved = jnp.stack([(p != q).sum(1).max() for p, q in zip(now, seen, strict=True)]).max()
        build = jax.vmap(functools.partial(weights.build, e))
        if patches(plan, e):
            # Above a quarter the whole product is the cheaper one.
            few = 4 * moved < now[0].shape[1]
            patch = jax.vmap(functools.partial(weights.patch, e))
            scores = _when(few & (moved > 0), lambda s: patch(now[0], seen[0], s), scores)
            moved = jnp.where(few, 0, moved)
        return _when(moved > 0, lambda _: build(permutation), scores), now

    def visit(number: int, state: State) -> tuple[Family, jax.Array]:
        """A family after its assignment, and what that gained."""
        family, permutation = state.families[number], state.permutation
        members, own = plan.members(number), plan.own(number)
        fresh = [
            refresh(e, s, q, permutation)
            for e, s, q in zip(own, family.scores, family.seen, strict=True)
        ]
        total = {name: jnp.stack([weights.constant[name]] * starts) for name in members}
        for e, (scores, _) in zip(own, fresh, strict=True):
            total[plan.edges[e].group] += scores
        root, inside = plan.families[number]
        index, prices = solve_family(plan.spec, root, inside, total, family.prices, solver)
        moved = {**permutation, **index}
        gain = _gain(plan, members, total, permutation, moved)
        for e, (scores, _) in zip(own, fresh, strict=True):
            if any(plan.family_of[group] == number for _, group in plan.edges[e].others):
                gain += _correction(plan, weights, e, scores, permutation, moved)
        index = {
            name: jnp.where(
                (gain > 0).reshape(-1, *[1] * (p.ndim - 1)), p, family.permutation[name]
            )
            for name, p in index.items()
        }
        return Family(index, prices, [s for s, _ in fresh], [q for _, q in fresh]), gain

    def turn(number: int, due: jax.Array, state: State) -> State:
        """A visit to a family if it is due."""

        def go(carry: tuple[Family, jax.Array]) -> tuple[Family, jax.Array]:
            families = [carry[0] if f == number else x for f, x in enumerate(state.families)]
            return visit(number, state._replace(families=families))

        family, gain = _when(due, go, (state.families[number], jnp.zeros(starts)))
        others = np.arange(groups) != number
        return state._replace(
            families=[family if f == number else x for f, x in enumerate(state.families)],
            dirty=state.dirty & (others | ~due)[None]
            | plan.neighbours(number)[None] & (gain > tolerance)[:, None],
            gained=state.gained + jnp.maximum(gain, 0),
            solved=state.solved + due,
        )

    def step(carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        state, sequence = carry
        sweep, place = state.step // groups, state.step % groups
        if order is None:
            sequence = jax.lax.cond(
                place == 0,
                lambda: jax.random.permutation(jax.random.fold_in(key, sweep), groups),
                lambda: sequence,
            )
        chosen = sequence[place if order is None else state.step]
        due = state.dirty.any(0) if order is None else jnp.ones(groups, bool)
        for number in range(groups):
            state = turn(number, (chosen == number) & due[number], state)
        history = jax.lax.dynamic_update_index_in_dim(state.history, state.gained, sweep, 1)
        return state._replace(history=history, step=state.step + 1), sequence

    def running(carry: tuple[State, jax.Array]) -> jax.Array:
        state, _ = carry
        if order is not None:
            return state.step < len(order)
        return state.dirty.any() & (state.step < max_sweeps * groups)

    def begin(number: int) -> Family:
        own = [plan.edges[e] for e in plan.own(number)]
        size = [plan.size[edge.group] for edge in own]
        return Family(
            {name: start[name] for name in plan.members(number)},
            jnp.zeros((starts, plan.size[plan.families[number][0]])),
            [jnp.zeros((starts, n, n)) for n in size],
            [
                tuple(jnp.full((starts, plan.size[g]), -1, jnp.int32) for _, g in edge.others)
                for edge in own
            ],
        )

    sweeps = max_sweeps if order is None else -(-len(order) // groups)
    state = State(
        [begin(number) for number in range(groups)],
        dirty=jnp.ones((starts, groups), bool),
        gained=jnp.zeros(starts),
        history=jnp.full((starts, sweeps), jnp.nan),
        step=jnp.zeros((), jnp.int32),
        solved=jnp.zeros((), jnp.int32),
    )
    sequence = jnp.arange(groups) if order is None else jnp.array(order)
    return jax.lax.while_loop(running, step, (state, sequence))[0]


def _when(condition: jax.Array, change: Callable[[T], T], carry: T) -> T:
    """`change(carry)` where the condition holds, else `carry`.

    A loop of at most one turn, because XLA updates a loop's carry in place but copies whatever
    passes through a conditional.
    """

    def turn(state: tuple[jax.Array, T]) -> tuple[jax.Array, T]:
        return jnp.zeros((), bool), change(state[1])

    return jax.lax.while_loop(lambda state: state[0], turn, (condition, carry))[1]


def _gain(plan: Plan, members: tuple[str, ...], scores: Index, old: Index, new: Index) -> jax.Array:
    """What a move gains; rows that stay cancel exactly, so that small gains are not rounding."""
    gain = jnp.zeros(())
    for name in members:
        p, q = (composite(plan.spec, x, name)[..., None] for x in (old, new))
        after = jnp.take_along_axis(scores[name], q, -1, mode="clip")
        before = jnp.take_along_axis(scores[name], p, -1, mode="clip")
        gain += (after - before).sum((-1, -2))
    return gain


def _correction(
    plan: Plan, weights: Products, e: int, scores: jax.Array, old: Index, new: Index
) -> jax.Array:
    """What `_gain` overlooked on a weight from a group to itself.

    There the scores depend on the permutation that they choose, so that they were a linearisation
    (and both of the block's edges counted it: hence the half). Only a true gain is accepted.
    """
    name = plan.edges[e].group
    p, q = (composite(plan.spec, x, name) for x in (old, new))
    after = jax.vmap(functools.partial(weights.build, e))(new)
    linear = value_of(scores, q) - value_of(scores, p)
    return 0.5 * (value_of(after, q) - value_of(scores, p)) - linear
