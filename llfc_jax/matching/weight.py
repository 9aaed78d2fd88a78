"""Weight matching: permute B's units so that its weights lie close to A's; no data needed.

Maximises `sum over leaves <A, π(B)>` (Ainsworth et al. 2023, "Git Re-Basin") by coordinate ascent:
with all other groups held, the best permutation of one group is a linear assignment. The whole
ascent is one compiled program. It finds what the published loop finds along the same visits, but
rebuilds a product only after a group that enters it has moved, and solves a group again only after
its scores have changed.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.errors import MatchingError, unknown
from llfc_jax.matching.assignment import Solver
from llfc_jax.matching.axes import Permutation
from llfc_jax.matching.blocks import blocks
from llfc_jax.matching.result import Matching
from llfc_jax.matching.solve import composite, families, solve_family, units_in_all, value_of
from llfc_jax.matching.spec import PermutationSpec
from llfc_jax.modes import check_pair


class Edge(NamedTuple):
    """The scores that one block gives to the units of one of its groups.

    Attributes:
        block: number of the block.
        axis: which of its axes.
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
        families: each group that is inside no other, with the groups inside it.
        blocks: (leaf number, block) of every block that touches a group.
        constant: edges whose scores depend on no other group: computed once.
        edges: all other edges.
        family_of: number of the family of each group.
    """

    families: tuple[tuple[str, tuple[str, ...]], ...]
    blocks: tuple[Any, ...]
    constant: tuple[Edge, ...]
    edges: tuple[Edge, ...]
    family_of: dict[str, int]

    def touches(self, edge: Edge) -> set[int]:
        """Families whose move makes an edge's scores stale."""
        return {self.family_of[group] for _, group in edge.others}


class State(NamedTuple):
    """Carry of the ascent; arrays have one leading entry per start."""

    permutation: dict[str, jax.Array]
    prices: list[jax.Array]  # per family: of its last assignment, to start the next one near
    scores: list[jax.Array]  # per edge, as of when it was last built
    stale: jax.Array  # [starts, edges]
    dirty: jax.Array  # [starts, families]: scores have changed since the last assignment
    objective: jax.Array  # [starts]
    history: jax.Array  # [starts, sweeps]
    visits: jax.Array  # assignments solved
    step: jax.Array  # visits looked at, solved or skipped


@functools.cache
def make_plan(spec: PermutationSpec, leaves: frozenset[str] | None) -> Plan:
    """Cut a spec into blocks and edges. `leaves` are the paths that count, None for all."""
    found = families(spec)
    family_of = {name: i for i, (root, inside) in enumerate(found) for name in (root, *inside)}
    cut, constant, edges = [], [], []
    for leaf, (path, axes) in enumerate(spec.leaves):
        if leaves is not None and path not in leaves:
            continue
        for block in blocks(axes, spec.parents):
            for axis, group in enumerate(block.groups):
                others = tuple((i, g) for i, g in enumerate(block.groups) if i != axis)
                (edges if others else constant).append(Edge(len(cut), axis, group, others))
            if block.groups:
                cut.append((leaf, block))
    return Plan(found, tuple(cut), tuple(constant), tuple(edges), family_of)


def trainable(spec: PermutationSpec) -> frozenset[str]:
    """The leaves that count by default: all parameters, not the running statistics of norms."""
    paths = [path for path, _ in spec.leaves]
    params = [path for path in paths if path.startswith("params/")]
    return frozenset(params or paths)


def weight_matching(
    key: jax.Array,
    spec: PermutationSpec,
    a: Any,
    b: Any,
    *,
    restarts: int = 1,
    start: Permutation | None = None,
    max_sweeps: int = 100,
    tolerance: float = 1e-7,
    solver: Solver = "auto",
    visits: Sequence[str] | None = None,
    include: Callable[[str], bool] | None = None,
) -> Matching:
    """Match B's weights to A's.

    Args:
        key: order of the visits, as in the published code: sweep s takes
            `random.permutation(fold_in(key, s), groups)`; and the starts after the first.
        spec: which units may move.
        a: the mode that stays.
        b: the mode that is permuted.
        restarts: number of starts; the best end is kept. The first start is `start`, the others
            are random permutations; all follow the same order of visits.
        start: permutation of B to start from; the identity by default.
        max_sweeps: most sweeps over all groups.
        tolerance: a gain below this share of `||A|| ||B||` is taken, but no longer makes the
            neighbours be solved again.
        solver: how assignments are solved, see `assign`.
        visits: names of the groups to visit, in this order and no others: replays a run.
        include: which leaves count, by path; by default every parameter, but no running
            statistics.

    Returns:
        A `Matching` whose objective is `sum over counted leaves <A, π(B)>`: more is better.
        `history` holds it after every sweep.

    Raises:
        ModeError: `a` and `b` are no modes of one network, or hold values that are not finite.
        MatchingError: they do not fit the spec, or an argument is out of range.
    """
    check_pair(a, b)
    spec.check_variables(a)
    if restarts < 1 or max_sweeps < 1:
        raise MatchingError("restarts and max_sweeps must be at least 1")
    if start is not None:
        spec.validate(start)
    paths = [path for path, _ in spec.leaves]
    counted = trainable(spec) if include is None else frozenset(filter(include, paths))
    if not counted:
        raise MatchingError(f"include leaves no leaf to match; the paths look like {paths[0]!r}")
    names = {root: i for i, (root, _) in enumerate(make_plan(spec, counted).families)}
    for name in visits or ():
        if name not in names:
            raise MatchingError(unknown("permutation group", name, names))
    order = None if visits is None else tuple(names[name] for name in visits)
    start = spec.identity() if start is None else dict(start)
    return _match(key, a, b, start, tolerance, spec, counted, restarts, max_sweeps, solver, order)


