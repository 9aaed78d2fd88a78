"""What a move of a family gains; the same for both drivers of the ascent."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import jax
import numpy as np

from llfc_jax.matching.assignment.family import assigned_value, composite, take_along
from llfc_jax.matching.search.plan import Plan

A = TypeVar("A", np.ndarray, jax.Array)


class Builder(Protocol):
    """What can build an edge's scores."""

    plan: Plan

    def build(self, e: int, permutation: Any) -> Any:
        """Returns an edge's scores, from nothing: [n, n]."""
        ...


def move_gain(
    plan: Plan,
    members: tuple[str, ...],
    scores: Mapping[str, A],
    old: Mapping[str, A],
    new: Mapping[str, A],
) -> A | float:
    """Returns what a move gains; rows that stay cancel exactly, and small gains are no rounding."""
    gain: Any = 0.0
    for name in members:
        before, after = (
            take_along(scores[name], composite(plan.spec, x, name)[:, None], -1) for x in (old, new)
        )
        gain += (after - before).sum()
    return gain


def correction(
    products: Builder, e: int, scores: A, old: Mapping[str, A], new: Mapping[str, A]
) -> A:
    """Returns what `move_gain` overlooked on a weight from a family to itself.

    There the scores depend on the permutation that they choose, so that they were a linearisation
    (and both of the block's edges counted it: hence the half). Only a true gain is accepted.
    """
    plan = products.plan
    name = plan.edges[e].group
    p, q = (composite(plan.spec, x, name) for x in (old, new))
    after = products.build(e, new)
    linear = assigned_value(scores, q) - assigned_value(scores, p)
    return 0.5 * (assigned_value(after, q) - assigned_value(scores, p)) - linear
