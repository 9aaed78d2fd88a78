"""Straight-through estimator: learn where B should go so that the midpoint's loss is low.

A copy θ of A is trained. Forward, θ is replaced by the permutation of B nearest to it (weight
matching, from the last one found), and the loss is that of the midpoint between A and this π(B);
backward, the gradient passes to θ as if it had not been replaced (Bengio et al. 2013; Ainsworth et
al. 2023, algorithm 2). The permutation with the lowest midpoint loss over the data is kept.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from llfc_jax.errors import DataError, MatchingError
from llfc_jax.graph.convolutions import adapted
from llfc_jax.matching.assignment.solvers import Solver, check_solver
from llfc_jax.matching.methods.weight import (
    DEFAULT_START,
    START_NAMES,
    Starts,
    WeightMatching,
    list_starts,
    trainable,
)
from llfc_jax.matching.problem import Problem
from llfc_jax.matching.registry import build_method, matching_method
from llfc_jax.matching.result import Match
from llfc_jax.pair import interpolate
from llfc_jax.symmetry.axes import Index, Permutation
from llfc_jax.symmetry.spec import PermutationSpec
from llfc_jax.types import Apply, Batches, Model, ProgressFn, Variables

Leaves = dict[int, jax.Array]
"""Leaves of the variables by their number in tree order."""


@matching_method("ste")
@dataclasses.dataclass(frozen=True)
class StraightThroughMatching:
    """Trains for a low loss at the midpoint, straight through the assignment.

    Attributes:
        epochs: passes over the data.
        learning_rate: of Adam.
        start: where weight matching starts from at first, see `WeightMatching`.
        max_sweeps: most sweeps of weight matching at each step.
        solver: see `assign`.
    """

    epochs: int = 5
    learning_rate: float = 1e-3
    start: Starts = DEFAULT_START
    max_sweeps: int = 20
    solver: Solver = "auto"

    def __post_init__(self) -> None:
        """Checks names and ranges.

        Raises:
            MatchingError: one line that says which option is wrong.
        """
        if self.epochs < 0 or not self.learning_rate > 0:
            raise MatchingError("epochs must be 0 or more, learning_rate above 0")
        if self.max_sweeps < 1:
            raise MatchingError("max_sweeps must be at least 1")
        check_solver(self.solver)
        list_starts(self.start, START_NAMES)

    def __call__(
        self, key: jax.Array, problem: Problem, progress: ProgressFn | None = None
    ) -> Match:
        """Matches B to A by the loss at the midpoint.

        Args:
            key: order of the visits of weight matching.
            problem: its batches are read once an epoch to learn and once to judge.
            progress: called as (epochs done, epochs, words).

        Returns:
            A `Match` whose objective is the mean cross entropy of (a + π(b)) / 2 over the data:
            less is better. It is the lowest of `history`, whose first entry is weight matching's:
            the permutation found is never worse than that one on these data.

        Raises:
            ModeError: the modes are none of one network.
            MatchingError: they do not fit the spec.
            DataError: there is no batch.
        """
        problem, apply = problem.checked(), problem.apply
        spec, a, b = problem.spec, problem.a, problem.b
        theta = learnt_leaves(spec, a)
        memory = _first_memory(theta)
        permutation = self._nearest(key, problem, theta, self.start)
        history, best = [_mean_loss(apply, problem, permutation)], permutation
        for epoch in range(self.epochs):
            for x, y in problem.batches:
                theta, memory = _learn(
                    apply, spec, a, b, permutation, theta, memory, x, y, self.learning_rate
                )
                permutation = self._nearest(key, problem, theta, permutation)
            history.append(_mean_loss(apply, problem, permutation))
            if history[-1] <= min(history):
                best = permutation
            if progress:
                progress(epoch + 1, self.epochs, "straight-through matching")
        lowest, steps = jnp.asarray(min(history)), jnp.asarray(self.epochs)
        return Match(best, lowest, jnp.asarray(history), steps, "ste")

    def _nearest(self, key: jax.Array, problem: Problem, theta: Leaves, start: Starts) -> Index:
        """The permutation of B nearest to θ, by weight matching from `start`."""
        leaves, structure = jax.tree.flatten(problem.a)
        near = jax.tree.unflatten(structure, [theta.get(i, p) for i, p in enumerate(leaves)])
        method = WeightMatching(start, max_sweeps=self.max_sweeps, solver=self.solver)
        return method.ascend(key, dataclasses.replace(problem, a=near)).permutation


def ste_matching(
    key: jax.Array,
    network: Model,
    spec: PermutationSpec,
    a: Variables,
    b: Variables,
    batches: Batches,
    *,
    progress: ProgressFn | None = None,
    **options: object,
) -> Match:
    """Matches B to A by the loss at the midpoint: `StraightThroughMatching(**options)`.

    Args:
        key: order of the visits of weight matching.
        network: a module of any framework, or a function apply(variables, x).
        spec: which units may move.
        a: the mode that stays.
        b: the mode that is permuted.
        batches: data, pairs (x, y), that can be read again and again.
        progress: called as (epochs done, epochs, words).
        **options: the fields of `StraightThroughMatching`.

    Returns:
        See `StraightThroughMatching.__call__`.
    """
    return build_method("ste", options)(key, Problem(network, spec, a, b, batches), progress)


def learnt_leaves(spec: PermutationSpec, a: Variables) -> Leaves:
    """Returns the leaves of A that θ is a copy of: those that weight matching counts."""
    counted, leaves = trainable(spec, a), jax.tree.leaves(a)
    return {i: leaves[i] for i, (path, _) in enumerate(spec.leaves) if path in counted}


def _adam() -> Any:
    import optax  # takes as long to import as all of matching, and only this needs it

    return optax.scale_by_adam()


@jax.jit
def _first_memory(theta: Leaves) -> Any:
    return _adam().init(theta)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _learn(
    apply: Apply,
    spec: PermutationSpec,
    a: Variables,
    b: Variables,
    permutation: Index,
    theta: Leaves,
    memory: Any,
    x: jax.Array,
    y: jax.Array,
    rate: jax.Array,
) -> tuple[Leaves, Any]:
    """One step of Adam: θ and Adam's memory after it."""

    def loss(theta: Leaves) -> jax.Array:
        moved, structure = jax.tree.flatten(spec.apply(permutation, b))
        for i, leaf in theta.items():
            moved[i] = jax.lax.stop_gradient(moved[i] - leaf) + leaf
        return _losses(apply, a, jax.tree.unflatten(structure, moved), x, y).mean()

    slope, memory = _adam().update(jax.grad(loss)(theta), memory)
    return jax.tree.map(lambda leaf, s: (leaf - rate * s).astype(leaf.dtype), theta, slope), memory


