"""Reads what a network's normalisers hold: their means and variances, read from its variables."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.graph.normalisers import Normaliser
from llfc_jax.graph.origins import origins
from llfc_jax.graph.trace import Program, is_literal
from llfc_jax.types import Variables

if TYPE_CHECKING:
    from llfc_jax.graph.graph import Graph


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Held:
    """The numbers of a normaliser, which maps its value v to slope · v + offset, unit by unit.

    Attributes:
        slope: its factor.
        offset: what is added.
        mean: the value of v that is brought to zero before any trainable shift.
        variance: variance + ε.
        epsilon: ε alone.
    """

    slope: Any
    offset: Any
    mean: Any
    variance: Any
    epsilon: Any


def read_normalisers(graph: "Graph", variables: Variables, zero: jax.Array) -> dict[str, Held]:
    """Returns what each of a network's normalisers holds, by its name.

    The mean in force is -d offset / d slope as the variance changes.

    Args:
        graph: the trace.
        variables: the network's variables.
        zero: the number 0, as an argument of the program that this is compiled into, so that
            nothing of a batch's size is computed while compiling.
    """
    program = graph.program
    leaves = jax.tree.leaves(variables)
    values = {**program.constants, **dict(zip(program.leaves, leaves, strict=True))}
    still = {n: jnp.zeros_like(v) if n in _variances(graph) else v for n, v in values.items()}
    values, still = (_run_constants(program, v) for v in (values, still))
    found = {}
    for norm in graph.normalisers:
        (a, b), (c, d) = (
            _line_at(program, norm, values | {n: values[n] * f for n in norm.variances}, zero)
            for f in (1, 4)
        )
        moves = jnp.abs(a - c) > 0
        mean = jnp.where(moves, (d - b) / jnp.where(moves, a - c, 1), 0)
        shape = [program.avals[norm.value].shape[axis] for axis in norm.axes]
        size = (int(np.prod(shape)),)
        variance, epsilon = (
            jnp.broadcast_to(v[norm.variances[0]].reshape(-1), size) for v in (values, still)
        )
        found[norm.name] = Held(a, b, mean, variance, epsilon)
    return found


def _variances(graph: "Graph") -> frozenset[int]:
    program = graph.program
    held = {norm.var for norm in graph.normalisers}
    return frozenset(n for p, n in zip(program.paths, program.leaves, strict=True) if p in held)


def _run_constants(program: Program, values: dict[int, Any]) -> dict[int, Any]:
    """Returns all values that do not depend on x."""
    values = dict(values)
    for eq in program.equations:
        if all(is_literal(a) or a in values for a in eq.inputs):
            out = eq.bind(*(a.val if is_literal(a) else values[a] for a in eq.inputs))
            values.update(zip(eq.outputs, out, strict=True))
    return values


def _line_at(
    program: Program, norm: Normaliser, values: Mapping[int, Any], zero: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns (A, B) of a normaliser per unit, with another value under its root."""
    dtype = program.avals[norm.value].dtype
    steps = sorted({*_depends_on(program, norm.variances), *norm.body})
    b = _run_normaliser(program, norm, steps, values, zero.astype(dtype))
    return _run_normaliser(program, norm, steps, values, (zero + 1).astype(dtype)) - b, b


def _run_normaliser(
    program: Program,
    norm: Normaliser,
    steps: Sequence[int],
    values: Mapping[int, Any],
    start: jax.Array,
) -> jax.Array:
    """Returns what a normaliser makes of its value, where that is `start` throughout: [units]."""
    aval = program.avals[norm.value]
    known = dict(values) | {norm.value: jnp.zeros(aval.shape, aval.dtype) + start}
    for i in steps:
        eq = program.equations[i]
        if all(is_literal(a) or a in known for a in eq.inputs):
            out = eq.bind(*(a.val if is_literal(a) else known[a] for a in eq.inputs))
            known.update(zip(eq.outputs, out, strict=True))
    end = known[norm.end]
    index = tuple(slice(None) if i in norm.axes else 0 for i in range(end.ndim))
    return end[index].reshape(-1).astype(jnp.promote_types(end.dtype, jnp.float32))


def _depends_on(program: Program, numbers: tuple[int, ...]) -> list[int]:
    """Returns the indices of the equations without x that some values enter."""
    reached, found = set(numbers), []
    data = origins(program).data
    for i, eq in enumerate(program.equations):
        enters = any(not is_literal(a) and a in reached for a in eq.inputs)
        if enters and data.isdisjoint(eq.outputs):
            found.append(i)
            reached.update(eq.outputs)
    return found
