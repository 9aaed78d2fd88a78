"""Weight matching: permute B's units so that its weights lie close to A's; no data needed.

Maximises `sum over leaves <A, π(B)>` (Ainsworth et al. 2023, "Git Re-Basin") by coordinate ascent:
with all other groups held, the best permutation of one group is a linear assignment. From the
identity it finds what the published loop finds along the same visits, but builds a product anew
only after a group that enters it has moved, and solves a group again only after its scores have
changed. By default it starts elsewhere, where it ends higher (see `search.starts`).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from llfc_jax.errors import MatchingError, unknown
from llfc_jax.matching.assignment.family import families
from llfc_jax.matching.assignment.solvers import Solver, check_solver
from llfc_jax.matching.beyond.closed_form import match_closed_form
from llfc_jax.matching.beyond.sets import PERMUTATION, parse_symmetry
from llfc_jax.matching.problem import Problem, trainable
from llfc_jax.matching.registry import build_method, matching_method
from llfc_jax.matching.result import Match
from llfc_jax.matching.search.ascent import START_NAMES, AscentOptions, ascend_best
from llfc_jax.symmetry.axes import Permutation
from llfc_jax.symmetry.spec import PermutationSpec
from llfc_jax.types import ProgressFn, Variables

Start = str | Mapping[str, Any]
"""The name of a start, or a permutation."""
Starts = Start | tuple[Start, ...]

DEFAULT_START = "auto"


@matching_method("weight")
@dataclasses.dataclass(frozen=True)
class WeightMatching:
    """Brings weights of b towards weights of a, by coordinate ascent; needs no data.

    Attributes:
        start: where the ascent starts: "identity" (the published algorithm), "anchored",
            "relaxed", a permutation of B, or several of these; the best end is kept. "auto" is
            "anchored", and "relaxed" too where it takes little time.
        restarts: least number of starts; random permutations are added until there are as many.
        max_sweeps: most sweeps over all groups.
        tolerance: a gain below this share of `||A|| ||B||` is taken, but no longer makes the
            neighbours be solved again.
        solver: how assignments are solved, see `assign`.
        visits: names of the groups to visit, in this order and no others: replays a run.
        include: which leaves count, by path; by default every parameter, but no running
            statistics.
        symmetry: what may be moved: "permutation", or more (`beyond.sets`), by coordinate ascent
            in closed forms; the options above do not count then.
    """

    start: Starts = DEFAULT_START
    restarts: int = 1
    max_sweeps: int = 100
    tolerance: float = 1e-7
    solver: Solver = "auto"
    visits: tuple[str, ...] | None = None
    include: Callable[[str], bool] | None = None
    symmetry: str = PERMUTATION

    def __post_init__(self) -> None:
        """Checks names and ranges.

        Raises:
            MatchingError: one line that says which option is wrong.
        """
        if self.restarts < 1 or self.max_sweeps < 1:
            raise MatchingError("restarts and max_sweeps must be at least 1")
        if not self.tolerance >= 0:
            raise MatchingError(f"tolerance must be 0 or more, not {self.tolerance}")
        if self.visits is not None and not self.visits:
            raise MatchingError("visits is empty; name the groups to visit, or leave it out")
        check_solver(self.solver)
        list_starts(self.start, START_NAMES)
        parse_symmetry(self.symmetry)

    def __call__(
        self, key: jax.Array, problem: Problem, progress: ProgressFn | None = None
    ) -> Match:
        """Matches B's weights to A's.

        Returns:
            A `Match` whose objective is `sum over counted leaves <A, π(B)>`: more is better.
            `history` holds it after every sweep.

        Raises:
            ModeError: the modes are none of one network, or hold values that are not finite.
            MatchingError: they do not fit the spec, or an option does not.
        """
        if problem.symmetry is not None:
            return match_closed_form("weight", problem.checked(), problem.symmetry, progress)
        match = self.ascend(key, problem.checked(narrow=True))
        if progress:
            progress(1, 1, "weight matching")
        return match

    def ascend(self, key: jax.Array, problem: Problem) -> Match:
        """Returns the same for a problem that was checked before."""
        spec = problem.spec
        starts = list_starts(self.start, START_NAMES)
        given = [start for start in starts if not isinstance(start, str)]
        for permutation in given:
            spec.validate(permutation)
        options = AscentOptions(
            tuple(start if isinstance(start, str) else "given" for start in starts),
            self.restarts,
            self.max_sweeps,
            self.tolerance,
            self.solver,
            self._order(spec),
        )
        counted = self._counted(spec, problem.a)
        return ascend_best(key, spec, counted, options, problem.a, problem.b, given)

    def _order(self, spec: PermutationSpec) -> tuple[int, ...] | None:
        names = {root: i for i, (root, _) in enumerate(families(spec))}
        for name in self.visits or ():
            if name not in names:
                raise MatchingError(unknown("permutation group", name, names))
        return None if self.visits is None else tuple(names[name] for name in self.visits)

    def _counted(self, spec: PermutationSpec, a: Variables) -> frozenset[str]:
        counted = trainable(spec, a)
        if self.include is not None:
            counted = frozenset(path for path, _ in spec.leaves if self.include(path))
        if not counted:
            raise MatchingError(
                f"there is no leaf to match by; the paths look like {spec.leaves[0][0]!r}"
            )
        return counted


def weight_matching(
    key: jax.Array, spec: PermutationSpec, a: Variables, b: Variables, **options: object
) -> Match:
    """Matches B's weights to A's: `WeightMatching(**options)` on these modes.

    Args:
        key: order of the visits, as in the published code: sweep s takes
            `random.permutation(fold_in(key, s), groups)`; and random starts.
        spec: which units may move.
        a: the mode that stays.
        b: the mode that is permuted.
        **options: the fields of `WeightMatching`.

    Returns:
        See `WeightMatching.__call__`.
    """
    return build_method("weight", options)(key, Problem(None, spec, a, b))


def list_starts(start: Starts, known: tuple[str, ...]) -> tuple[str | Permutation, ...]:
    """Returns an option `start` as a tuple.

    Raises:
        MatchingError: there is none, or an unknown name.
    """
    starts = tuple(start) if isinstance(start, (tuple, list)) else (start,)
    if not starts:
        raise MatchingError(f"start is empty; name one or more of {', '.join(known)}")
    for one in starts:
        if isinstance(one, str) and one not in known:
            raise MatchingError(unknown("start", one, known))
    return starts
