"""Along which axis of each value of a network the samples stand.

It is read off a second trace with one sample more: right for any primitive and any layout.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.errors import GraphError
from llfc_jax.graph.trace import Apply, Equation, Program, flatten, is_literal


def find_sample_axes(
    program: Program, apply: Apply, variables: Any, x: Any
) -> dict[int, int | None]:
    """The axis of each value that grows with the batch; None where there is none.

    Where it also holds something else of each sample (tokens, say), a sample's entries must stand
    together; else there is no axis along which the samples stand. A network that is tied to one
    batch size has its samples in front.

    Args:
        program: the trace of `apply(variables, x)`.
        apply: the network.
        variables: its variables, or their shapes.
        x: the batch, or its shape.
    """
    larger = jax.ShapeDtypeStruct((np.shape(x)[0] + 1, *np.shape(x)[1:]), jnp.result_type(x))
    try:
        other = flatten(apply, variables, larger)
        if _ranks(other) != _ranks(program):
            other = None
    except GraphError:
        other = None
    return _sample_axes(program, other)


def _sample_axes(program: Program, other: Program | None) -> dict[int, int | None]:
    n = program.avals[program.input].shape[0]
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
    """Whether the entries of one sample stand together along an output's sample axis."""

    def extent(value: int) -> tuple[int, int]:
        """Size of the axes before the samples' own, and of that one."""
        shape, axis = program.avals[value].shape, axes[value]
        return math.prod(shape[:axis]), shape[axis]  # pyright: ignore[reportArgumentType]

    before, size = extent(number)
    if size == program.avals[program.input].shape[0]:
        return True
    sources = [extent(a) for a in eq.inputs if not is_literal(a) and axes[a] is not None]
    if eq.name == "reshape":  # merges or splits axes: samples must stay outermost in theirs
        return [first for first, _ in sources] == [before]
    return size in [length for _, length in sources]


def _ranks(program: Program) -> list[int]:
    return [len(getattr(aval, "shape", ())) for aval in program.avals.values()]
