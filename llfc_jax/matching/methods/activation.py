"""Activation matching: permute B's units so that its activations look like A's on the same data.

For every group, maximise `sum_i C[i, permutation[i]]` with C the cross-correlation of A's and B's
units over samples and positions (Li et al. 2015; Ainsworth et al. 2023). The groups do not depend
on each other: one pass over the data serves all of them, and one assignment solves each.

Activations are read from the trace: at every ReLU that carries the group, or, where there is none,
at every layer that does. A group with several such places sums their correlations.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from llfc_jax.errors import DataError, MatchingError, unknown
from llfc_jax.graph import Graph, Values, trace
from llfc_jax.graph.row_layout import RowLayout
from llfc_jax.matching.assignment.family import (
    assign_family,
    assigned_value,
    composite,
    families,
    host_identity,
    units_in_all,
)
from llfc_jax.matching.assignment.solvers import Solver, check_solver
from llfc_jax.matching.beyond.closed_form import match_closed_form
from llfc_jax.matching.beyond.sets import PERMUTATION, parse_symmetry
from llfc_jax.matching.problem import Problem
from llfc_jax.matching.registry import build_method, matching_method
from llfc_jax.matching.result import Match
from llfc_jax.symmetry.blocks import blocks
from llfc_jax.symmetry.derive import derive
from llfc_jax.symmetry.spec import PermutationSpec
from llfc_jax.tasks import count_batches
from llfc_jax.types import AnyArray, Apply, Batches, Inputs, Model, ProgressFn, Variables

Kind = Literal["uncentred", "centred", "pearson"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Reading(NamedTuple):
    """One place where activations are read.

    Attributes:
        groups: the groups along the value's axes; one, but for values on which groups meet.
        value: number of the value in the trace.
        extract: value -> [samples and positions, units of every group...].
    """

    groups: tuple[str, ...]
    value: int
    extract: Callable[[jax.Array], jax.Array]

    def units(
        self, values: Values, layout: RowLayout
    ) -> tuple[Float[Array, "rows units"], Float[Array, " rows"]]:
        """Returns the units of all groups together, a row per sample and position, and its mask."""
        value = values.all[self.value]
        counts = jnp.broadcast_to(layout.mask_of(self.value), value.shape)
        cut, counts = (self.extract(part).astype(jnp.float32) for part in (value, counts))
        return cut.reshape(len(cut), -1), counts.reshape(len(counts), -1)[:, 0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """Means and centred products of A's and B's units so far."""

    count: Float[Array, ""]
    mean_a: Float[Array, " n"]
    mean_b: Float[Array, " n"]
    square_a: Float[Array, " n"]  # sum of squared deviations
    square_b: Float[Array, " n"]
    cross: Float[Array, "n n"]  # sum of products of deviations

    @classmethod
    def of(
        cls, a: Float[Array, "rows n"], b: Float[Array, "rows n"], mask: Float[Array, " rows"]
    ) -> "Moments":
        """Returns those of activations, over the rows that count."""
        counts, count = mask[:, None] > 0, (mask > 0).sum(dtype=jnp.float32)
        a, b = (jnp.where(counts, of, 0) for of in (a, b))
        mean_a, mean_b = (of.sum(0) / jnp.maximum(count, 1) for of in (a, b))
        a, b = (jnp.where(counts, of - mean[None], 0) for of, mean in ((a, mean_a), (b, mean_b)))
        return cls(count, mean_a, mean_b, (a * a).sum(0), (b * b).sum(0), a.T @ b)

    def merge(self, other: "Moments") -> "Moments":
        """Returns those of both sets together, exactly (Chan, Golub, LeVeque 1983)."""
        count = self.count + other.count
        share = other.count / jnp.maximum(count, 1)
        weight = self.count * share
        by_a, by_b = other.mean_a - self.mean_a, other.mean_b - self.mean_b
        return Moments(
            count,
            self.mean_a + share * by_a,
            self.mean_b + share * by_b,
            self.square_a + other.square_a + weight * by_a**2,
            self.square_b + other.square_b + weight * by_b**2,
            self.cross + other.cross + weight * by_a[:, None] * by_b[None, :],
        )

    def scores(self, kind: Kind) -> np.ndarray:
        """Returns the cross-correlation of this kind, A's units along the rows: [n, n]."""
        count = np.maximum(np.float32(self.count), 1)
        cross = np.asarray(self.cross) / count
        if kind == "uncentred":
            return cross + np.outer(self.mean_a, self.mean_b)
        if kind == "centred":
            return cross
        scale_a, scale_b = (_inverse_root(s, count) for s in (self.square_a, self.square_b))
        return cross * np.outer(scale_a, scale_b)


