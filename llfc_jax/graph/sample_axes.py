"""Along which axis of each value of a network the samples stand.

The samples' axis is followed through the equations. Where an equation is of another kind than those
known here, it is read off a second trace with one sample more: right for any primitive and any
layout, and as slow as the first.
"""

import math
from collections.abc import Mapping, Sequence

import jax
from jax.extend import core

from llfc_jax.errors import GraphError
from llfc_jax.graph.pointwise import RULES
from llfc_jax.graph.trace import Apply, Equation, Program, abstract, body, flatten, is_literal
from llfc_jax.types import Inputs, Variables


def find_sample_axes(
    program: Program, apply: Apply, variables: Variables, x: Inputs
) -> dict[int, int | None]:
    """Returns the axis of each value that grows with the batch; None where there is none.

    Where it also holds something else of each sample (tokens, say), a sample's entries must stand
    together; else there is no axis along which the samples stand. A network that is tied to one
    batch size has its samples in front.

    Args:
        program: the trace of `apply(variables, x)`.
        apply: the network.
        variables: its variables, or their shapes.
        x: the batch, or its shape.
    """
    followed = _follow(program)
    if followed is not None:
        return followed
    larger = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((leaf.shape[0] + 1, *leaf.shape[1:]), leaf.dtype),
        abstract(x),
    )
    try:
        other = flatten(apply, variables, larger)
        if _ranks(other) != _ranks(program):
            other = None
    except GraphError:
        other = None
    return _sample_axes(program, other)


def _sample_axes(program: Program, other: Program | None) -> dict[int, int | None]:
    n = program.samples
    axes: dict[int, int | None] = {}
    for number, aval in program.avals.items():
        shape = getattr(aval, "shape", ())
        if other is None:
            axes[number] = 0 if shape[:1] == (n,) else None
            continue
        bigger = getattr(other.avals[number], "shape", ())
        grown = [i for i, (p, q) in enumerate(zip(shape, bigger, strict=True)) if p != q]
        axes[number] = grown[0] if len(grown) == 1 and shape[grown[0]] % n == 0 else None
    for eq in program.equations:
        for number in eq.outputs:
            if axes[number] is not None and not _in_order(program, axes, eq, number):
                axes[number] = None
    return axes


def _in_order(program: Program, axes: Mapping[int, int | None], eq: Equation, number: int) -> bool:
    """Returns whether the entries of one sample stand together along an output's sample axis."""

    def extent(value: int) -> tuple[int, int]:
        """Returns size of the axes before the samples' own, and of that one."""
        shape, axis = program.avals[value].shape, axes[value]
        return math.prod(shape[:axis]), shape[axis]  # pyright: ignore[reportArgumentType]

    before, size = extent(number)
    if size == program.samples:
        return True
    sources = [extent(a) for a in eq.inputs if not is_literal(a) and axes[a] is not None]
    if eq.name == "reshape":  # merges or splits axes: samples must stay outermost in theirs
        return [first for first, _ in sources] == [before]
    return size in [length for _, length in sources]


def _ranks(program: Program) -> list[int]:
    return [len(getattr(aval, "shape", ())) for aval in program.avals.values()]


class UnknownError(Exception):
    """An equation through which the samples' axis is not followed."""


ALONG_AXIS = ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or",
              "argmax", "argmin")  # fmt: skip
WINDOWS = ("reduce_window_sum", "reduce_window_max", "reduce_window_min", "reduce_window")


def _follow(program: Program) -> dict[int, int | None] | None:
    """Returns the samples' axis of every value; None where an equation is not known."""
    n = program.samples
    if n < 2:  # an axis of one sample looks like any axis of size 1
        return None
    axes: dict[int, int | None] = dict.fromkeys(program.avals)
    axes |= dict.fromkeys(program.inputs, 0)
    data = set(program.inputs)
    for eq in program.equations:
        inputs = [a for a in eq.inputs if not is_literal(a)]
        if data.isdisjoint(inputs):
            continue
        data.update(eq.outputs)
        held = {a: axes[a] for a in inputs if axes[a] is not None}
        if not held:
            if any(a in data for a in inputs):  # samples that lie in no order stay so
                continue
            return None
        try:
            axes |= dict.fromkeys(eq.outputs, through(program, eq, axes))
        except UnknownError:
            return None
    return axes


