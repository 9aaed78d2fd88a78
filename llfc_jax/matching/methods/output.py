"""Output matching: aim at linear feature connectivity itself, at the network's output.

Layerwise linear feature connectivity at the output says f(θ_½) = (f(A) + f(B)) / 2, π(B) having
B's outputs whatever the permutation π. So the right side is known before matching, and how far the
midpoint is from it is one number,

    D(π) = mean over samples of KL( p || softmax f((A + π(B)) / 2) ),
    p = softmax (f(A) + f(B)) / 2,

which sums up what all layers' failing commutativity and weak additivity do. It needs no labels. It
is lowered by `relax`, through mixtures: the midpoint then is (A + Σ_k w_k π_k(B)) / 2.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from llfc_jax.graph import Apply
from llfc_jax.graph.convolutions import adapted
from llfc_jax.matching.assignment.solvers import Solver
from llfc_jax.matching.checks import check_modes
from llfc_jax.matching.data import Batches, Progress, take
from llfc_jax.matching.result import Matching
from llfc_jax.matching.search.frank_wolfe import ROUNDS, Descent
from llfc_jax.matching.search.mixtures import Mixture, mix
from llfc_jax.matching.search.starts import STARTS, begin, descend_from
from llfc_jax.pair import interpolate
from llfc_jax.symmetry.axes import Permutation
from llfc_jax.symmetry.spec import PermutationSpec


class Values(NamedTuple):
    """What D depends on besides the mixture."""

    a: Any
    b: Any
    x: jax.Array
    target: jax.Array  # log p [n, classes]


def deviation(apply: Apply, spec: PermutationSpec, values: Values, mixture: Mixture) -> jax.Array:
    """D at a mixture (or, with permutation matrices, at a permutation)."""
    leaves, structure = jax.tree.flatten(values.b)
    parents: Mapping[str, str] = spec.parents
    mixed = [
        mix(jnp.asarray(leaf), axes, mixture, parents)
        for leaf, (_, axes) in zip(leaves, spec.leaves, strict=True)
    ]
    middle = interpolate(values.a, jax.tree.unflatten(structure, mixed), 0.5)
    found = jax.nn.log_softmax(adapted(apply)(middle, values.x).astype(jnp.float32))
    return (jnp.exp(values.target) * (values.target - found)).sum(-1).mean()


def output_matching(
    key: jax.Array,
    apply: Apply,
    spec: PermutationSpec,
    a: Any,
    b: Any,
    batches: Batches,
    *,
    starts: Sequence[str | Permutation] = STARTS,
    samples: int = 2000,
    steps: int = 40,
    rounds: int = ROUNDS,
    solver: Solver = "auto",
    progress: Progress | None = None,
) -> Matching:
    """Match B to A by the midpoint's outputs.

    Networks with BatchNorm are judged with interpolated statistics here, which say little of what
    a reset would make of the midpoint.

    Args:
        key: for weight matching, where it is a start.
        apply: `apply(variables, x) -> logits`.
        spec: which units may move.
        a: the mode that stays.
        b: the mode that is permuted.
        batches: data, pairs (x, y); the labels are not looked at.
        starts: "identity", "weight", "activation", or permutations; the end with the lowest D is
            kept.
        samples: how many samples D is taken over, from the first batches.
        steps: see `Descent.run`.
        rounds: see `Descent.run`.
        solver: see `assign`.
        progress: called as (starts done, starts, words).

    Returns:
        A `Matching` whose objective is D in nats: less is better. `history` holds D at the starts
        themselves first, then at the end from each.

    Raises:
        ModeError: `a` and `b` are no modes of one network.
        MatchingError: they do not fit the spec, or an argument is out of range.
        DataError: there is no batch.
    """
    check_modes(spec, a, b)
    x = take(batches, samples)
    run = adapted(apply)
    mean = (run(a, x).astype(jnp.float32) + run(b, x).astype(jnp.float32)) / 2
    values = Values(a, b, x, jax.nn.log_softmax(mean))
    return descend_from(
        _descent(apply, spec, solver),
        values,
        begin(key, apply, spec, a, b, batches, starts, solver),
        steps,
        rounds,
        "output",
        progress,
    )


@functools.lru_cache(maxsize=16)
def _descent(apply: Apply, spec: PermutationSpec, solver: Solver) -> Descent:
    """Compiled once for all pairs of a network."""
    return Descent(spec, functools.partial(deviation, apply, spec), solver)