def _inverse_root(square: AnyArray, count: np.floating[Any]) -> np.ndarray:
    """Returns 1 / the standard deviation; 0 for a constant unit, which correlates with nothing."""
    variance = np.asarray(square) / count
    return np.where(variance > 0, 1 / np.sqrt(np.where(variance > 0, variance, 1)), 0)


def readings(graph: Graph, spec: PermutationSpec) -> tuple[Reading, ...]:
    """Returns where each group is read: ReLUs if any carries it, else every site that does.

    Raises:
        MatchingError: a group that no site carries, or a spec of another network.
    """
    derived = derive(graph)
    if derived.spec.leaves != spec.leaves:
        raise MatchingError(
            "the spec is not the one that this network's trace gives, so that its activations "
            "cannot be distinguished; pass permutation_spec(apply, a, x)"
        )
    alone: dict[str, list[Reading]] = {group.name: [] for group in spec.groups}
    rectified: dict[str, list[Reading]] = {name: [] for name in alone}
    meeting: dict[str, list[Reading]] = {name: [] for name in alone}
    for name, axes in derived.spec.sites:
        site = graph[name]
        if site.sample_axis is None:
            continue
        for block in blocks(axes, spec.parents):
            reading = Reading(block.groups, site.value, block.extract)
            for group in block.groups:
                if len(block.groups) > 1:
                    meeting[group].append(reading)
                else:
                    (rectified if site.kind == "activation" else alone)[group].append(reading)
    chosen = {name: rectified[name] or alone[name] or meeting[name] for name in alone}
    for name in set(chosen) - set(spec.parents.values()):
        if not chosen[name]:
            raise MatchingError(
                f"no site of the network carries group {name!r}, so that it has no activations; "
                "match weights instead"
            )
    return tuple({(r.groups, r.value): r for of in chosen.values() for r in of}.values())


@matching_method("activation")
@dataclasses.dataclass(frozen=True)
class ActivationMatching:
    """Brings activations of b towards activations of a, over the train split.

    Attributes:
        kind: "uncentred" products, "centred" (the covariance) or "pearson" (the correlation).
        solver: see `assign`.
        symmetry: what may be moved: "permutation", or more (`beyond.sets`), by uncentred products
            of the features that weights read; the options above do not count then.
    """

    kind: Kind = "pearson"
    solver: Solver = "auto"
    symmetry: str = PERMUTATION

    def __post_init__(self) -> None:
        """Checks names.

        Raises:
            MatchingError: an unknown kind or solver; the line names the nearest.
        """
        if self.kind not in KINDS:
            raise MatchingError(unknown("kind of correlation", self.kind, KINDS))
        check_solver(self.solver)
        parse_symmetry(self.symmetry)

    def __call__(
        self, key: jax.Array, problem: Problem, progress: ProgressFn | None = None
    ) -> Match:
        """Matches B's activations to A's; the batches are read once.

        Args:
            key: not used.
            problem: its spec is the one that `permutation_spec` derived for the network.
            progress: called as (batches done, batches in all or 0, words).

        Returns:
            A `Match` whose objective is the sum of the matched correlations: more is better.

        Raises:
            ModeError: the modes are none of one network.
            MatchingError: the spec is not that of the network's trace.
            DataError: there is no batch.
        """
        del key
        if problem.symmetry is not None:
            return match_closed_form("activation", problem.checked(), problem.symmetry, progress)
        problem, apply = problem.checked(), problem.apply
        places: tuple[Reading, ...] = ()
        sums: list[Moments] | None = None
        total = count_batches(problem.batches)
        for i, (x, _, mask) in enumerate(problem.read_batches()):
            places = places or readings(trace(apply, problem.a, x), problem.spec)
            sums = _accumulate(apply, problem.spec, problem.a, problem.b, x, mask, sums)
            if progress:
                progress(i + 1, total, "activations")
        if sums is None:
            raise DataError("activation matching needs data, and there is no batch")
        scores = [(r.groups, m.scores(self.kind)) for r, m in zip(places, sums, strict=True)]
        return _assign_all(problem.spec, scores, self.solver)


