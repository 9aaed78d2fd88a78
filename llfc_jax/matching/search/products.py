"""What both drivers of the ascent share: the form of their products, and what a move gains."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import jax
import numpy as np

from llfc_jax.matching.assignment.family import assigned_value, composite, take_along
from llfc_jax.matching.search.plan import Plan

A = TypeVar("A", np.ndarray, jax.Array)
T = TypeVar("T")


class Products(Protocol):
    """The products of a pair that edges are made of: NumPy's on the host, or JAX's.

    Attributes:
        xp: `numpy` or `jax.numpy`.
        plan: the plan.
        dtype: of all arrays.
        constant: the scores of each group that depend on no other group.
    """

    xp: Any
    plan: Plan
    dtype: Any
    constant: dict[str, Any]

    def build(self, e: int, permutation: dict[str, Any]) -> Any:
        """Returns an edge's scores, from nothing: [n, n]."""
        ...

    def mix(self, e: int, mixture: dict[str, Any]) -> Any:
        """Returns an edge's scores with the other groups mixed by matrices: [n, n]."""
        ...

    def while_loop(self, running: Callable[[T], Any], step: Callable[[T], T], state: T) -> T:
        """Returns the state after the last step."""
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
    products: Products, e: int, scores: A, old: Mapping[str, A], new: dict[str, A]
) -> A | float:
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
