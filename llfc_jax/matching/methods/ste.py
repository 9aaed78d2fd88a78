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
from jaxtyping import PyTree

from llfc_jax.errors import DataError, MatchingError
from llfc_jax.graph.convolutions import adapted
from llfc_jax.graph.row_layout import output_mask
from llfc_jax.matching.assignment.solvers import Solver, check_solver
from llfc_jax.matching.methods.weight import (
    DEFAULT_START,
    START_NAMES,
    Starts,
    WeightMatching,
    list_starts,
)
from llfc_jax.matching.problem import Problem, trainable
from llfc_jax.matching.registry import build_method, matching_method
from llfc_jax.matching.result import Match
from llfc_jax.pair import interpolate
from llfc_jax.symmetry.axes import Index, Permutation
from llfc_jax.symmetry.spec import PermutationSpec
from llfc_jax.tasks import Batch, Task
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
            GraphError: the task does not judge the network's outputs.
            DataError: there is no batch, or labels that the task does not take.
        """
        problem, apply = problem.checked(), problem.apply
        problem.check_outputs()
        spec, a, b = problem.spec, problem.a, problem.b
        theta = learnt_leaves(spec, a)
        memory = _first_memory(theta)
        permutation = self._nearest(key, problem, theta, self.start)
        history, best = [_mean_loss(apply, problem, permutation)], permutation
        for epoch in range(self.epochs):
            for batch in problem.read_batches():
                theta, memory = _learn(
                    apply,
                    spec,
                    problem.task,
                    a,
                    b,
                    permutation,
                    theta,
                    memory,
                    batch,
                    self.learning_rate,
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
        """Returns the permutation of B nearest to θ, by weight matching from `start`."""
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


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _learn(
    apply: Apply,
    spec: PermutationSpec,
    task: Task,
    a: Variables,
    b: Variables,
    permutation: Index,
    theta: Leaves,
    memory: PyTree,
    batch: Batch,
    rate: jax.Array,
) -> tuple[Leaves, Any]:
    """Takes one step of Adam: θ and Adam's memory after it."""

    def loss(theta: Leaves) -> jax.Array:
        moved, structure = jax.tree.flatten(spec.apply(permutation, b))
        for i, leaf in theta.items():
            moved[i] = jax.lax.stop_gradient(moved[i] - leaf) + leaf
        total, count = _losses(apply, task, a, jax.tree.unflatten(structure, moved), batch)
        return total / count

    slope, memory = _adam().update(jax.grad(loss)(theta), memory)
    return jax.tree.map(lambda leaf, s: (leaf - rate * s).astype(leaf.dtype), theta, slope), memory


def _losses(
    apply: Apply, task: Task, a: Variables, moved: Variables, batch: Batch
) -> tuple[jax.Array, jax.Array]:
    """Returns the summed loss at the midpoint of A and a permuted B, and how many it sums."""
    with jax.default_matmul_precision("highest"):
        outputs = adapted(apply)(interpolate(a, moved, 0.5), batch.x)
        mask = output_mask(apply, a, batch.x, batch.mask)
    losses, weight = task.losses(outputs, batch.y, mask)
    return (losses * weight).sum(), weight.sum()


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _total_loss(
    apply: Apply,
    spec: PermutationSpec,
    task: Task,
    a: Variables,
    b: Variables,
    permutation: Permutation,
    batch: Batch,
) -> tuple[jax.Array, jax.Array]:
    return _losses(apply, task, a, spec.apply(permutation, b), batch)


def _mean_loss(apply: Apply, problem: Problem, permutation: Permutation) -> float:
    """Returns the mean loss at the midpoint over all data."""
    spec, task, a, b = problem.spec, problem.task, problem.a, problem.b
    totals = [
        _total_loss(apply, spec, task, a, b, permutation, batch) for batch in problem.read_batches()
    ]
    if not totals:
        raise DataError("STE matching needs data, and there is no batch")
    losses, counts = ([float(part) for part in parts] for parts in zip(*totals, strict=True))
    return sum(losses) / sum(counts)
