"""Matching over a network's symmetry without learning: by weights, by features, or both."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.matching.assignment.family import host_identity
from llfc_jax.matching.beyond.balance import balance
from llfc_jax.matching.beyond.features import match_features
from llfc_jax.matching.beyond.weights import Ascent
from llfc_jax.matching.problem import Problem, trainable
from llfc_jax.matching.result import Match
from llfc_jax.symmetry.beyond.element import Element
from llfc_jax.symmetry.beyond.spec import SymmetrySpec
from llfc_jax.symmetry.beyond.transport import Transport
from llfc_jax.types import ProgressFn

Start = Literal["activation", "weight", "identity"]
SWEEPS, TOLERANCE = 100, 1e-7


def closed_form(
    by: Start, problem: Problem, spec: SymmetrySpec, progress: ProgressFn | None = None
) -> tuple[Element, list[float]]:
    """Returns the element that brings B to A by weights or features, and the objective's course.

    Both networks are balanced first; what is found between their balanced forms is carried back,
    so that A stays as it is.

    Args:
        by: "weight", "activation", or "identity" for the one that only balances B as A is.
        problem: of the folded networks.
        spec: what may be done.
        progress: called as (batches done, batches in all or 0, words).
    """
    to_a, to_b = (balance(spec, jax.tree.leaves(v)) for v in (problem.a, problem.b))
    a, b = spec.apply(to_a, problem.a), spec.apply(to_b, problem.b)
    if by == "weight":
        sides = [[np.asarray(leaf) for leaf in jax.tree.leaves(v)] for v in (a, b)]
        counted = trainable(spec.permutations, a)
        ascent = Ascent(spec, sides[0], sides[1], counted)
        found = ascent.run(SWEEPS, TOLERANCE, anchored=True)
        history = ascent.history
    elif by == "activation":
        balanced = Problem(problem.network, problem.spec, a, b, problem.batches, problem.task)
        found, value = match_features(balanced, spec, progress)
        history = [value]
    else:
        found, history = Element(host_identity(spec.permutations)), []
    return spec.compose(spec.invert(to_a), spec.compose(found, to_b)), history


def match_closed_form(
    by: Start, problem: Problem, spec: SymmetrySpec, progress: ProgressFn | None
) -> Match:
    """Returns what `closed_form` finds as a match; more of its objective is better.

    The objective is the sum over parameters of `<A, g B>` of the balanced networks, or of the
    matched products of their features.
    """
    element, history = closed_form(by, problem, spec, progress)
    return Match(
        {name: jnp.asarray(index) for name, index in element.permutation.items()},
        jnp.asarray(history[-1], jnp.float32),
        jnp.asarray(history, jnp.float32),
        jnp.asarray(len(history), jnp.int32),
        by,
        Transport(spec, element, {}),
    )
