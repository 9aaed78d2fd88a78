"""Merging: one network from two or many, each permuted to where it fits best."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from llfc_jax.errors import MatchingError
from llfc_jax.matching.assignment.solvers import Solver
from llfc_jax.matching.methods.weight import DEFAULT_START, Starts, WeightMatching
from llfc_jax.matching.problem import Problem, cast, check_modes, widen
from llfc_jax.pair import interpolate
from llfc_jax.parallel.spread import relabel
from llfc_jax.symmetry.axes import Index, Permutation
from llfc_jax.symmetry.spec import PermutationSpec
from llfc_jax.types import Variables


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Merged:
    """The mean of several modes, each permuted towards it.

    Attributes:
        variables: the mean of the permuted modes, computed in float32 or wider.
        permutations: of each mode, in the order given.
        modes: the permuted modes.
        history: mean squared distance of the permuted modes to their mean, after each round.
    """

    variables: Variables
    permutations: tuple[Index, ...]
    modes: tuple[Variables, ...]
    history: Float[Array, " rounds"]


def merge(
    key: jax.Array,
    spec: PermutationSpec,
    modes: Sequence[Variables],
    *,
    rounds: int = 20,
    solver: Solver = "auto",
) -> Merged:
    """Merges modes by matching each to the mean of those in place, then to that of the others.

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
    wide = [widen(relabel(mode)) for mode in modes]

    def place(key: jax.Array, number: int, target: Variables, start: Starts) -> Index:
        key = jax.random.fold_in(key, number)
        method = WeightMatching(start, solver=solver)
        return method.ascend(key, Problem(None, spec, target, wide[number])).permutation

    placed, permutations = [wide[0]], [spec.identity()]
    for number in range(1, len(modes)):
        permutations.append(place(key, number, mean(placed), DEFAULT_START))
        placed.append(spec.apply(permutations[-1], wide[number]))
    history = [_spread(placed)]
    for turn in range(1, rounds):
        turn_key, moved = jax.random.fold_in(key, len(modes) + turn), False
        for number in range(1, len(modes)):
            others = mean([mode for i, mode in enumerate(placed) if i != number])
            found = place(turn_key, number, others, permutations[number])
            if not _same(found, permutations[number]):
                permutations[number], moved = found, True
                placed[number] = spec.apply(found, wide[number])
        history.append(_spread(placed))
        if not moved:
            break
    return Merged(
        _in_types_of(mean(placed), modes[0]),
        tuple(permutations),
        tuple(spec.apply(p, mode) for p, mode in zip(permutations, modes, strict=True)),
        jnp.asarray(np.array(history, np.float32)),
    )


def mean(modes: Sequence[Variables]) -> Variables:
    """Returns the mean of modes; a leaf that is not floating-point is the first mode's."""
    total = modes[0]
    for count, mode in enumerate(modes[1:], 1):
        total = interpolate(total, mode, count / (count + 1))
    return total


def _same(p: Permutation, q: Permutation) -> bool:
    return all(np.array_equal(p[name], q[name]) for name in p)


def _in_types_of(tree: Variables, model: Variables) -> Variables:
    return jax.tree.map(
        lambda leaf, other: leaf if leaf.dtype == other.dtype else cast(leaf, other.dtype),
        tree,
        model,
    )


@jax.jit
def _squared_distances(modes: list[Variables]) -> jax.Array:
    centre = jax.tree.leaves(mean(modes))
    squares = [
        jnp.sum((leaf - middle) ** 2)
        for mode in modes
        for leaf, middle in zip(jax.tree.leaves(mode), centre, strict=True)
        if jnp.issubdtype(middle.dtype, jnp.inexact)
    ]
    return jnp.asarray(sum(squares)) / len(modes)


def _spread(modes: list[Variables]) -> float:
    return float(_squared_distances(modes))
