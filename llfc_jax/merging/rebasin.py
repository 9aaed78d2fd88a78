"""Git Re-Basin: one network from independently trained ones, each permuted to where it fits."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from llfc_jax.errors import MatchingError, unknown
from llfc_jax.matching.assignment.solvers import Solver
from llfc_jax.matching.methods.weight import DEFAULT_START, Starts, WeightMatching
from llfc_jax.matching.problem import Problem, cast, check_modes, widen
from llfc_jax.merging.averages import Mean
from llfc_jax.merging.joint import match_jointly
from llfc_jax.merging.registry import merge_rule
from llfc_jax.merging.rule import Rule
from llfc_jax.pair import interpolate
from llfc_jax.parallel.spread import relabel
from llfc_jax.symmetry.axes import Index, Permutation
from llfc_jax.symmetry.spec import PermutationSpec
from llfc_jax.types import Variables

if TYPE_CHECKING:
    from llfc_jax.merging.inputs import MergeInputs

Placement = Literal["mean", "chain", "joint"]
"""How several modes are placed beside each other: see `merge_many`."""


@merge_rule("git_rebasin")
@dataclasses.dataclass(frozen=True)
class GitRebasin(Rule):
    """Permutes the units of each model to where they fit the others, then averages.

    For models that were trained independently, which have no base in common. The permutations are
    those of `merge_many`, by weight matching. Networks with BatchNorm need its statistics reset
    afterwards, and others gain from REPAIR.

    Source: Ainsworth, Hayase and Srinivasa, "Git Re-Basin: Merging models modulo permutation
    symmetries", ICLR 2023.

    Attributes:
        spec: which units may move (`symmetry.permutation_spec`).
        rounds: most turns of every model.
        seed: of the order in which groups of units are visited.
        solver: how assignments are solved, see `matching.assign`.
        place: how the models are placed first, see `merge_many`.
    """

    spec: PermutationSpec
    rounds: int = 20
    seed: int = 0
    solver: Solver = "auto"
    place: Placement = "mean"

    def merge(self, models: "MergeInputs") -> Variables:
        """Returns the mean of the permuted models.

        Raises:
            MatchingError: the models do not fit the spec.
            ModeError: they are not of one network.
        """
        models.check_whole(self.name)
        trees = [models.tree(i) for i in range(models.count)]
        if len(trees) == 1:
            return trees[0]
        key = jax.random.key(self.seed)
        merged = merge_many(
            key, self.spec, trees, rounds=self.rounds, solver=self.solver, place=self.place
        )
        return models.replace_trees(merged.modes).build(Mean())


@merge_rule("c2m3")
@dataclasses.dataclass(frozen=True)
class C2M3(GitRebasin):
    """Permutes all models at once to where they fit each other best, then averages.

    Source: Crisostomi, Fumero, Baieri, Bernard and Rodolà, "C²M³: Cycle-consistent multi-model
    merging", NeurIPS 2024.
    """

    rounds: int = 1
    place: Placement = "joint"


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


def merge_many(
    key: jax.Array,
    spec: PermutationSpec,
    modes: Sequence[Variables],
    *,
    rounds: int = 20,
    solver: Solver = "auto",
    place: Placement = "mean",
) -> Merged:
    """Permutes modes towards their mean, and takes it ("MergeMany").

    First the modes are placed. Then each in turn is matched to the mean of all others, which can
    only raise `sum <π_i(θ_i), π_j(θ_j)>` over the pairs, so that the rounds end by themselves. The
    first mode stays in place. Each mode has one permutation into the common order of units, so the
    way from one mode to another, `π_j⁻¹ π_i`, is the same by whatever modes between them it goes.
    Networks with BatchNorm need their statistics reset on the result before it means anything, and
    others gain from REPAIR (`llfc_jax.measures.renormalise`).

    Args:
        key: order of weight matching's visits.
        spec: which units may move.
        modes: two or more modes of one network.
        rounds: most turns of every mode, the placement among them; 1 leaves the modes as placed.
        solver: see `assign`.
        place: "mean" places one mode after the other beside the mean of those before; "chain"
            beside the one before; "joint" all at once (`match_jointly`).

    Raises:
        ModeError: they are not modes of one network.
        MatchingError: fewer than two modes, or they do not fit the spec.

    Source: Ainsworth, Hayase and Srinivasa, "Git Re-Basin", ICLR 2023, algorithm 3; "joint":
    Crisostomi et al., "C²M³: Cycle-consistent multi-model merging", NeurIPS 2024.
    """
    if place not in get_args(Placement):
        raise MatchingError(unknown("placement", place, get_args(Placement)))
    if len(modes) < 2:
        raise MatchingError(f"merging needs two or more modes, not {len(modes)}")
    if rounds < 1:
        raise MatchingError(f"rounds must be at least 1, not {rounds}")
    for mode in modes[1:]:
        check_modes(spec, modes[0], mode)
    wide = [widen(relabel(mode)) for mode in modes]

    def match(key: jax.Array, number: int, target: Variables, start: Starts) -> Index:
        key = jax.random.fold_in(key, number)
        method = WeightMatching(start, solver=solver)
        return method.ascend(key, Problem(None, spec, target, wide[number])).permutation

    placed, permutations = [wide[0]], [spec.identity()]
    for number in range(1, len(modes)):
        target = placed[-1] if place == "chain" else mean(placed)
        permutations.append(match(key, number, target, DEFAULT_START))
        placed.append(spec.apply(permutations[-1], wide[number]))
    if place == "joint":
        permutations = match_jointly(spec, wide, permutations, solver=solver)
        placed = [spec.apply(p, mode) for p, mode in zip(permutations, wide, strict=True)]
    history = [_spread(placed)]
    for turn in range(1, rounds):
        turn_key, moved = jax.random.fold_in(key, len(modes) + turn), False
        for number in range(1, len(modes)):
            others = mean([mode for i, mode in enumerate(placed) if i != number])
            found = match(turn_key, number, others, permutations[number])
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