def _losses(apply: Apply, a: Variables, moved: Variables, x: jax.Array, y: jax.Array) -> jax.Array:
    """Cross entropy of each sample at the midpoint of A and a permuted B."""
    with jax.default_matmul_precision("highest"):
        logits = adapted(apply)(interpolate(a, moved, 0.5), x).astype(jnp.float32)
    taken = jnp.take_along_axis(logits, y[..., None], -1)[..., 0]
    return jax.nn.logsumexp(logits, -1) - taken


@functools.partial(jax.jit, static_argnums=(0, 1))
def _total_loss(
    apply: Apply,
    spec: PermutationSpec,
    a: Variables,
    b: Variables,
    permutation: Permutation,
    x: jax.Array,
    y: jax.Array,
) -> jax.Array:
    return _losses(apply, a, spec.apply(permutation, b), x, y).sum()


def _mean_loss(apply: Apply, problem: Problem, permutation: Permutation) -> float:
    """The mean loss at the midpoint over all data."""
    totals, samples = [], 0
    for x, y in problem.batches:
        totals.append(_total_loss(apply, problem.spec, problem.a, problem.b, permutation, x, y))
        samples += len(y)
    if not samples:
        raise DataError("STE matching needs data, and there is no batch")
    return sum(map(float, totals)) / samples
