"""Merging: one network from two or many, each permuted to where it fits best."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from llfc_jax.errors import MatchingError
from llfc_jax.matching.assignment.solvers import Solver
from llfc_jax.matching.checks import check_modes
from llfc_jax.matching.methods.weight import weight_matching
from llfc_jax.pair import interpolate
from llfc_jax.symmetry.spec import PermutationSpec


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Merged:
    """The mean of several modes, each permuted towards it.

    Attributes:
        variables: the mean of the permuted modes.
        permutations: of each mode, in the order given.
        modes: the permuted modes.
        history: mean squared distance of the permuted modes to their mean, after each round.
    """

    variables: Any
    permutations: tuple[dict[str, jax.Array], ...]
    modes: tuple[Any, ...]
    history: jax.Array


def merge(
    key: jax.Array,
    spec: PermutationSpec,
    modes: Sequence[Any],
    *,
    rounds: int = 20,
    solver: Solver = "auto",
) -> Merged:
    """Merge modes by matching each to the mean of those in place, then to the mean of the others.

    The first pass places one mode after the other beside a running mean. Then each in turn is
    matched to the mean of all others, which can only raise `sum <π_i(θ_i), π_j(θ_j)>` over the
    pairs, so that the rounds end by themselves ("MergeMany" of Ainsworth et al. 2023). The first
    mode stays in place.
    Networks with BatchNorm need their statistics reset on the result before it means anything, and
    others gain from REPAIR (`llfc_jax.measures.renormalise`).

    Args:
        key: order of weight matching's visits.
        spec: which units may move.
        modes: two or more modes of one network.
        rounds: most turns of every mode.
        solver: see `assign`.

    Raises:
        ModeError: they are not modes of one network.
        MatchingError: fewer than two modes, or they do not fit the spec.
    """
    if len(modes) < 2 or rounds < 1:
        raise MatchingError(f"merging needs two or more modes and rounds, not {len(modes)}")
    for mode in modes[1:]:
        check_modes(spec, modes[0], mode)

    def place(key: jax.Array, number: int, target: Any, start: Any) -> dict[str, jax.Array]:
        own = jax.random.fold_in(key, number)
        found = weight_matching(own, spec, target, modes[number], start=start, solver=solver)
        return found.permutation

    placed, permutations = [modes[0]], [spec.identity()]
    for number in range(1, len(modes)):
        permutations.append(place(key, number, mean(placed), spec.identity()))
        placed.append(spec.apply(permutations[-1], modes[number]))
    history = [_spread(placed)]
    for turn in range(1, rounds):
        own, moved = jax.random.fold_in(key, len(modes) + turn), False
        for number in range(1, len(modes)):
            others = mean([mode for i, mode in enumerate(placed) if i != number])
            found = place(own, number, others, permutations[number])
            if any((found[g] != permutations[number][g]).any() for g in spec.group):
                permutations[number], moved = found, True
                placed[number] = spec.apply(found, modes[number])
        history.append(_spread(placed))
        if not moved:
            break
    return Merged(mean(placed), tuple(permutations), tuple(placed), jnp.array(history))


def mean(modes: Sequence[Any]) -> Any:
    """The mean of modes: floating-point leaves are averaged, any other is the first mode's."""
    total = modes[0]
    for count, mode in enumerate(modes[1:], 1):
        total = interpolate(total, mode, count / (count + 1))
    return total


def _spread(modes: Sequence[Any]) -> float:
    centre = jax.tree.leaves(mean(modes))
    squares = [
        jnp.sum((leaf - middle) ** 2)
        for mode in modes
        for leaf, middle in zip(jax.tree.leaves(mode), centre, strict=True)
        if jnp.issubdtype(middle.dtype, jnp.inexact)
    ]
    return float(sum(squares)) / len(modes)
