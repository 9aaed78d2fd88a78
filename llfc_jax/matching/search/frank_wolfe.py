"""Descent on any objective of a permutation, through doubly stochastic matrices.

The permutation of every group becomes a mixture of permutations (`mixing`), on which the objective
is smooth. Frank-Wolfe: the slope's best permutation is one assignment per group, and the mixture
moves towards it as far as lowers the objective. Its end is no permutation yet, and the nearest one
is worse than it by some gap. So the descent goes on with a penalty `μ Σ (1 - ||M||² / n)` over the
groups' matrices, which is zero on permutations alone, and with μ doubled from round to round; the
first penalty is a fraction of what would outweigh the gap. (Frank-Wolfe on the relaxed problem:
Vogelstein et al. 2015, "Fast approximate quadratic programming"; the growing penalty: Zaslavskiy et
al. 2009, "A path following algorithm".)

The best of the start and of every round's nearest permutation is kept, so that no descent ends
above its start.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.matching.assignment.family import families, solve_family
from llfc_jax.matching.assignment.solvers import Solver
from llfc_jax.matching.search.mixtures import Mixture, as_mixture
from llfc_jax.symmetry.axes import Permutation
from llfc_jax.symmetry.spec import PermutationSpec

Objective = Callable[[Any, Mixture], jax.Array]
"""(values, mixture) -> the number to lower; `values` is any pytree of arrays."""

LENGTHS = (1.0, 0.6, 0.35, 0.2, 0.1, 0.04, 0.015)  # of a step, tried side by side
ROUNDS = 6
_FIRST = 0.3  # first penalty, as a share of what outweighs the gap at the relaxed end
_STILL = 1e-5  # relative gain below which a descent has ended


class End(NamedTuple):
    """What a descent found.

    Attributes:
        permutation: the best permutation seen.
        value: its objective.
        relaxed: the objective at the relaxed end, before any penalty: no bound, since the problem
            is not convex, but it shows what rounding costs.
    """

    permutation: dict[str, jax.Array]
    value: float
    relaxed: float


class Descent:
    """The compiled parts of a descent on one objective."""

    def __init__(self, spec: PermutationSpec, objective: Objective, solver: Solver = "auto"):
        self.spec, self.objective = spec, objective
        self.solver: Solver = solver
        self.families = families(spec)
        self._at = jax.jit(lambda values, p: objective(values, as_mixture(spec, p)))
        self._mixture = jax.jit(functools.partial(as_mixture, spec))
        self._step = jax.jit(self._forward)
        self._nearest = jax.jit(self.nearest)
        self._slack = jax.jit(_slack)

    def at(self, values: Any, permutation: Permutation) -> float:
        """The objective at a permutation."""
        return float(self._at(values, dict(permutation)))

    def nearest(self, mixture: Mixture) -> dict[str, jax.Array]:
        """The permutation with the largest inner product with a mixture."""
        permutation: dict[str, jax.Array] = {}
        for root, inside in self.families:
            own = {name: mixture[name] for name in (root, *inside)}
            prices = jnp.zeros(self.spec.shape(root))
            permutation |= solve_family(self.spec, root, inside, own, prices, self.solver)[0]
        return permutation

    def run(self, values: Any, start: Permutation, steps: int, rounds: int = ROUNDS) -> End:
        """Descend from a permutation.

        Args:
            values: first argument of the objective.
            start: where to start.
            steps: most steps without a penalty; every round with one has half as many.
            rounds: number of rounds with a penalty, each twice as large as the last.
        """
        best, lowest = dict(start), self.at(values, start)
        mixture, relaxed = self._settle(values, self._mixture(best), 0.0, steps)
        penalty = 0.0
        for turn in range(rounds + 1):
            if turn:
                mixture, _ = self._settle(values, mixture, penalty, -(-steps // 2))
            found = self._nearest(mixture)
            value = self.at(values, found)
            if value < lowest:
                best, lowest = found, value
            slack = float(self._slack(mixture))
            if slack < 1e-3:
                break
            outweighs = max(value - relaxed, _STILL * abs(relaxed)) / slack
            penalty = 2 * penalty if penalty else _FIRST * outweighs
        return End(best, lowest, relaxed)

    def _settle(
        self, values: Any, mixture: Mixture, penalty: float, steps: int
    ) -> tuple[Mixture, float]:
        """Steps until none lowers the penalised objective; its value there."""
        value = np.inf
        for _ in range(steps):
            mixture, after, before = self._step(values, mixture, penalty)
            value = float(after)
            if value >= float(before) * (1 - _STILL):
                break
        return mixture, value

    def _forward(
        self, values: Any, mixture: Mixture, penalty: jax.Array
    ) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
        """One Frank-Wolfe step: the mixture, the penalised objective after it and before."""

        def penalised(m: dict[str, jax.Array]) -> jax.Array:
            return self.objective(values, m) + penalty * _slack(m)

        mixture = dict(mixture)
        before, slope = jax.value_and_grad(penalised)(mixture)
        corner = as_mixture(self.spec, self.nearest({name: -g for name, g in slope.items()}))

        def moved(length: jax.Array) -> dict[str, jax.Array]:
            return {name: m + length * (corner[name] - m) for name, m in mixture.items()}

        lengths = jnp.array(LENGTHS)
        tried = jax.lax.map(lambda length: penalised(moved(length)), lengths)
        at = jnp.argmin(tried)
        lower = tried[at] < before
        return (
            moved(jnp.where(lower, lengths[at], 0)),
            jnp.where(lower, tried[at], before),
            before,
        )


def _slack(mixture: Mixture) -> jax.Array:
    """How far a mixture is from a permutation: zero there, below the number of groups."""
    return jnp.asarray(sum(1 - jnp.sum(m * m) / len(m) for m in mixture.values()))
