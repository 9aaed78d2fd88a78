"""Activation matching: permute B's units so that its activations look like A's on the same data.

For every group, maximise `sum_i C[i, permutation[i]]` with C the cross-correlation of A's and B's
units over samples and positions (Li et al. 2015; Ainsworth et al. 2023). The groups do not depend
on each other: one pass over the data serves all of them, and one assignment solves each.

Activations are read from the trace: at every ReLU that carries the group, or, where there is none,
at every layer that does. A group with several such places sums their correlations.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from llfc_jax.errors import DataError, MatchingError, unknown
from llfc_jax.graph import Apply, Graph, Values, trace
from llfc_jax.matching.assignment.family import (
    composite,
    families,
    solve_family,
    units_in_all,
    value_of,
)
from llfc_jax.matching.assignment.solvers import Solver
from llfc_jax.matching.checks import check_modes
from llfc_jax.matching.data import Progress
from llfc_jax.matching.result import Matching
from llfc_jax.symmetry.axes import Permutation
from llfc_jax.symmetry.blocks import blocks
from llfc_jax.symmetry.derive import derive
from llfc_jax.symmetry.spec import PermutationSpec

Kind = Literal["uncentred", "centred", "pearson"]
KINDS: tuple[Kind, ...] = ("uncentred", "centred", "pearson")


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

    def units(self, values: Values) -> jax.Array:
        """[samples and positions, units of all groups together]."""
        cut = self.extract(values.all[self.value]).astype(jnp.float32)
        return cut.reshape(len(cut), -1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """Means and centred products of A's and B's units so far."""

    count: jax.Array
    mean_a: jax.Array  # [n]
    mean_b: jax.Array  # [n]
    square_a: jax.Array  # [n]: sum of squared deviations
    square_b: jax.Array  # [n]
    cross: jax.Array  # [n, n]: sum of products of deviations

    @classmethod
    def of(cls, a: jax.Array, b: jax.Array) -> "Moments":
        """Of activations [samples and positions, n units]."""
        mean_a, mean_b = a.mean(0), b.mean(0)
        a, b = a - mean_a[None, :], b - mean_b[None, :]
        count = jnp.array(len(a), jnp.float32)
        return cls(count, mean_a, mean_b, (a * a).sum(0), (b * b).sum(0), a.T @ b)

    def merge(self, other: "Moments") -> "Moments":
        """Of both sets together, exactly (Chan, Golub, LeVeque 1983)."""
        count = self.count + other.count
        share, weight = other.count / count, self.count * other.count / count
        by_a, by_b = other.mean_a - self.mean_a, other.mean_b - self.mean_b
        return Moments(
            count,
            self.mean_a + share * by_a,
            self.mean_b + share * by_b,
            self.square_a + other.square_a + weight * by_a**2,
            self.square_b + other.square_b + weight * by_b**2,
            self.cross + other.cross + weight * by_a[:, None] * by_b[None, :],
        )

    def scores(self, kind: Kind) -> jax.Array:
        """The cross-correlation of this kind: [n, n], A's units along the rows."""
        cross = self.cross / self.count
        if kind == "uncentred":
            return cross + self.mean_a[:, None] * self.mean_b[None, :]
        if kind == "centred":
            return cross
        # A unit that never changes correlates with nothing.
        scale_a, scale_b = (
            jnp.where(s > 0, jax.lax.rsqrt(jnp.maximum(s, jnp.finfo(s.dtype).tiny)), 0)
            for s in (self.square_a / self.count, self.square_b / self.count)
        )
        return cross * scale_a[:, None] * scale_b[None, :]