def activation_matching(
    network: Model,
    spec: PermutationSpec,
    a: Variables,
    b: Variables,
    batches: Batches,
    *,
    progress: ProgressFn | None = None,
    **options: object,
) -> Match:
    """Matches B's activations to A's: `ActivationMatching(**options)` on these modes.

    Args:
        network: a module of any framework, or a function apply(variables, x).
        spec: the spec that `permutation_spec` derived for this network.
        a: the mode that stays.
        b: the mode that is permuted.
        batches: data, pairs (x, y).
        progress: called as (batches done, batches in all or 0, words).
        **options: the fields of `ActivationMatching`.

    Returns:
        See `ActivationMatching.__call__`.
    """
    method = build_method("activation", options)
    return method(jax.random.key(0), Problem(network, spec, a, b, batches), progress)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _accumulate(
    apply: Apply,
    spec: PermutationSpec,
    a: Variables,
    b: Variables,
    x: Inputs,
    mask: jax.Array,
    sums: list[Moments] | None,
) -> list[Moments]:
    """Returns the moments of a batch, merged into those before it."""
    with jax.default_matmul_precision("highest"):
        graph = trace(apply, a, x)
        layout = RowLayout.of(graph, apply, a, x, mask)
        of_a, of_b = graph.evaluate(a, x), graph.evaluate(b, x)
        new = []
        for reading in readings(graph, spec):
            (p, counts), (q, _) = (reading.units(run, layout) for run in (of_a, of_b))
            new.append(Moments.of(p, q, counts))
        return new if sums is None else [s.merge(n) for s, n in zip(sums, new, strict=True)]


Scores = Sequence[tuple[tuple[str, ...], np.ndarray]]


def _assign_all(spec: PermutationSpec, scores: Scores, solver: Solver) -> Match:
    """Assigns every family; those read only where groups meet come after the others."""
    permutation: dict[str, Any] = dict(host_identity(spec))
    objective = 0.0
    alone = {groups[0] for groups, _ in scores if len(groups) == 1}
    for family in sorted(families(spec), key=lambda f: not alone & {f[0], *f[1]}):
        total = {
            name: _total(spec, permutation, name, scores, name in alone)
            for name in (family[0], *family[1])
        }
        found = assign_family(spec, family, total, solver)
        permutation |= found
        for name, matrix in total.items():
            objective += float(assigned_value(matrix, composite(spec, permutation, name)))
    return Match(
        {name: jnp.asarray(index) for name, index in permutation.items()},
        jnp.asarray(np.float32(objective)),
        jnp.asarray(np.array([objective], np.float32)),
        jnp.asarray(np.int32(1)),
        "activation",
    )


def _total(
    spec: PermutationSpec,
    permutation: dict[str, np.ndarray],
    name: str,
    scores: Scores,
    alone: bool,
) -> np.ndarray:
    """Returns a group's scores over all its readings; groups it meets there are held fixed."""
    n = units_in_all(spec, name)
    total = np.zeros((n, n), np.float32)
    for groups, matrix in scores:
        if name not in groups or alone != (len(groups) == 1):
            continue
        sizes = [units_in_all(spec, group) for group in groups]
        whole = matrix.reshape(sizes * 2)
        for i, group in enumerate(groups):
            if group != name:
                index = composite(spec, permutation, group)
                whole = whole.take(index, axis=len(groups) + i)
        # Each met group stands at the same place on both sides now: sum over it.
        for i in reversed([i for i, group in enumerate(groups) if group != name]):
            whole = np.trace(whole, axis1=i, axis2=i + whole.ndim // 2)
        total += whole
    return total
