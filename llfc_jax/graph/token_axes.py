"""Along which axis of each value of a network the tokens of a sample stand."""

import math
from collections.abc import Mapping, Sequence

import jax

from llfc_jax.errors import GraphError
from llfc_jax.graph.graph import Graph
from llfc_jax.graph.pointwise import RULES
from llfc_jax.graph.sample_axes import UnknownError, through, through_product
from llfc_jax.graph.trace import Apply, Equation, Program, abstract, flatten, is_literal
from llfc_jax.types import Inputs, Variables

Axes = Mapping[int, int | None]


def find_token_axes(
    graph: Graph, apply: Apply, variables: Variables, x: Inputs, length: int
) -> dict[int, int | None]:
    """Returns the axis along which the tokens stand in each value; None where there is none.

    It is read off a second trace with one token less: the first axis that shrinks. In a network
    that is tied to one length, tokens stand along the only axis of that length behind the samples;
    where several have it, the tokens' axis is followed through the equations.

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
    found: dict[int, int | None] = {}
    for number, aval in program.avals.items():
        fits = [i for i, size in enumerate(aval.shape) if size == length and i != samples[number]]
        found[number] = fits[0] if len(fits) == 1 and samples[number] is not None else None
        if number in program.inputs and len(aval.shape) > 1 and aval.shape[1] == length:
            found[number] = 1
    for eq in program.equations:
        for number in eq.outputs:
            if found[number] is None and samples[number] is not None:
                found[number] = _followed(program, eq, number, found)
    return found


def _followed(program: Program, eq: Equation, output: int, axes: Axes) -> int | None:
    """Returns the first axis of tokens behind an equation, by those in front of it."""
    places = [None if is_literal(a) else axes[a] for a in eq.inputs]
    shapes = [() if is_literal(a) else program.avals[a].shape for a in eq.inputs]
    after = program.avals[output].shape
    at = next((p for p in places if p is not None), None)
    if at is None:
        return None
    if eq.name == "dot_general":
        numbers, (left, right) = eq.params["dimension_numbers"], places
        sides = [through_product(numbers, pair, shapes) for pair in ([left, None], [None, right])
                 if pair != [None, None]]  # fmt: skip
        return min((axis for axis in sides if axis is not None), default=None)
    if eq.name == "reshape":
        return _behind_reshape(shapes[0], after, at)
    if eq.name == "gather":
        offset = eq.params["dimension_numbers"].offset_dims
        free = [i for i in range(len(after)) if i not in offset]
        return free[at] if places[0] is None else None
    if eq.name in RULES:  # entry by entry
        whole = [p for p, s in zip(places, shapes, strict=True)
                 if p is not None and len(s) == len(after) and s[p] == after[p]]  # fmt: skip
        return min(whole, default=None)
    try:
        return through(program, eq, axes)
    except UnknownError:
        return None


def _behind_reshape(before: Sequence[int], after: Sequence[int], at: int) -> int | None:
    """Returns the axis that the tokens' axis is, or is a part of, behind a reshape."""
    start = math.prod(before[:at])
    for i in range(len(after)):
        first, end = math.prod(after[:i]), math.prod(after[: i + 1])
        if first <= start < end:
            return i if end >= start * before[at] else None
    return None
