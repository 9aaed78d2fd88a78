"""Which values of a network are affine in its variables, the input held fixed.

On the straight line between two modes such a value is the mixture of the ends' own,

    f(α a + (1 - α) b; x) = α f(a; x) + (1 - α) f(b; x),

for any two modes. What the first layer computes is affine, the rest is not: a ReLU ends it, and so
does the product of two values that both hold parameters.
"""

import jax.numpy as jnp

from llfc_jax.graph.statistics import SHAPING
from llfc_jax.graph.trace import LINEAR, Equation, Program, is_literal

# Linear in all of their inputs together, in one of several, and in the first of two.
SUMS = (*SHAPING, "add", "add_any", "sub", "neg", "reduce_sum", "cumsum", "concatenate", "pad",
        "slice", "rev", "select_n")  # fmt: skip
PRODUCTS = (*LINEAR, "mul", "gather")
QUOTIENT = "div"


def affine(program: Program, parametric: frozenset[int]) -> frozenset[int]:
    """Numbers of the values that hold parameters and are affine in them.

    Args:
        program: the flat trace.
        parametric: numbers of the values that depend on any leaf.
    """

    def smooth(number: int) -> bool:
        return jnp.issubdtype(program.avals[number].dtype, jnp.inexact)

    def keeps(eq: Equation) -> bool:
        held = [a for a in eq.inputs if not is_literal(a) and a in parametric]
        if not held or not all(a in found for a in held) or not all(map(smooth, eq.outputs)):
            return False
        if eq.name == QUOTIENT:
            return held == [eq.inputs[0]]
        return eq.name in SUMS or (eq.name in PRODUCTS and len(held) == 1)

    found = {number for number in program.leaves if smooth(number)}
    for eq in program.equations:
        if keeps(eq):
            found.update(eq.outputs)
    return frozenset(found)
