"""Where descents start: other methods' ends, of which the best end is kept."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.errors import MatchingError, unknown
from llfc_jax.graph import Apply
from llfc_jax.matching.assignment.solvers import Solver
from llfc_jax.matching.data import Batches, Progress
from llfc_jax.matching.methods.activation import activation_matching
from llfc_jax.matching.methods.weight import weight_matching
from llfc_jax.matching.result import Matching
from llfc_jax.matching.search.frank_wolfe import Descent
from llfc_jax.symmetry.axes import Permutation
from llfc_jax.symmetry.spec import PermutationSpec

STARTS = ("weight", "activation")
KNOWN = ("identity", *STARTS)


def begin(
    key: jax.Array,
    apply: Apply,
    spec: PermutationSpec,
    a: Any,
    b: Any,
    batches: Batches,
    starts: Sequence[str | Permutation],
    solver: Solver,
) -> list[dict[str, jax.Array]]:
    """The permutations that stand behind the names of starts.

    Raises:
        MatchingError: no start, an unknown name, or a permutation of another network.
    """
    if isinstance(starts, str) or not starts:
        raise MatchingError(f"starts must be a list of one or more of {', '.join(KNOWN)}")
    for start in starts:
        if isinstance(start, str) and start not in KNOWN:
            raise MatchingError(unknown("start", start, KNOWN))
    found = []
    for start in starts:
        if start == "identity":
            found.append(spec.identity())
        elif start == "weight":
            found.append(weight_matching(key, spec, a, b, solver=solver).permutation)
        elif start == "activation":
            found.append(activation_matching(apply, spec, a, b, batches, solver=solver).permutation)
        else:
            assert not isinstance(start, str)
            spec.validate(start)
            found.append(dict(start))
    return found


def descend_from(
    descent: Descent,
    values: Any,
    starts: Sequence[Permutation],
    steps: int,
    rounds: int,
    method: str,
    progress: Progress | None,
) -> Matching:
    """Descend from every start and keep the lowest end.

    Raises:
        MatchingError: a number below 0.
    """
    if steps < 0 or rounds < 0:
        raise MatchingError("steps and rounds must be 0 or more")
    before, ends = [descent.at(values, start) for start in starts], []
    for i, start in enumerate(starts):
        ends.append(descent.run(values, start, steps, rounds))
        if progress:
            progress(i + 1, len(starts), f"{method} matching")
    best = ends[int(np.argmin([end.value for end in ends]))]
    history = jnp.array([*before, *(end.value for end in ends)])
    return Matching(
        best.permutation, jnp.array(best.value), history, jnp.array(len(starts)), method
    )
