"""Where the values of a trace come from: the input, the leaves, a product's weight."""

import dataclasses

from llfc_jax.graph.trace import Program, is_literal


@dataclasses.dataclass(frozen=True)
class Origins:
    """Where each value comes from.

    Attributes:
        data: numbers of the values that depend on `x`.
        leaves: for the others, the indices of the leaves that they depend on.
    """

    data: frozenset[int]
    leaves: dict[int, frozenset[int]]


def origins(program: Program) -> Origins:
    """Follows `x` and every leaf through the equations."""
    data = set(program.inputs)
    leaves = {number: frozenset({i}) for i, number in enumerate(program.leaves)}
    for eq in program.equations:
        numbers = [a for a in eq.inputs if not is_literal(a)]
        if any(n in data for n in numbers):
            data.update(eq.outputs)
            continue
        from_ = frozenset[int]().union(*(leaves.get(n, frozenset()) for n in numbers))
        leaves.update(dict.fromkeys(eq.outputs, from_))
    return Origins(frozenset(data), leaves)


def depending(program: Program) -> frozenset[int]:
    """Returns the numbers of the values that depend on any leaf of the variables."""
    seen = set(program.leaves)
    for eq in program.equations:
        if any(not is_literal(a) and a in seen for a in eq.inputs):
            seen.update(eq.outputs)
    return frozenset(seen)


def product_unit_axes(
    program: Program, equation: int, weight: int | None
) -> tuple[int, tuple[int, ...]]:
    """Returns the number of a product and those of its axes that come from the weight.

    Args:
        program: the flat trace.
        equation: index of the matrix product or convolution.
        weight: which of its inputs is the weight.
    """
    assert weight is not None
    eq = program.equations[equation]
    product = eq.outputs[0]
    rank = len(program.avals[product].shape)
    if eq.name == "conv_general_dilated":
        return product, (eq.params["dimension_numbers"].out_spec[1],)
    contract, batch = eq.params["dimension_numbers"]
    shape = program.avals[eq.inputs[weight]].shape
    free = len(shape) - len(contract[weight]) - len(batch[weight])
    # A product's axes are: batch, free axes of the left operand, free axes of the right.
    start = rank - free if weight == 1 else len(batch[0])
    return product, (*range(len(batch[0])), *range(start, start + free))


def downstream(program: Program, number: int) -> frozenset[int]:
    """Returns a value's number and those of all values that depend on it."""
    found = {number}
    for eq in program.equations:
        if any(not is_literal(a) and a in found for a in eq.inputs):
            found.update(eq.outputs)
    return frozenset(found)
