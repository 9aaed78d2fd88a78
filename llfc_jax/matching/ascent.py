"""Coordinate ascent on `sum <A, π(B)>` over all groups, as one compiled loop.

With every other group held, the best permutation of one group is a linear assignment of its
scores: entry (i, j) is the inner product of all weights of A's unit i with those of B's unit j.
Scores are sums of *edges*, one for each block of weights (`blocks`) and each group on it. An edge
stays as it is until a group on its other axes moves; then only what moved is added to it. A group
is solved again only after its scores have changed.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.matching.assignment import Solver
from llfc_jax.matching.blocks import Block, blocks
from llfc_jax.matching.solve import composite, families, solve_family, units_in_all, value_of
from llfc_jax.matching.spec import PermutationSpec

Index = dict[str, jax.Array]

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

    def entered(self, family: int) -> list[int]:
        """Numbers of the edges that a family's move makes stale."""
        return [
            e
            for e, edge in enumerate(self.edges)
            if any(self.family_of[group] == family for _, group in edge.others)
        ]


class State(NamedTuple):
    """Carry of the loop; arrays have one leading entry per start."""

    permutation: Index
    prices: list[jax.Array]  # per family: of its last assignment, to start the next one near
    scores: list[jax.Array]  # per edge: [starts, n, n], as of when it was last brought up to date
    seen: list[jax.Array]  # per edge: the other group's index at that time
    stale: jax.Array  # [starts, edges]
    dirty: jax.Array  # [starts, families]: scores have changed since the last assignment
    gained: jax.Array  # [starts]: sum of all gains
    history: jax.Array  # [starts, sweeps]: `gained` after each
    step: jax.Array  # visits looked at, solved or skipped
    solved: jax.Array  # assignments solved


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


class _Weights:
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
    weights, groups, edges = _Weights(plan, a, b), len(plan.families), len(plan.edges)
    starts = next(iter(start.values())).shape[0]

    def refresh(e: int, state: State) -> tuple[jax.Array, jax.Array]:
        """An edge's scores and what they were made from, brought up to date."""
        now = composite(plan.spec, state.permutation, plan.edges[e].others[0][1])
        scores, seen = state.scores[e], state.seen[e]

        def build() -> jax.Array:
            return jax.vmap(functools.partial(weights.build, e))(state.permutation)

        stale = state.stale[:, e].any()
        if not patches(plan, e):
            return jax.lax.cond(stale, build, lambda: scores), now
        # Above a quarter the whole product is the cheaper one.
        few = 4 * (now != seen).sum(1).max() < now.shape[1]
        choice = jnp.where(stale, jnp.where(few, 1, 2), 0)
        patch = jax.vmap(functools.partial(weights.patch, e))
        branches = [lambda: scores, lambda: patch(now, seen, scores), build]
        return jax.lax.switch(choice, branches), now

    def visit(family: int, state: State) -> State:
        members, own = plan.members(family), plan.own(family)
        scores, seen = list(state.scores), list(state.seen)
        total = {name: weights.constant[name] for name in members}
        for e in own:
            scores[e], seen[e] = refresh(e, state)
            total[plan.edges[e].group] = scores[e] + total[plan.edges[e].group]
        total = {n: jnp.broadcast_to(t, (starts, *t.shape[-2:])) for n, t in total.items()}
        root, inside = plan.families[family]
        new, prices = solve_family(plan.spec, root, inside, total, state.prices[family], solver)
        moved = {**state.permutation, **new}
        gain = _gain(plan, members, total, state.permutation, moved)
        for e in set(own) & set(plan.entered(family)):
            gain += _correction(plan, weights, e, scores[e], state.permutation, moved)
        accept = gain > 0
        permutation = {
            name: jnp.where(accept.reshape(-1, *[1] * (p.ndim - 1)), moved[name], p)
            for name, p in state.permutation.items()
        }
        mine, entered, near = _masks(plan, family)
        return state._replace(
            permutation=permutation,
            prices=[prices if f == family else p for f, p in enumerate(state.prices)],
            scores=scores,
            seen=seen,
            stale=state.stale & ~mine | entered & accept[:, None],
            dirty=state.dirty & (np.arange(groups) != family) | near & (gain > tolerance)[:, None],
            gained=state.gained + jnp.where(accept, gain, 0),
            solved=state.solved + 1,
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
        family = sequence[place if order is None else state.step]
        # One switch for everything: branch 0 skips a family whose scores have not changed.
        due = state.dirty[:, family].any() | (order is not None)
        branches = [lambda s: s, *(functools.partial(visit, f) for f in range(groups))]
        state = jax.lax.switch(jnp.where(due, family + 1, 0), branches, state)
        history = jax.lax.dynamic_update_index_in_dim(state.history, state.gained, sweep, 1)
        return state._replace(history=history, step=state.step + 1), sequence

    def running(carry: tuple[State, jax.Array]) -> jax.Array:
        state, _ = carry
        if order is not None:
            return state.step < len(order)
        return state.dirty.any() & (state.step < max_sweeps * groups)

    sweeps = max_sweeps if order is None else -(-len(order) // groups)
    state = State(
        permutation=start,
        prices=[jnp.zeros((starts, plan.size[root])) for root, _ in plan.families],
        scores=[jnp.zeros((starts, plan.size[e.group], plan.size[e.group])) for e in plan.edges],
        seen=[jnp.full((starts, plan.size[e.others[0][1]]), -1, jnp.int32) for e in plan.edges],
        stale=jnp.ones((starts, edges), bool),
        dirty=jnp.ones((starts, groups), bool),
        gained=jnp.zeros(starts),
        history=jnp.full((starts, sweeps), jnp.nan),
        step=jnp.zeros((), jnp.int32),
        solved=jnp.zeros((), jnp.int32),
    )
    sequence = jnp.arange(groups) if order is None else jnp.array(order)
    return jax.lax.while_loop(running, step, (state, sequence))[0]


def _masks(plan: Plan, family: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A family's own edges, the edges that its move makes stale, the families that score those."""
    mine, entered = np.zeros((2, len(plan.edges)), bool)
    mine[plan.own(family)] = True
    entered[plan.entered(family)] = True
    near = np.zeros(len(plan.families), bool)
    near[[plan.family_of[plan.edges[e].group] for e in plan.entered(family)]] = True
    return mine, entered, near


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
    plan: Plan, weights: _Weights, e: int, scores: jax.Array, old: Index, new: Index
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
