"""Gains that are stored as their distance from a number: the leaf w of `x * (1 + w)`.

Such a leaf itself can be neither scaled nor rotated. But the sum is a gain like any other: it can
be moved into the weights behind it, and the leaf then holds what makes the sum 1.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np

from llfc_jax.graph.trace import Atom, Program, is_literal

# What a leaf may go through before the number is added.
PASSING = ("convert_element_type", "broadcast_in_dim", "reshape", "squeeze", "expand_dims", "copy")


class Shift(NamedTuple):
    """A number that is added to a leaf of which nothing else is used.

    Attributes:
        source: number of the value that it is added to.
        made: number of the sum.
        amount: what is added.
    """

    source: int
    made: int
    amount: float


def find_shifts(program: Program) -> dict[int, Shift]:
    """Returns the numbers that are added to leaves, by the place of the leaf among the leaves."""
    uses = Counter(a for eq in program.equations for a in eq.inputs if not is_literal(a))
    uses.update(program.outputs)
    held = {number: leaf for leaf, number in enumerate(program.leaves)}
    found = {}
    for eq in program.equations:
        (first, *rest) = eq.inputs or (None,)
        own = [a for a in eq.inputs if not is_literal(a) and a in held and uses[a] == 1]
        if len(own) != 1:
            continue
        if eq.name in PASSING and own[0] == first and not rest:
            held[eq.outputs[0]] = held[own[0]]
        elif eq.name == "add" or (eq.name == "sub" and own[0] == first):
            (other,) = (a for a in eq.inputs if a is not own[0])
            amount = _number(program, other)
            if amount is not None:
                sign = 1 if eq.name == "add" else -1
                found[held[own[0]]] = Shift(own[0], eq.outputs[0], sign * amount)
    return found


def _number(program: Program, atom: Atom) -> float | None:
    """The finite number that an operand is, None where it is more."""
    value = program.constants.get(atom) if isinstance(atom, int) else atom.val
    if value is None or np.ndim(value) or not np.isfinite(value):
        return None
    return float(value)
