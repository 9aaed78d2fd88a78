"""Git Re-Basin: one network from independently trained ones, each permuted to where it fits."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from llfc_jax.errors import MatchingError, unknown
from llfc_jax.matching.assignment.solvers import Solver
from llfc_jax.matching.beyond.closed_form import closed_form
from llfc_jax.matching.methods.weight import DEFAULT_START, WeightMatching
from llfc_jax.matching.problem import Problem, cast, check_modes, widen
from llfc_jax.merging.averages import Mean
from llfc_jax.merging.joint import match_jointly
from llfc_jax.merging.registry import merge_rule
from llfc_jax.merging.rule import Rule
from llfc_jax.pair import interpolate
from llfc_jax.parallel.spread import relabel
from llfc_jax.symmetry.axes import Index
from llfc_jax.symmetry.beyond.element import Element
from llfc_jax.symmetry.beyond.spec import SymmetrySpec
from llfc_jax.symmetry.beyond.transport import Transport
from llfc_jax.symmetry.spec import PermutationSpec
from llfc_jax.types import Variables

if TYPE_CHECKING:
    from llfc_jax.merging.inputs import MergeInputs

STILL = 1e-6  # relative gain below which a mode stays where it is
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
        spec: which units may move (`symmetry.permutation_spec`), or all that may be done
            (`symmetry.symmetry_spec`, or what `matching.restrict` leaves of it).
        rounds: most turns of every model.
        seed: of the order in which groups of units are visited.
        solver: how assignments are solved, see `matching.assign`.
        place: how the models are placed first, see `merge_many`.
    """

    spec: PermutationSpec | SymmetrySpec
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
    """The mean of several modes, each moved towards it.

    Attributes:
        variables: the mean of the moved modes, computed in float32 or wider.
        permutations: of each mode, in the order given.
        modes: the moved modes.
        history: mean squared distance of the moved modes to their mean, after each round.
        transports: what takes each mode to the common frame, where more than units is moved.
    """

    variables: Variables
    permutations: tuple[Index, ...]
    modes: tuple[Variables, ...]
    history: Float[Array, " rounds"]
    transports: tuple[Transport, ...] = ()


