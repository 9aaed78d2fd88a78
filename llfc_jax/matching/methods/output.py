"""Output matching: aim at linear feature connectivity itself, at the network's output.

Layerwise linear feature connectivity at the output says f(θ_½) = (f(A) + f(B)) / 2, π(B) having
B's outputs whatever the permutation π. So the right side is known before matching, and how far the
midpoint is from it is one number,

    D(π) = mean over samples of KL( p || softmax f((A + π(B)) / 2) ),
    p = softmax (f(A) + f(B)) / 2

over tokens where outputs are of tokens, padding left out. (Where the task has no labels, it is the
mean square of the midpoint's outputs minus the ends' mean.) It sums up what all layers' failing
commutativity and weak additivity do, and needs no labels. It is lowered by `FrankWolfe`, through
mixtures: the midpoint then is (A + Σ_k w_k π_k(B)) / 2.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax

from llfc_jax.graph.convolutions import adapted
from llfc_jax.graph.pointwise import widen
from llfc_jax.graph.row_layout import output_mask
from llfc_jax.matching.outputs import check_distributions, deviation
from llfc_jax.matching.problem import Problem
from llfc_jax.matching.registry import build_method, matching_method
from llfc_jax.matching.result import Match
from llfc_jax.matching.search.descents import DescentOptions
from llfc_jax.matching.search.mixtures import Mixture, mix
from llfc_jax.pair import interpolate
from llfc_jax.symmetry.spec import PermutationSpec
from llfc_jax.types import Apply, Batches, Inputs, Model, ProgressFn, Variables


class Values(NamedTuple):
    """What D depends on besides the mixture."""

    a: Variables
    b: Variables
    x: Inputs
    target: Any  # what the midpoint's outputs aim at
    mask: jax.Array  # what of them counts, [n] or [n, t]


@dataclasses.dataclass(frozen=True)
class Deviation:
    """D of a network, as a function of `Values` and a mixture.

    Attributes:
        apply: the network.
        spec: which units may move.
        labelled: whether outputs are logits, whose distributions are compared; others are
            compared by their squares.
    """

    apply: Apply
    spec: PermutationSpec
    labelled: bool = True

    def __call__(self, values: Values, mixture: Mixture) -> jax.Array:
        """Returns D at a mixture (or, with permutation matrices, at a permutation)."""
        leaves, structure = jax.tree.flatten(values.b)
        mixed = [
            mix(leaf, axes, mixture, self.spec.parents)
            for leaf, (_, axes) in zip(leaves, self.spec.leaves, strict=True)
        ]
        middle = interpolate(values.a, jax.tree.unflatten(structure, mixed), 0.5)
        outputs = jax.tree.map(widen, adapted(self.apply)(middle, values.x))
        return deviation(outputs, values.target, values.mask, labelled=self.labelled)


@functools.partial(jax.jit, static_argnums=0)
def _target(
    apply: Apply, a: Variables, b: Variables, x: Inputs, mask: jax.Array
) -> tuple[Any, jax.Array]:
    """Returns the mean of both ends' outputs, and what of it counts."""
    with jax.default_matmul_precision("highest"):
        run = adapted(apply)
        mean = jax.tree.map(lambda p, q: (widen(p) + widen(q)) / 2, run(a, x), run(b, x))
        mask = output_mask(apply, a, x, mask)
    return mean, mask


@matching_method("output")
@dataclasses.dataclass(frozen=True)
class OutputMatching(DescentOptions):
    """Brings outputs of the midpoint towards the mean of a's and b's; needs no labels.

    Networks with BatchNorm are judged with interpolated statistics here, which say little of what
    a reset would make of the midpoint. Options: see `DescentOptions`.
    """

    def __call__(
        self, key: jax.Array, problem: Problem, progress: ProgressFn | None = None
    ) -> Match:
        """Matches B to A by the midpoint's outputs.

        Args:
            key: for weight matching, where it is a start.
            problem: of the labels of its batches only those that mark padding are looked at.
            progress: called as (starts done, starts, words).

        Returns:
            A `Match` whose objective is D (in nats, of logits): less is better.

        Raises:
            ModeError: the modes are none of one network.
            MatchingError: they do not fit the spec, or the network has one output: D is then 0
                everywhere.
            DataError: there is no batch.
        """
        problem, apply = problem.checked(), problem.apply
        x, _, mask = problem.first_batch(self.samples)
        labelled = problem.task.labelled
        target, mask = _target(apply, problem.a, problem.b, x, mask)
        if labelled:
            check_distributions(target)
        values = Values(problem.a, problem.b, x, target, mask)
        objective = Deviation(apply, problem.spec, labelled)
        return self.descend(key, problem, objective, values, "output", progress)


def output_matching(
    key: jax.Array,
    network: Model,
    spec: PermutationSpec,
    a: Variables,
    b: Variables,
    batches: Batches,
    *,
    progress: ProgressFn | None = None,
    **options: object,
) -> Match:
    """Matches B to A by the midpoint's outputs: `OutputMatching(**options)` on these modes.

    Args:
        key: for weight matching, where it is a start.
        network: a module of any framework, or a function apply(variables, x).
        spec: which units may move.
        a: the mode that stays.
        b: the mode that is permuted.
        batches: data, pairs (x, y).
        progress: called as (starts done, starts, words).
        **options: the fields of `OutputMatching`.

    Returns:
        See `OutputMatching.__call__`.
    """
    return build_method("output", options)(key, Problem(network, spec, a, b, batches), progress)
