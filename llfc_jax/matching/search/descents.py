"""Searches from the ends of other methods, of which the lowest end is kept."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from llfc_jax.errors import MatchingError
from llfc_jax.matching.assignment.solvers import Solver, check_solver
from llfc_jax.matching.methods.activation import ActivationMatching
from llfc_jax.matching.methods.weight import Starts, WeightMatching, list_starts
from llfc_jax.matching.problem import Problem
from llfc_jax.matching.result import Match
from llfc_jax.matching.search.frank_wolfe import ROUNDS, FrankWolfe, Objective
from llfc_jax.symmetry.axes import Permutation
from llfc_jax.types import ProgressFn

KNOWN = ("weight", "activation", "identity", "anchored", "relaxed")


@dataclasses.dataclass(frozen=True)
class DescentOptions:
    """Options of the methods that lower an objective by Frank-Wolfe.

    Attributes:
        start: "weight" or "activation" (the ends of these methods), "identity", "anchored" or
            "relaxed" (a sweep of weight matching from there), a permutation, or several of these;
            the lowest end is kept.
        samples: how many samples the objective is taken over, from the first batches.
        steps: see `FrankWolfe`.
        rounds: see `FrankWolfe`.
        solver: see `assign`.
    """

    start: Starts = ("weight", "activation")
    samples: int = 2000
    steps: int = 40
    rounds: int = ROUNDS
    solver: Solver = "auto"

    def __post_init__(self) -> None:
        """Checks names and ranges.

        Raises:
            MatchingError: one line that says which option is wrong.
        """
        if self.samples < 1:
            raise MatchingError(f"samples must be at least 1, not {self.samples}")
        if self.steps < 0 or self.rounds < 0:
            raise MatchingError("steps and rounds must be 0 or more")
        check_solver(self.solver)
        list_starts(self.start, KNOWN)

    def descend(
        self,
        key: jax.Array,
        problem: Problem,
        objective: Objective,
        values: PyTree,
        method: str,
        progress: ProgressFn | None,
    ) -> Match:
        """Lowers an objective from every start and keeps the lowest end.

        Args:
            key: for weight matching, where it is a start.
            problem: a checked one.
            objective: what is lowered.
            values: its first argument.
            method: name of the method.
            progress: called as (starts done, starts, words).

        Returns:
            A `Match` whose `history` holds the objective at the starts first, then at their ends.
        """
        search = FrankWolfe(problem.spec, objective, self.steps, self.rounds, self.solver)
        starts = [self._start(key, problem, one) for one in list_starts(self.start, KNOWN)]
        before, ends = [search.evaluate(values, start) for start in starts], []
        for i, start in enumerate(starts):
            ends.append(search.minimise(values, start))
            if progress:
                progress(i + 1, len(starts), f"{method} matching")
        best = ends[int(np.argmin([end.value for end in ends]))]
        history = np.array([*before, *(end.value for end in ends)], np.float32)
        return Match(
            best.permutation,
            jnp.asarray(np.float32(best.value)),
            jnp.asarray(history),
            jnp.asarray(np.int32(len(starts))),
            method,
        )

    def _start(self, key: jax.Array, problem: Problem, start: str | Permutation) -> Permutation:
        if start == "activation":
            return ActivationMatching(solver=self.solver)(key, problem).permutation
        if start == "weight":
            return WeightMatching(solver=self.solver).ascend(key, problem).permutation
        if start == "identity":
            return problem.spec.identity()
        if isinstance(start, str):
            method = WeightMatching(start, max_sweeps=1, solver=self.solver)
            return method.ascend(key, problem).permutation
        problem.spec.validate(start)
        return start
