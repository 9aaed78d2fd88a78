"""Weight matching: permute B's units so that its weights lie close to A's; no data needed.

Maximises `sum over leaves <A, π(B)>` (Ainsworth et al. 2023, "Git Re-Basin") by coordinate ascent:
with all other groups held, the best permutation of one group is a linear assignment. The whole
ascent is one compiled program. It finds what the published loop finds along the same visits, but
rebuilds a product only after a group that enters it has moved, and solves a group again only after
its scores have changed.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from llfc_jax.errors import MatchingError, unknown
from llfc_jax.matching.assignment.solvers import Solver
from llfc_jax.matching.checks import check_modes
from llfc_jax.matching.result import Matching
from llfc_jax.matching.search.ascent import ascend
from llfc_jax.matching.search.edges import make_plan, overlap
from llfc_jax.symmetry.axes import Permutation
from llfc_jax.symmetry.spec import PermutationSpec


def trainable(spec: PermutationSpec, variables: Any) -> frozenset[str]:
    """The leaves that count by default: all parameters, not the running statistics of norms.

    Parameters are what stands under `params/`, or everything if nothing does; counters, keys and
    other leaves that hold no real numbers never count.
    """
    paths = [
        path
        for (path, _), leaf in zip(spec.leaves, jax.tree.leaves(variables), strict=True)
        if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    ]
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
    check_modes(spec, a, b)
    if restarts < 1 or max_sweeps < 1:
        raise MatchingError("restarts and max_sweeps must be at least 1")
    if start is not None:
        spec.validate(start)
    counted = trainable(spec, a)
    if include is not None:
        paths = [path for path, _ in spec.leaves]
        counted = frozenset(filter(include, paths))
    if not counted:
        raise MatchingError(
            f"there is no leaf to match by; the paths look like {spec.leaves[0][0]!r}"
        )
    names = {root: i for i, (root, _) in enumerate(make_plan(spec, counted).families)}
    if visits is not None and not visits:
        raise MatchingError("visits is empty; name the groups to visit, or leave it out")
    for name in visits or ():
        if name not in names:
            raise MatchingError(unknown("permutation group", name, names))
    order = None if visits is None else tuple(names[name] for name in visits)
    start = None if start is None else dict(start)
    run = _program(spec, counted, restarts, max_sweeps, solver, order)
    return run(key, a, b, start, tolerance)


@functools.cache
def _program(*static: Any) -> Callable[..., Matching]:
    """The compiled program of some settings.

    Under `jax.vmap` pairs take turns (`lax.map`): batched, each would wait for the slowest and no
    product could be skipped.
    """
    return jax.jit(jax.custom_batching.sequential_vmap(functools.partial(_match, static)))


def _match(
    static: tuple[Any, ...],
    key: jax.Array,
    a: Any,
    b: Any,
    start: dict[str, jax.Array] | None,
    tolerance: jax.Array,
) -> Matching:
    spec, counted, restarts, max_sweeps, solver, order = static
    plan = make_plan(spec, counted)
    left, right = jax.tree.leaves(a), jax.tree.leaves(b)
    chosen = [i for i, (path, _) in enumerate(spec.leaves) if path in counted]
    ours, theirs = [left[i] for i in chosen], [right[i] for i in chosen]
    size = jnp.sqrt(_inner(ours, ours) * _inner(theirs, theirs))
    if not plan.families:
        objective = overlap(plan, left, right, {})
        return Matching({}, objective, objective[None], jnp.zeros((), jnp.int32), "weight")
    first = spec.identity() if start is None else start
    begun = _inner(ours, theirs) if start is None else overlap(plan, left, right, start)
    stacked, begun = jax.tree.map(lambda p: p[None], first), begun[None]
    if restarts > 1:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, max_sweeps + jnp.arange(1, restarts))
        others = jax.vmap(spec.random)(keys)
        stacked = jax.tree.map(lambda p, q: jnp.concatenate([p, q]), stacked, others)
        values = jax.lax.map(lambda p: overlap(plan, left, right, p), others)
        begun = jnp.concatenate([begun, values])
    state = ascend(key, plan, left, right, stacked, tolerance * size, max_sweeps, solver, order)
    reached = begun + state.gained
    best = jnp.argmax(reached)
    return Matching(
        {name: p[best] for name, p in state.permutation.items()},
        reached[best],
        begun[best] + state.history[best],
        -(-state.step // len(plan.families)),
        "weight",
    )


def _inner(left: list[jax.Array], right: list[jax.Array]) -> jax.Array:
    """Sum of the inner products of arrays."""
    return jnp.asarray(sum((jnp.vdot(p, q) for p, q in zip(left, right, strict=True)), 0.0))
