"""Straight-through estimator: learn where B should go so that the midpoint's loss is low.

A copy θ of A is trained. Forward, θ is replaced by the permutation of B nearest to it (weight
matching, from the last one found), and the loss is that of the midpoint between A and this π(B);
backward, the gradient passes to θ as if it had not been replaced (Bengio et al. 2013; Ainsworth et
al. 2023, algorithm 2). The permutation with the lowest midpoint loss over the data is kept.
"""

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from llfc_jax.errors import DataError, MatchingError
from llfc_jax.graph import Apply
from llfc_jax.graph.convolutions import adapted
from llfc_jax.matching.assignment.solvers import Solver
from llfc_jax.matching.checks import check_modes
from llfc_jax.matching.data import Progress
from llfc_jax.matching.methods.weight import trainable, weight_matching
from llfc_jax.matching.result import Matching
from llfc_jax.pair import interpolate
from llfc_jax.symmetry.axes import Permutation
from llfc_jax.symmetry.spec import PermutationSpec


def ste_matching(
    key: jax.Array,
    apply: Apply,
    spec: PermutationSpec,
    a: Any,
    b: Any,
    batches: Iterable[tuple[Any, Any]],
    *,
    epochs: int = 5,
    learning_rate: float = 1e-3,
    start: Permutation | None = None,
    max_sweeps: int = 20,
    solver: Solver = "auto",
    progress: Progress | None = None,
) -> Matching:
    """Match B to A by the loss at the midpoint.

    Args:
        key: order of the visits of weight matching.
        apply: `apply(variables, x) -> logits`.
        spec: which units may move.
        a: the mode that stays.
        b: the mode that is permuted.
        batches: data, pairs (x, y); re-iterable, read once per epoch to learn and once to judge.
        epochs: passes over the data.
        learning_rate: of Adam.
        start: where weight matching starts from at first; the identity by default.
        max_sweeps: most sweeps of weight matching at each step.
        solver: see `assign`.
        progress: called as (epochs done, epochs, words).

    Returns:
        A `Matching` whose objective is the mean cross entropy of (a + π(b)) / 2 over the data:
        less is better. It is the lowest of `history`, whose first entry is weight matching's: the
        permutation found is never worse than that one on these data.

    Raises:
        ModeError: `a` and `b` are no modes of one network.
        MatchingError: they do not fit the spec, or an argument is out of range.
        DataError: there is no batch.
    """
    check_modes(spec, a, b)
    if epochs < 0 or learning_rate <= 0:
        raise MatchingError("epochs must be 0 or more, learning_rate above 0")
    counted = trainable(spec, a)
    learnt = [path in counted for path, _ in spec.leaves]
    program = _program(apply, spec, tuple(learnt), max_sweeps, solver)
    theta = [jnp.asarray(leaf) for leaf in itertools.compress(jax.tree.leaves(a), learnt)]
    state = program.begin(key, a, b, theta, start)

    def judge(permutation: Permutation) -> float:
        total, samples = 0.0, 0
        for x, y in batches:
            total, samples = total + program.losses(a, b, permutation, x, y), samples + len(y)
        if not samples:
            raise DataError("STE matching needs data, and there is no batch")
        return float(total) / samples

    history, best = [judge(state.permutation)], state.permutation
    for epoch in range(epochs):
        for x, y in batches:
            state = program.step(key, a, b, state, x, y, learning_rate)
        history.append(judge(state.permutation))
        if history[-1] <= min(history):
            best = state.permutation
        if progress:
            progress(epoch + 1, epochs, "straight-through matching")
    return Matching(best, jnp.array(min(history)), jnp.array(history), jnp.array(epochs), "ste")


class _State(NamedTuple):
    theta: list[jax.Array]  # the leaves of A that are learnt
    memory: Any  # Adam's
    permutation: dict[str, jax.Array]


class _Program(NamedTuple):
    begin: Callable[..., _State]
    step: Callable[..., _State]
    losses: Callable[..., jax.Array]


@functools.lru_cache(maxsize=16)
def _program(
    apply: Apply, spec: PermutationSpec, learnt: tuple[bool, ...], max_sweeps: int, solver: Solver
) -> _Program:
    """The compiled parts; they serve every pair of a network."""
    places = [i for i, learns in enumerate(learnt) if learns]
    adam = optax.scale_by_adam()

    def nearest(key: jax.Array, a: Any, b: Any, theta: list[jax.Array], start: Any) -> Any:
        near, structure = jax.tree.flatten(a)
        for i, leaf in zip(places, theta, strict=True):
            near[i] = leaf
        found = weight_matching(
            key, spec, jax.tree.unflatten(structure, near), b,
            start=start, max_sweeps=max_sweeps, solver=solver,
        )  # fmt: skip
        return found.permutation

    def losses(a: Any, moved: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        logits = adapted(apply)(interpolate(a, moved, 0.5), x).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    @jax.jit
    def begin(key: jax.Array, a: Any, b: Any, theta: list[jax.Array], start: Any) -> _State:
        return _State(theta, adam.init(theta), nearest(key, a, b, theta, start))

    @jax.jit
    def step(key: jax.Array, a: Any, b: Any, state: _State, x: Any, y: Any, rate: Any) -> _State:
        def loss(theta: list[jax.Array]) -> jax.Array:
            moved, structure = jax.tree.flatten(spec.apply(state.permutation, b))
            for i, leaf in zip(places, theta, strict=True):
                moved[i] = jax.lax.stop_gradient(moved[i] - leaf) + leaf
            return losses(a, jax.tree.unflatten(structure, moved), x, y).mean()

        slope, memory = adam.update(jax.grad(loss)(state.theta), state.memory)
        theta = jax.tree.map(lambda leaf, s: leaf - rate * s, state.theta, slope)
        return _State(theta, memory, nearest(key, a, b, theta, state.permutation))

    @jax.jit
    def judged(a: Any, b: Any, permutation: Permutation, x: jax.Array, y: jax.Array) -> jax.Array:
        return losses(a, spec.apply(permutation, b), x, y).sum()

    return _Program(begin, step, judged)
