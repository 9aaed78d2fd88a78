"""Straight-through estimator: learn where B should go so that the midpoint's loss is low.

A copy θ of A is trained. Forward, θ is replaced by the permutation of B nearest to it (weight
matching, from the last one found), and the loss is that of the midpoint between A and this π(B);
backward, the gradient passes to θ as if it had not been replaced (Bengio et al. 2013; Ainsworth et
al. 2023, algorithm 2). The permutation with the lowest midpoint loss over the data is kept.
"""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from llfc_jax.errors import DataError, MatchingError
from llfc_jax.graph import Apply
from llfc_jax.matching.assignment import Solver
from llfc_jax.matching.axes import Permutation
from llfc_jax.matching.modes import check_modes
from llfc_jax.matching.result import Matching
from llfc_jax.matching.spec import PermutationSpec
from llfc_jax.matching.stream import Progress
from llfc_jax.matching.weight import trainable, weight_matching
from llfc_jax.modes import interpolate


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
    leaves, structure = jax.tree.flatten(a)
    counted = trainable(spec)
    learnt = [i for i, (path, _) in enumerate(spec.leaves) if path in counted]
    optimizer = optax.adam(learning_rate)

    def nearest(theta: list[jax.Array], permutation: Any) -> dict[str, jax.Array]:
        near = list(leaves)
        for i, leaf in zip(learnt, theta, strict=True):
            near[i] = leaf
        found = weight_matching(
            key, spec, jax.tree.unflatten(structure, near), b,
            start=permutation, max_sweeps=max_sweeps, solver=solver,
        )  # fmt: skip
        return found.permutation

    def loss_at(theta: list[jax.Array], permutation: Permutation, x: Any, y: Any) -> jax.Array:
        moved = jax.tree.leaves(spec.apply(permutation, b))
        for i, leaf in zip(learnt, theta, strict=True):
            moved[i] = jax.lax.stop_gradient(moved[i] - leaf) + leaf
        middle = interpolate(a, jax.tree.unflatten(structure, moved), 0.5)
        return _cross_entropy(apply(middle, x), y).mean()

    @jax.jit
    def step(state: Any, x: jax.Array, y: jax.Array) -> Any:
        theta, memory, permutation = state
        gradient = jax.grad(loss_at)(theta, permutation, x, y)
        updates, memory = optimizer.update(gradient, memory)
        theta: Any = optax.apply_updates(theta, updates)
        return theta, memory, nearest(theta, permutation)

    @jax.jit
    def losses(permutation: Permutation, x: jax.Array, y: jax.Array) -> jax.Array:
        middle = interpolate(a, spec.apply(permutation, b), 0.5)
        return _cross_entropy(apply(middle, x), y).sum()

    def judge(permutation: Permutation) -> float:
        total, samples = 0.0, 0
        for x, y in batches:
            total, samples = total + losses(permutation, x, y), samples + len(y)
        if not samples:
            raise DataError("STE matching needs data, and there is no batch")
        return float(total) / samples

    theta = [jnp.asarray(leaves[i]) for i in learnt]
    permutation = jax.jit(nearest)(theta, start)
    state = (theta, optimizer.init(theta), permutation)
    history, best = [judge(permutation)], permutation
    for epoch in range(epochs):
        for x, y in batches:
            state = step(state, x, y)
        history.append(judge(state[2]))
        if history[-1] <= min(history):
            best = state[2]
        if progress:
            progress(epoch + 1, epochs, "straight-through matching")
    return Matching(best, jnp.array(min(history)), jnp.array(history), jnp.array(epochs), "ste")


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
