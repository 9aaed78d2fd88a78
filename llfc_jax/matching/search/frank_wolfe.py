"""Frank-Wolfe on any objective of a permutation, through doubly stochastic matrices.

The permutation of every group becomes a mixture of permutations (`mixtures`), on which the
objective is smooth. In each step the slope's best permutation is one assignment per group, and the
mixture moves towards it as far as that lowers the objective. The end is no permutation yet, and the
nearest one is worse than it by some gap. So the search goes on with a penalty
`μ Σ (1 - ||M||² / n)` over the groups' matrices, which is zero on permutations alone, and with μ
doubled from round to round; the first penalty is a fraction of what would outweigh the gap.
(Frank-Wolfe on the relaxed problem: Vogelstein et al. 2015, "Fast approximate quadratic
programming"; the growing penalty: Zaslavskiy et al. 2009, "A path following algorithm".)

The best of the start and of every round's nearest permutation is kept, so that no search ends above
its start. Slopes and line searches are compiled; assignments are solved on the host.
"""

import dataclasses
import functools
from collections.abc import Hashable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from llfc_jax.matching.assignment.family import assign_family, families
from llfc_jax.matching.assignment.solvers import Solver
from llfc_jax.matching.search.mixtures import Mixture, as_mixture
from llfc_jax.symmetry.axes import Index, Permutation
from llfc_jax.symmetry.spec import PermutationSpec

LENGTHS = (1.0, 0.6, 0.35, 0.2, 0.1, 0.04, 0.015)  # of a step, compared in one program
ROUNDS = 6
_FIRST = 0.3  # first penalty, as a share of what outweighs the gap at the relaxed end
_STILL = 1e-5  # relative gain below which a search has ended


class Objective(Hashable, Protocol):
    """A number to lower; hashable, so that programs are compiled once for equal objectives."""

    def __call__(self, values: PyTree, mixture: Mixture) -> jax.Array:
        """Returns the objective at a mixture; `values` is any tree of arrays."""
        ...


class End(NamedTuple):
    """What a search found.

    Attributes:
        permutation: the best permutation seen.
        value: its objective.
        relaxed: the objective at the relaxed end, before any penalty: no bound, since the problem
            is not convex, but it shows what rounding costs.
    """

    permutation: Index
    value: float
    relaxed: float


@dataclasses.dataclass(frozen=True)
class FrankWolfe:
    """A search for the permutation with the lowest objective.

    Attributes:
        spec: which units may move.
        objective: what is lowered.
        steps: most steps without a penalty; every round with one has half as many.
        rounds: number of rounds with a penalty, each twice as large as the last.
        solver: see `assign`.
    """

    spec: PermutationSpec
    objective: Objective
    steps: int
    rounds: int = ROUNDS
    solver: Solver = "auto"

    def evaluate(self, values: PyTree, permutation: Permutation) -> float:
        """Returns the objective at a permutation."""
        return float(_at_permutation(self.spec, self.objective, values, dict(permutation)))

    def minimise(self, values: PyTree, start: Permutation) -> End:
        """Searches from a permutation; `values` is the first argument of the objective."""
        best, lowest = dict(start), self.evaluate(values, start)
        mixture, relaxed = self._settle(values, _mixture(self.spec, best), 0.0, self.steps)
        penalty = 0.0
        for turn in range(self.rounds + 1):
            if turn:
                mixture, _ = self._settle(values, mixture, penalty, -(-self.steps // 2))
            found = self._nearest(mixture)
            value = self.evaluate(values, found)
            if value < lowest:
                best, lowest = found, value
            slack = float(_slack(mixture))
            if slack < 1e-3:
                break
            outweighs = max(value - relaxed, _STILL * abs(relaxed)) / slack
            penalty = 2 * penalty if penalty else _FIRST * outweighs
        return End(best, lowest, relaxed)

    def _settle(
        self, values: PyTree, mixture: Mixture, penalty: float, steps: int
    ) -> tuple[Mixture, float]:
        """Steps until none lowers the penalised objective; its value there."""
        value = np.inf
        for _ in range(steps):
            before, slope = _slope(self.objective, values, mixture, penalty)
            corner = self._nearest(jax.tree.map(lambda g: -np.asarray(g), slope))
            mixture, after = _move(
                self.spec, self.objective, values, mixture, penalty, before, corner
            )
            value = float(after)
            if value >= float(before) * (1 - _STILL):
                break
        return mixture, value

    def _nearest(self, mixture: Mixture) -> Index:
        """The permutation with the largest inner product with a mixture."""
        host = {name: np.asarray(matrix) for name, matrix in mixture.items()}
        found: dict[str, np.ndarray] = {}
        for family in families(self.spec):
            found |= assign_family(self.spec, family, host, self.solver)
        return {name: jnp.asarray(index) for name, index in found.items()}


def _penalised(
    objective: Objective, values: PyTree, mixture: Mixture, penalty: jax.Array
) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        return objective(values, mixture) + penalty * _slack(mixture)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _at_permutation(
    spec: PermutationSpec, objective: Objective, values: PyTree, permutation: Index
) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        return objective(values, as_mixture(spec, permutation))


@functools.partial(jax.jit, static_argnums=0)
def _slope(
    objective: Objective, values: PyTree, mixture: Mixture, penalty: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The penalised objective at a mixture, and its gradient."""
    return jax.value_and_grad(_penalised, 2)(objective, values, dict(mixture), penalty)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _move(
    spec: PermutationSpec,
    objective: Objective,
    values: PyTree,
    mixture: Mixture,
    penalty: jax.Array,
    before: jax.Array,
    corner: Index,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """The mixture moved towards a permutation as far as lowers the objective, and its value."""
    target = as_mixture(spec, corner)

    def moved(length: jax.Array) -> dict[str, jax.Array]:
        return {name: m + length * (target[name] - m) for name, m in mixture.items()}

    lengths = jnp.array(LENGTHS, jnp.float32)
    tried = jax.lax.map(lambda t: _penalised(objective, values, moved(t), penalty), lengths)
    at = jnp.argmin(tried)
    lower = tried[at] < before
    return moved(jnp.where(lower, lengths[at], 0)), jnp.where(lower, tried[at], before)


@jax.jit
def _slack(mixture: Mixture) -> jax.Array:
    """How far a mixture is from a permutation: zero there, below the number of groups."""
    return jnp.asarray(sum(1 - jnp.sum(m * m) / len(m) for m in mixture.values()))


@functools.partial(jax.jit, static_argnums=0)
def _mixture(spec: PermutationSpec, permutation: Index) -> dict[str, jax.Array]:
    return as_mixture(spec, permutation)