def through(program: Program, eq: Equation, axes: Mapping[int, int | None]) -> int | None:
    """Returns the samples' axis behind an equation.

    Raises:
        UnknownError: it is of another kind than those known here.
    """
    places = [None if is_literal(a) else axes[a] for a in eq.inputs]
    shapes = [getattr(a, "aval", None) or program.avals[a] for a in eq.inputs]
    shapes = [aval.shape for aval in shapes]
    at, others = next((p for p in places if p is not None), 0), eq.params
    after = program.avals[eq.outputs[0]].shape
    if eq.name in RULES or body(eq) is not None:
        alike = {p for p in places if p is not None} == {at} and _is_pointwise(eq)
        whole = all(s == after for s, p in zip(shapes, places, strict=True) if p is not None)
        return at if alike and whole else _unknown()
    if eq.name == "dot_general":
        return through_product(others["dimension_numbers"], places, shapes)
    if eq.name == "conv_general_dilated":
        numbers = others["dimension_numbers"]
        plain = others["batch_group_count"] == 1 and places[1] is None
        return numbers.out_spec[0] if plain and at == numbers.lhs_spec[0] else _unknown()
    if sum(p is not None for p in places) != 1 and eq.name != "concatenate":
        return _unknown()
    if eq.name == "broadcast_in_dim":
        to = others["broadcast_dimensions"][at]
        return int(to) if after[to] == shapes[0][at] else _unknown()
    if eq.name in ("reshape", "squeeze"):
        return _through_reshape(shapes[0], after, at, program.samples)
    if eq.name == "transpose":
        return list(others["permutation"]).index(at)
    if eq.name in REDUCTIONS:
        return None if at in others["axes"] else at - sum(a < at for a in others["axes"])
    if eq.name == "concatenate":
        alike = set(places) == {at} and others["dimension"] != at
        return at if alike else _unknown()
    if eq.name in ("slice", "pad", "split") and after[at] == shapes[0][at]:
        return at
    if eq.name in WINDOWS:
        return (
            at
            if others["window_dimensions"][at] == 1 and after[at] == shapes[0][at]
            else _unknown()
        )
    if eq.name in ALONG_AXIS and others["axis"] != at:
        return at
    return _unknown()


def _unknown() -> None:
    raise UnknownError


def _is_pointwise(eq: Equation | core.JaxprEqn) -> bool:
    """Returns whether an equation computes every entry from those at the same place."""
    jaxpr = body(eq)
    if jaxpr is None:
        return eq.primitive.name in RULES
    return all(map(_is_pointwise, getattr(jaxpr, "jaxpr", jaxpr).eqns))


def through_product(
    dimensions: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]],
    places: list[int | None],
    shapes: list[tuple[int, ...]],
) -> int | None:
    """Returns the samples' axis of a product: batch axes, then free ones of left and right."""
    contract, batch = dimensions
    found: set[int | None] = set()
    for side, at in enumerate(places):
        if at is None:
            continue
        if at in contract[side]:
            return None  # sums over samples
        if at in batch[side]:
            found.add(tuple(batch[side]).index(at))
            continue
        free = [i for i in range(len(shapes[side])) if i not in (*contract[side], *batch[side])]
        before = len(batch[0])
        if side == 1:
            before += len(shapes[0]) - len(contract[0]) - len(batch[0])
        found.add(before + free.index(at))
    return found.pop() if len(found) == 1 else _unknown()


def _through_reshape(
    before: tuple[int, ...], after: tuple[int, ...], at: int, n: int
) -> int | None:
    """Returns the axis that begins where the samples' axis began, and holds whole samples."""
    start = math.prod(before[:at])
    fits = [i for i, size in enumerate(after)
            if math.prod(after[:i]) == start and size % n == 0 and size > 0]  # fmt: skip
    return fits[0] if len(fits) == 1 else _unknown()