def merge_many(
    key: jax.Array,
    spec: PermutationSpec | SymmetrySpec,
    modes: Sequence[Variables],
    *,
    rounds: int = 20,
    solver: Solver = "auto",
    place: Placement = "mean",
) -> Merged:
    """Moves modes towards their mean, and takes it ("MergeMany").

    First the modes are placed. Then each in turn is matched to the mean of all others, and what is
    found is taken where it brings the mode nearer to them, so that the rounds end by themselves.
    The first mode stays in place. Each mode is moved once into the common frame, so the way from
    one mode to another, `g_j⁻¹ g_i`, is the same by whatever modes between them it goes.
    Networks with BatchNorm need their statistics reset on the result before it means anything, and
    others gain from REPAIR (`llfc_jax.measures.renormalise`).

    Args:
        key: order of weight matching's visits.
        spec: which units may move, or all that may be done: then modes are folded, matched by
            weights over the whole symmetry, and given the first mode's gains.
        modes: two or more modes of one network.
        rounds: most turns of every mode, the placement among them; 1 leaves the modes as placed.
        solver: see `assign`.
        place: "mean" places one mode after the other beside the mean of those before; "chain"
            beside the one before; "joint" all at once (`match_jointly`; units only).

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
    units = spec.unfolded if isinstance(spec, SymmetrySpec) else spec
    for mode in modes[1:]:
        check_modes(units, modes[0], mode)
    wide = [widen(relabel(mode)) for mode in modes]
    if isinstance(spec, SymmetrySpec):
        if place == "joint":
            raise MatchingError(
                'place="joint" moves units only; pass a permutation spec, or place="mean"'
            )
        moving = Transporting(spec, [spec.fold(mode) for mode in wide])
    else:
        moving = Permuting(spec, wide, key, solver)
    moves, history = _settle(moving, rounds, place)
    placed = [moving.apply(number, move) for number, move in enumerate(moves)]
    return moving.merged(moves, placed, modes, jnp.asarray(np.array(history, np.float32)))


def _settle(
    moving: "Permuting | Transporting", rounds: int, place: Placement
) -> tuple[list[Any], list[float]]:
    """Returns how each mode is moved, and their spread after each round."""
    count = len(moving.modes)
    moves: list[Any] = [moving.identity()]
    placed = [moving.modes[0]]
    for number in range(1, count):
        target = placed[-1] if place == "chain" else mean(placed)
        moves.append(moving.match(number, target, 0, None))
        placed.append(moving.apply(number, moves[-1]))
    if place == "joint":
        assert isinstance(moving, Permuting)
        moves = match_jointly(moving.spec, moving.modes, moves, solver=moving.solver)
        placed = [moving.apply(number, move) for number, move in enumerate(moves)]
    history = [_spread(placed)]
    for turn in range(1, rounds):
        nearer = False
        for number in range(1, count):
            others = mean([mode for i, mode in enumerate(placed) if i != number])
            found: Any = moving.match(number, others, turn, moves[number])
            tried = moving.apply(number, found)
            if _spread([tried, others]) < (1 - STILL) * _spread([placed[number], others]):
                moves[number], placed[number], nearer = found, tried, True
        history.append(_spread(placed))
        if not nearer:
            break
    return moves, history


@dataclasses.dataclass(frozen=True)
class Permuting:
    """Modes whose units are permuted, by weight matching.

    Attributes:
        spec: which units may move.
        modes: in float32 or wider.
        key: order of the visits.
        solver: see `assign`.
    """

    spec: PermutationSpec
    modes: Sequence[Variables]
    key: jax.Array
    solver: Solver

    def identity(self) -> Index:
        """The move that leaves a mode where it is."""
        return self.spec.identity()

    def match(self, number: int, target: Variables, turn: int, start: Index | None) -> Index:
        """Returns the permutation that brings a mode to a target."""
        count = len(self.modes)
        key = jax.random.fold_in(self.key, count + turn) if turn else self.key
        method = WeightMatching(DEFAULT_START if start is None else start, solver=self.solver)
        problem = Problem(None, self.spec, target, self.modes[number])
        return method.ascend(jax.random.fold_in(key, number), problem).permutation

    def apply(self, number: int, move: Index) -> Variables:
        """Returns a mode after a move."""
        return self.spec.apply(move, self.modes[number])

    def merged(
        self,
        moves: Sequence[Index],
        placed: Sequence[Variables],
        modes: Sequence[Variables],
        history: jax.Array,
    ) -> Merged:
        """Returns the mean, and the modes as they were given, permuted."""
        moved = tuple(self.spec.apply(p, mode) for p, mode in zip(moves, modes, strict=True))
        return Merged(_in_types_of(mean(placed), modes[0]), tuple(moves), moved, history)


@dataclasses.dataclass(frozen=True)
class Transporting:
    """Modes that are moved by all their symmetry, by weight matching in closed form.

    Attributes:
        spec: what may be done.
        modes: folded, in float32 or wider.
    """

    spec: SymmetrySpec
    modes: Sequence[Variables]

    def identity(self) -> Element:
        """The move that leaves a mode where it is."""
        return self.spec.identity()

    def match(self, number: int, target: Variables, turn: int, start: Element | None) -> Element:
        """Returns the element that brings a mode to a target; it starts anew in each turn."""
        problem = Problem(None, self.spec.permutations, target, self.modes[number])
        return closed_form("weight", problem, self.spec)[0]

    def apply(self, number: int, move: Element) -> Variables:
        """Returns a mode after a move."""
        return self.spec.apply(move, self.modes[number])

    def merged(
        self,
        moves: Sequence[Element],
        placed: Sequence[Variables],
        modes: Sequence[Variables],
        history: jax.Array,
    ) -> Merged:
        """Returns the mean and the modes, with the first mode's gains."""
        first = Transport(self.spec, self.identity(), {}).to(widen(modes[0]))
        transports = tuple(dataclasses.replace(first, element=move) for move in moves)
        unfolded = [self.spec.unfold(mode, first.gains) for mode in (mean(placed), *placed)]
        typed = [_in_types_of(mode, modes[0]) for mode in unfolded]
        permutations = tuple(dict(move.permutation) for move in moves)
        return Merged(typed[0], permutations, tuple(typed[1:]), history, transports)


def mean(modes: Sequence[Variables]) -> Variables:
    """Returns the mean of modes; a leaf that is not floating-point is the first mode's."""
    total = modes[0]
    for count, mode in enumerate(modes[1:], 1):
        total = interpolate(total, mode, count / (count + 1))
    return total


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
