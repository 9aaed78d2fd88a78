"""Matching over a network's symmetry without learning: by weights, by features, or both."""

import contextlib
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl

from llfc_jax.matching.assignment.family import host_identity, units_in_all
from llfc_jax.matching.beyond.balance import balance
from llfc_jax.matching.beyond.features import match_features
from llfc_jax.matching.beyond.weights import Ascent
from llfc_jax.matching.problem import Problem, trainable
from llfc_jax.matching.result import Match
from llfc_jax.symmetry.beyond.element import Element
from llfc_jax.symmetry.beyond.spec import SymmetrySpec
from llfc_jax.symmetry.beyond.transport import Transport
from llfc_jax.types import AnyArray, ProgressFn

Start = Literal["activation", "weight", "identity"]
SWEEPS, TOLERANCE = 100, 1e-7
SMALL = 512  # units up to which one thread is faster


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
    with _threads(spec):
        return _closed_form(by, problem, spec, progress)


def _threads(spec: SymmetrySpec) -> contextlib.AbstractContextManager[Any]:
    """One thread for small matrices: sharing them out takes longer than they do."""
    largest = max((units_in_all(spec.permutations, g.name) for g in spec.permutations.groups),
                  default=0)  # fmt: skip
    if largest > SMALL:
        return contextlib.nullcontext()
    return threadpoolctl.threadpool_limits(limits=1, user_api="blas")


def _closed_form(
    by: Start, problem: Problem, spec: SymmetrySpec, progress: ProgressFn | None
) -> tuple[Element, list[float]]:
    a, b = (jax.tree.map(_on_host, variables) for variables in (problem.a, problem.b))
    to_a, to_b = (balance(spec, jax.tree.leaves(variables)) for variables in (a, b))
    a, b = spec.apply(to_a, a), spec.apply(to_b, b)
    if by == "weight":
        counted = trainable(spec.permutations, a)
        ascent = Ascent(spec, jax.tree.leaves(a), jax.tree.leaves(b), counted)
        found = ascent.run(SWEEPS, TOLERANCE, anchored=True)
        history = ascent.history
    elif by == "activation":
        balanced = Problem(problem.network, problem.spec, a, b, problem.batches, problem.task)
        found, value = match_features(balanced, spec, progress)
        history = [value]
    else:
        found, history = Element(host_identity(spec.permutations)), []
    return spec.compose(spec.invert(to_a), spec.compose(found, to_b)), history


def _on_host(leaf: AnyArray) -> Any:
    return np.asarray(leaf) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


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