def readings(graph: Graph, spec: PermutationSpec) -> tuple[Reading, ...]:
    """Where each group is read: ReLUs if any carries it, else every site that does.

    Raises:
        MatchingError: a group that no site carries, or a spec of another network.
    """
    derived = derive(graph)
    if derived.spec.leaves != spec.leaves:
        raise MatchingError(
            "the spec is not the one that this network's trace gives, so that its activations "
            "cannot be told apart; pass permutation_spec(apply, a, x)"
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


def activation_matching(
    apply: Apply,
    spec: PermutationSpec,
    a: Any,
    b: Any,
    batches: Iterable[tuple[Any, Any]],
    *,
    kind: Kind = "pearson",
    solver: Solver = "auto",
    progress: Progress | None = None,
) -> Matching:
    """Match B's activations to A's.

    Args:
        apply: `apply(variables, x) -> logits`.
        spec: the spec that `permutation_spec` derived for this network.
        a: the mode that stays.
        b: the mode that is permuted.
        batches: data, pairs (x, y); the labels are not looked at. Read once.
        kind: "uncentred" products, "centred" (the covariance) or "pearson" (the correlation).
        solver: see `assign`.
        progress: called as (batches done, batches in all or 0, words).

    Returns:
        A `Matching` whose objective is the sum of the matched correlations: more is better.

    Raises:
        ModeError: `a` and `b` are no modes of one network.
        MatchingError: the spec is not that of the network's trace, or an unknown kind.
        DataError: there is no batch.
    """
    if kind not in KINDS:
        raise MatchingError(unknown("kind of correlation", kind, KINDS))
    check_modes(spec, a, b)
    run = _moments(apply, spec)
    places: tuple[Reading, ...] = ()
    sums: list[Moments] | None = None
    total = len(batches) if hasattr(batches, "__len__") else 0  # pyright: ignore[reportArgumentType]
    for i, (x, _) in enumerate(batches):
        x = jnp.asarray(x)
        places = places or readings(trace(apply, a, x), spec)
        sums = run(a, b, x, sums)
        if progress:
            progress(i + 1, total, "activations")
    if sums is None:
        raise DataError("activation matching needs data, and there is no batch")
    scores = [(r.groups, m.scores(kind)) for r, m in zip(places, sums, strict=True)]
    return _solved(spec, scores, solver)


@functools.lru_cache(maxsize=16)
def _moments(apply: Apply, spec: PermutationSpec) -> Callable[..., list[Moments]]:
    """The jitted moments of a batch, merged into those before it; serves every pair."""

    @jax.jit
    def run(a: Any, b: Any, x: jax.Array, sums: list[Moments] | None) -> list[Moments]:
        graph = trace(apply, a, x)
        of_a, of_b = graph.evaluate(a, x), graph.evaluate(b, x)
        new = [Moments.of(r.units(of_a), r.units(of_b)) for r in readings(graph, spec)]
        return new if sums is None else [s.merge(n) for s, n in zip(sums, new, strict=True)]

    return run


Scores = list[tuple[tuple[str, ...], jax.Array]]


def _solved(spec: PermutationSpec, scores: Scores, solver: Solver) -> Matching:
    """Assign every family; those read only where groups meet come after the others."""
    permutation = spec.identity()
    objective = jnp.zeros(())
    alone = {groups[0] for groups, _ in scores if len(groups) == 1}
    todo = families(spec)
    for root, inside in sorted(todo, key=lambda family: not alone & {family[0], *family[1]}):
        total = {
            name: _total(spec, permutation, name, scores, name in alone) for name in (root, *inside)
        }
        prices = jnp.zeros(spec.shape(root))
        permutation |= solve_family(spec, root, inside, total, prices, solver)[0]
        for name, matrix in total.items():
            objective += value_of(matrix, composite(spec, permutation, name))
    return Matching(permutation, objective, objective[None], jnp.array(1), "activation")


def _total(
    spec: PermutationSpec,
    permutation: Permutation,
    name: str,
    scores: Scores,
    alone: bool,
) -> jax.Array:
    """A group's scores over all its readings; groups it meets there are held as they are."""
    n = units_in_all(spec, name)
    total = jnp.zeros((n, n))
    for groups, matrix in scores:
        if name not in groups or alone != (len(groups) == 1):
            continue
        sizes = [units_in_all(spec, group) for group in groups]
        whole = matrix.reshape(sizes * 2)
        for i, group in enumerate(groups):
            if group != name:
                index = composite(spec, permutation, group)
                index = index.reshape([-1 if j == i else 1 for j in range(2 * len(groups))])
                whole = jnp.take_along_axis(whole, index, len(groups) + i, mode="clip")
        # Each met group stands at the same place on both sides now: sum over it.
        for i in reversed([i for i, group in enumerate(groups) if group != name]):
            whole = jnp.trace(whole, axis1=i, axis2=i + whole.ndim // 2)
        total += whole
    return total
