"""Several networks matched at once: each to one common order of units (C²M³).

The permutations π_i of n networks are sought that maximise

    F = sum over i < j of <π_i(θ_i), π_j(θ_j)>,

all of them together. As in the Frank-Wolfe search for a pair, each group's permutation becomes a
doubly stochastic matrix; in each step the slope's best permutations, an assignment for each network
and group, are the point towards which all matrices move, as far as that raises F. What comes out is
rounded, and kept if it is better than the start. F has many local maxima; several searches, the
first from the networks as they are, the others from there and part of the way to matrices without
any preference, find better ones than one. Every pair of networks is related through the
common order, π_j⁻¹ π_i, so there is no cycle along which the relations could disagree.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from llfc_jax.errors import MatchingError
from llfc_jax.matching.assignment.family import as_numpy, assign_family, families
from llfc_jax.matching.assignment.solvers import Solver
from llfc_jax.matching.problem import check_modes, trainable
from llfc_jax.matching.search.mixtures import as_mixture, mix
from llfc_jax.symmetry.axes import Index, Permutation
from llfc_jax.symmetry.spec import PermutationSpec
from llfc_jax.types import Variables

STEPS = 60
LENGTHS = (1.0, 0.7, 0.5, 0.35, 0.2, 0.1, 0.05, 0.02)  # of a step, compared in one program
SHARES = (1.0, 0.7, 0.5, 0.3)  # of the start in the first matrices, the rest being spread evenly
STILL = 1e-5  # relative gain below which a search has ended

Stacked = dict[str, Float[Array, "modes n n"]]
"""A doubly stochastic matrix of each group for each network."""


def match_jointly(
    spec: PermutationSpec,
    modes: Sequence[Variables],
    start: Sequence[Permutation] | None = None,
    *,
    steps: int = STEPS,
    solver: Solver = "auto",
) -> list[Index]:
    """Permutes all modes at once to where they fit each other best.

    Args:
        spec: which units may move.
        modes: two or more modes of one network, in float32 or wider; all lie on the device.
        start: permutations that the search starts from, beside the modes as they are.
        steps: most steps of a search.
        solver: see `assign`.

    Returns:
        The permutation of each mode into the common order, which is the first mode's.

    Raises:
        ModeError: they are not modes of one network, or hold NaN.
        MatchingError: there is none, or they do not fit the spec.

    Source: Crisostomi et al., "C²M³: Cycle-consistent multi-model merging", NeurIPS 2024.
    """
    if not modes:
        raise MatchingError("there is no mode to match; pass two or more")
    for mode in modes:
        check_modes(spec, modes[0], mode)
    names = trainable(spec, modes[0])
    counted = tuple(i for i, (path, _) in enumerate(spec.leaves) if path in names)
    every = list(zip(*(jax.tree.leaves(mode) for mode in modes), strict=True))
    leaves = [jnp.stack([jnp.asarray(leaf) for leaf in every[i]]) for i in counted]
    identity = [spec.identity() for _ in modes]
    begun = [(identity, share) for share in SHARES]
    begun += [] if start is None else [(list(start), 1.0)]
    ends = [_search(spec, counted, leaves, *begin, steps, solver) for begin in begun]
    best, _ = max(ends, key=lambda end: end[1])
    back = spec.invert(best[0])
    return [spec.compose(back, permutation) for permutation in best]


def agreement(
    spec: PermutationSpec, modes: Sequence[Variables], permutations: Sequence[Permutation]
) -> float:
    """Returns F: the inner products of all pairs of permuted modes, summed."""
    names = trainable(spec, modes[0])
    placed = [spec.apply(p, mode) for p, mode in zip(permutations, modes, strict=True)]
    total = 0.0
    for (path, _), *leaves in zip(spec.leaves, *map(jax.tree.leaves, placed), strict=True):
        if path in names:
            flat = np.stack([np.asarray(leaf, np.float64).ravel() for leaf in leaves])
            total += (np.square(flat.sum(0)).sum() - np.square(flat).sum()) / 2
    return float(total)


def _search(
    spec: PermutationSpec,
    counted: tuple[int, ...],
    leaves: list[jax.Array],
    start: Sequence[Permutation],
    share: float,
    steps: int,
    solver: Solver,
) -> tuple[list[Index], float]:
    """Returns the best of the start and the rounded end of a search, and its F."""
    begin = _stack([as_mixture(spec, dict(permutation)) for permutation in start])
    best = [{name: jnp.asarray(index) for name, index in p.items()} for p in start]
    reached = float(_agree(spec, counted, leaves, begin))
    mixtures = {name: share * m + (1 - share) / m.shape[-1] for name, m in begin.items()}
    value = float(_agree(spec, counted, leaves, mixtures))
    for _ in range(steps):
        slope = _slope(spec, counted, leaves, mixtures)
        corner = _round(spec, slope, solver)
        target = _stack([as_mixture(spec, permutation) for permutation in corner])
        mixtures, moved = _move(spec, counted, leaves, mixtures, target)
        gain, value = float(moved) - value, float(moved)
        if gain <= STILL * abs(value):
            break
    rounded = _round(spec, mixtures, solver)
    at_end = _stack([as_mixture(spec, permutation) for permutation in rounded])
    end = float(_agree(spec, counted, leaves, at_end))
    return (rounded, end) if end > reached else (best, reached)


def _stack(mixtures: Sequence[dict[str, jax.Array]]) -> Stacked:
    return {name: jnp.stack([mixture[name] for mixture in mixtures]) for name in mixtures[0]}


def _round(spec: PermutationSpec, matrices: Stacked, solver: Solver) -> list[Index]:
    """Returns the permutation with the largest inner product with each network's matrices."""
    host = as_numpy(matrices)
    count = len(next(iter(host.values()))) if host else 0
    found: list[Index] = []
    for i in range(count):
        scores = {name: matrix[i] for name, matrix in host.items()}
        index: dict[str, np.ndarray] = {}
        for family in families(spec):
            index |= assign_family(spec, family, scores, solver)
        found.append({name: jnp.asarray(p) for name, p in index.items()})
    return found


@functools.partial(jax.jit, static_argnums=(0, 1))
def _agree(
    spec: PermutationSpec, counted: tuple[int, ...], leaves: list[jax.Array], mixtures: Stacked
) -> jax.Array:
    """Returns F at matrices: ½ (|sum of all|² - sum of all squares), leaf by leaf."""
    total = jnp.zeros(())
    with jax.default_matmul_precision("highest"):
        for number, stacked in zip(counted, leaves, strict=True):
            axes = spec.leaves[number][1]
            mixed = jax.vmap(lambda leaf, own, axes=axes: mix(leaf, axes, own, spec.parents))(
                stacked, mixtures
            )
            total += (jnp.square(mixed.sum(0)).sum() - jnp.square(mixed).sum()) / 2
    return total


_slope = jax.jit(jax.grad(_agree, argnums=3), static_argnums=(0, 1))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _move(
    spec: PermutationSpec,
    counted: tuple[int, ...],
    leaves: list[jax.Array],
    mixtures: Stacked,
    target: Stacked,
) -> tuple[Stacked, jax.Array]:
    """Returns the matrices moved towards permutations as far as helps, and F there."""

    def moved(length: jax.Array) -> Stacked:
        return {name: m + length * (target[name] - m) for name, m in mixtures.items()}

    lengths = jnp.array((0.0, *LENGTHS), jnp.float32)
    tried = jax.lax.map(lambda t: _agree(spec, counted, leaves, moved(t)), lengths)
    at = jnp.argmax(tried)
    return moved(lengths[at]), tried[at]
