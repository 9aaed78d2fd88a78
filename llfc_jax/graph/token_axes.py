"""Along which axis of each value of a network the tokens of a sample stand."""

import math
from collections.abc import Mapping, Sequence

import jax

from llfc_jax.errors import GraphError
from llfc_jax.graph.graph import Graph
from llfc_jax.graph.pointwise import RULES
from llfc_jax.graph.sample_axes import REDUCTIONS, UnknownError, through, through_product
from llfc_jax.graph.trace import Apply, Equation, Program, abstract, flatten, is_literal
from llfc_jax.types import Inputs, Variables

Axes = Mapping[int, int | None]


def find_token_axes(
    graph: Graph, apply: Apply, variables: Variables, x: Inputs, length: int
) -> dict[int, int | None]:
    """Returns the axis along which the tokens stand in each value; None where there is none.

    It is read off a second trace with one token less: the first axis that shrinks. In a network
    that is tied to one length the tokens are followed through the equations; behind one that is not
    known here they stand along the only axis of that length beside the samples'.

    Args:
        graph: the trace of `apply(variables, x)`.
        apply: the network.
        variables: its variables, or their shapes.
        x: the batch, or its shape: each array of [n, t, ...] holds tokens.
        length: their number t.
    """
    program = graph.program

    def shorten(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        shape = list(leaf.shape)
        if len(shape) > 1 and shape[1] == length:
            shape[1] -= 1
        return jax.ShapeDtypeStruct(tuple(shape), leaf.dtype)

    try:
        shorter = flatten(apply, variables, jax.tree.map(shorten, abstract(x))).avals
    except GraphError:
        shorter = {}
    shapes = [
        (aval.shape, getattr(shorter.get(i), "shape", ())) for i, aval in program.avals.items()
    ]
    if len(shorter) != len(program.avals) or any(len(p) != len(q) for p, q in shapes):
        return _tied(program, graph.sample_axes, length)
    shrunk = [[i for i, (p, q) in enumerate(zip(*pair, strict=True)) if p != q] for pair in shapes]
    return {
        number: axes[0] if axes and graph.sample_axes[number] is not None else None
        for number, axes in zip(program.avals, shrunk, strict=True)
    }


def _tied(program: Program, samples: Axes, length: int) -> dict[int, int | None]:
    """The tokens' axes where the network takes no other length."""
    found: dict[int, int | None] = dict.fromkeys(program.avals)
    for number in program.inputs:
        shape = program.avals[number].shape
        found[number] = 1 if len(shape) > 1 and shape[1] == length else None
    mixed = set[int]()  # tokens were mixed into something else, from which others may come
    lost = set[int]()  # they stand behind an equation that is not known here
    for eq in program.equations:
        inputs = {a for a in eq.inputs if not is_literal(a)}
        for number in eq.outputs:
            if samples[number] is None:
                continue
            try:
                if any(found[a] is not None for a in inputs):
                    found[number] = _followed(program, eq, number, found)
                elif inputs & lost:
                    raise UnknownError
                elif not inputs & mixed:
                    continue
            except UnknownError:
                found[number] = _only_axis(program.avals[number].shape, samples[number], length)
                if found[number] is None:
                    lost.add(number)
                continue
            if found[number] is None and eq.name == "dot_general":
                found[number] = _brought(program, eq, samples, length)
            if found[number] is None and eq.name not in REDUCTIONS:
                mixed.add(number)
    return found


def _only_axis(shape: Sequence[int], samples: int | None, length: int) -> int | None:
    """Returns the one axis of a length beside the samples', or None."""
    fits = [i for i, size in enumerate(shape) if size == length and i != samples]
    return fits[0] if len(fits) == 1 else None


def _brought(program: Program, eq: Equation, samples: Axes, length: int) -> int | None:
    """Returns the axis that a weight [tokens, new tokens] brings along, or None."""
    numbers, shapes = eq.params["dimension_numbers"], [program.avals[a].shape for a in eq.inputs]
    for side, operand in enumerate(eq.inputs):
        used = (*numbers[0][side], *numbers[1][side])
        free = [i for i, n in enumerate(shapes[side]) if n == length and i not in used]
        if samples[operand] is None and len(free) == 1:
            return through_product(numbers, [None] * side + free + [None] * (1 - side), shapes)
    return None


def _followed(program: Program, eq: Equation, output: int, axes: Axes) -> int | None:
    """Returns the first axis of tokens behind an equation; None where it sums them up.

    Raises:
        UnknownError: the equation is of another kind than those known here.
    """
    places = [None if is_literal(a) else axes[a] for a in eq.inputs]
    shapes = [() if is_literal(a) else program.avals[a].shape for a in eq.inputs]
    after = program.avals[output].shape
    at = next(p for p in places if p is not None)
    if eq.name == "dot_general":
        numbers, (left, right) = eq.params["dimension_numbers"], places
        sides = [through_product(numbers, pair, shapes) for pair in ([left, None], [None, right])
                 if pair != [None, None]]  # fmt: skip
        return min((axis for axis in sides if axis is not None), default=None)
    if eq.name == "reshape":
        return _behind_reshape(shapes[0], after, at)
    if eq.name == "gather" and places[0] is None:
        offset = eq.params["dimension_numbers"].offset_dims
        return [i for i in range(len(after)) if i not in offset][at]
    if eq.name == "conv_general_dilated" and places[1] is None:
        numbers = eq.params["dimension_numbers"]
        place = tuple(numbers.lhs_spec).index(at)
        along = numbers.out_spec[place]
        if place > 1:  # where it strides there are fewer places than tokens
            return int(along) if after[along] == shapes[0][at] else None
    if eq.name in RULES:  # entry by entry
        whole = [p for p, s in zip(places, shapes, strict=True)
                 if p is not None and len(s) == len(after) and s[p] == after[p]]  # fmt: skip
        if whole:
            return min(whole)
    return through(program, eq, axes)


def _behind_reshape(before: Sequence[int], after: Sequence[int], at: int) -> int | None:
    """Returns the axis that the tokens' axis is, or is a part of, behind a reshape.

    Raises:
        UnknownError: it is split.
    """
    start = math.prod(before[:at])
    for i in range(len(after)):
        first, end = math.prod(after[:i]), math.prod(after[: i + 1])
        if first <= start < end:
            if end >= start * before[at]:
                return i
            break
    raise UnknownError