@functools.partial(jax.jit, static_argnums=(5, 6, 7, 8, 9, 10))
def _match(
    key: jax.Array,
    a: Any,
    b: Any,
    start: dict[str, jax.Array],
    tolerance: jax.Array,
    spec: PermutationSpec,
    counted: frozenset[str],
    restarts: int,
    max_sweeps: int,
    solver: Solver,
    order: tuple[int, ...] | None,
) -> Matching:
    keys = [jax.random.fold_in(key, max_sweeps + r) for r in range(1, restarts)]
    starts = [start, *map(spec.random, keys)]
    stacked = {name: jnp.stack([s[name] for s in starts]) for name in start}
    plan = make_plan(spec, counted)
    left, right = jax.tree.leaves(a), jax.tree.leaves(b)
    chosen = [i for i, (path, _) in enumerate(spec.leaves) if path in counted]
    norm = jnp.sqrt(_square([left[i] for i in chosen]) * _square([right[i] for i in chosen]))
    state = ascend(
        key, plan, spec, left, right, stacked, tolerance * norm, max_sweeps, solver, order
    )
    best = jnp.argmax(state.objective)
    permutation = {name: p[best] for name, p in state.permutation.items()}
    moved = jax.tree.leaves(spec.apply(permutation, b))
    objective = sum(jnp.vdot(left[i], moved[i]) for i in chosen)
    sweeps = -(-state.step // max(1, len(plan.families)))
    return Matching(permutation, jnp.asarray(objective), state.history[best], sweeps, "weight")


def _square(leaves: list[jax.Array]) -> jax.Array:
    return jnp.asarray(sum(jnp.vdot(leaf, leaf) for leaf in leaves))


def ascend(
    key: jax.Array,
    plan: Plan,
    spec: PermutationSpec,
    a: Sequence[jax.Array],
    b: Sequence[jax.Array],
    start: dict[str, jax.Array],
    tolerance: jax.Array,
    max_sweeps: int,
    solver: Solver = "auto",
    order: tuple[int, ...] | None = None,
) -> State:
    """Coordinate ascent from several starts at once: one `lax.while_loop`.

    Args:
        key: order of the visits.
        plan: `make_plan(spec, ...)`.
        spec: the spec.
        a: A's leaves, in tree order.
        b: B's leaves.
        start: permutations, each with a leading axis of starts.
        tolerance: gain above which neighbours are solved again.
        max_sweeps: most sweeps.
        solver: for the assignments.
        order: numbers of the families to visit instead of random sweeps.
    """
    groups = len(plan.families)
    starts = next(iter(start.values())).shape[0] if start else 1
    size = {name: units_in_all(spec, name) for name in spec.group}
    cut_a = [block.extract(jnp.asarray(a[leaf])) for leaf, block in plan.blocks]
    cut_b = [block.extract(jnp.asarray(b[leaf])) for leaf, block in plan.blocks]
    constant = {name: jnp.zeros((n, n)) for name, n in size.items()}
    for edge in plan.constant:
        constant[edge.group] += cut_a[edge.block] @ cut_b[edge.block].T
    # An edge's tensors with its own units last and the units it depends on first: the gather
    # then moves whole rows, and the product is one plain matrix product.
    fixed_a = [_units_last(cut_a[e.block], e.axis) for e in plan.edges]
    fixed_b = [_units_last(cut_b[e.block], e.axis) for e in plan.edges]

    def build(e: int, permutation: dict[str, jax.Array]) -> jax.Array:
        edge, moved = plan.edges[e], fixed_b[e]
        for axis, (_, group) in enumerate(edge.others):
            moved = jnp.take(moved, composite(spec, permutation, group), axis=axis, mode="clip")
        n = size[edge.group]
        return fixed_a[e].reshape(-1, n).T @ moved.reshape(-1, n)

    def build_all(e: int, permutation: dict[str, jax.Array]) -> jax.Array:
        return jax.vmap(functools.partial(build, e))(permutation)

    # Masks, so that a visit changes the flags in one step: its own edges, the edges that it makes
    # stale, the families whose scores those are.
    here = np.eye(groups, dtype=bool)
    reach = []
    for family in range(groups):
        mine = np.array([plan.family_of[e.group] == family for e in plan.edges], bool)
        enters = np.array([family in plan.touches(e) for e in plan.edges], bool)
        near = np.zeros(groups, bool)
        near[[plan.family_of[e.group] for e in plan.edges if family in plan.touches(e)]] = True
        reach.append((mine, enters, near))

    def visit(family: int, state: State) -> State:
        root, inside = plan.families[family]
        members = (root, *inside)
        scores = list(state.scores)
        own = [e for e, edge in enumerate(plan.edges) if edge.group in members]
        outdated = state.stale.any(0)
        for e in own:
            scores[e] = jax.lax.cond(
                outdated[e],
                lambda p, old, e=e: build_all(e, p),
                lambda p, old: old,
                state.permutation,
                scores[e],
            )
        total = {
            name: constant[name][None]
            + sum((scores[e] for e in own if plan.edges[e].group == name), jnp.zeros((1, 1, 1)))
            for name in members
        }
        total = {name: jnp.broadcast_to(t, (starts, *t.shape[1:])) for name, t in total.items()}
        old = {name: state.permutation[name] for name in members}
        new, prices = solve_family(spec, root, inside, total, state.prices[family], solver)
        gain = _gain(spec, members, total, old, new)
        moved = {**state.permutation, **new}
        for e in own:  # a weight from the group to itself: the scores were a linearisation
            if family in plan.touches(plan.edges[e]):
                name = plan.edges[e].group
                p, q = (composite(spec, x, name) for x in (state.permutation, moved))
                exact = value_of(build_all(e, moved), q) - value_of(scores[e], p)
                gain += 0.5 * exact - (value_of(scores[e], q) - value_of(scores[e], p))
        accept = gain > 0
        permutation = dict(state.permutation)
        for name in members:
            keep = accept.reshape(-1, *[1] * (new[name].ndim - 1))
            permutation[name] = jnp.where(keep, new[name], old[name])
        mine, enters, near = reach[family]
        moves = accept[:, None]
        matters = (gain > tolerance)[:, None]
        stale = state.stale & ~mine | enters & moves
        dirty = state.dirty & ~here[family] | near & matters
        return state._replace(
            permutation=permutation,
            prices=[prices if f == family else p for f, p in enumerate(state.prices)],
            scores=scores,
            stale=stale,
            dirty=dirty,
            objective=state.objective + jnp.where(accept, gain, 0),
            visits=state.visits + 1,
        )

    def step(carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        state, sequence = carry
        place = state.step % groups
        if order is None:
            sequence = jax.lax.cond(
                place == 0,
                lambda: jax.random.permutation(
                    jax.random.fold_in(key, state.step // groups), groups
                ),
                lambda: sequence,
            )
            family = sequence[place]
        else:
            family = sequence[state.step]
        branches = [functools.partial(visit, f) for f in range(groups)]
        due = state.dirty[:, family].any() | (order is not None)
        state = jax.lax.cond(due, lambda s: jax.lax.switch(family, branches, s), lambda s: s, state)
        history = state.history.at[:, state.step // groups].set(state.objective)
        return state._replace(history=history, step=state.step + 1), sequence

    def running(carry: tuple[State, jax.Array]) -> jax.Array:
        state, _ = carry
        if order is not None:
            return state.step < len(order)
        return state.dirty.any() & (state.step < max_sweeps * groups)

    steps = max_sweeps if order is None else -(-len(order) // max(1, groups))
    state = State(
        permutation=start,
        prices=[jnp.zeros((starts, size[root])) for root, _ in plan.families],
        scores=[jnp.zeros((starts, size[e.group], size[e.group])) for e in plan.edges],
        stale=jnp.ones((starts, len(plan.edges)), bool),
        dirty=jnp.ones((starts, groups), bool),
        objective=jnp.zeros(starts),
        history=jnp.full((starts, steps), jnp.nan),
        visits=jnp.zeros((), jnp.int32),
        step=jnp.zeros((), jnp.int32),
    )
    if not groups:
        return state
    sequence = jnp.arange(groups) if order is None else jnp.array(order)
    state, _ = jax.lax.while_loop(running, step, (state, sequence))
    return state


def _units_last(block: jax.Array, axis: int) -> jax.Array:
    return jnp.moveaxis(block, axis, -1)


def _gain(
    spec: PermutationSpec,
    members: tuple[str, ...],
    scores: dict[str, jax.Array],
    old: dict[str, jax.Array],
    new: dict[str, jax.Array],
) -> jax.Array:
    """What a move gains; rows that stay cancel exactly, so that small gains are not rounding."""
    gain = jnp.zeros(())
    for name in members:
        p, q = (composite(spec, x, name)[..., None] for x in (old, new))
        after = jnp.take_along_axis(scores[name], q, -1, mode="clip")
        before = jnp.take_along_axis(scores[name], p, -1, mode="clip")
        gain += (after - before).sum((-1, -2))
    return gain
