"""Where a network's features are read, and their products between two networks.

A group's features are read where weights read them: at the operands that products sum over with
the group along the axis, as the normalised residual stream, queries and keys, mixed values, and
hidden units behind their activation.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from llfc_jax.errors import DataError
from llfc_jax.graph import Graph, trace
from llfc_jax.graph.row_layout import RowLayout
from llfc_jax.graph.trace import Equation
from llfc_jax.matching.assignment.family import families, units_in_all
from llfc_jax.matching.beyond.families import Progress, solve
from llfc_jax.matching.problem import Problem
from llfc_jax.symmetry.axes import Axis, units
from llfc_jax.symmetry.beyond.derive import read_folded
from llfc_jax.symmetry.beyond.element import Element
from llfc_jax.symmetry.beyond.spec import SymmetrySpec
from llfc_jax.symmetry.blocks import blocks
from llfc_jax.symmetry.derive import describe_values
from llfc_jax.tasks import count_batches
from llfc_jax.types import Apply, Inputs, ProgressFn, Variables

SMALLEST = 1e-12


class Feature(NamedTuple):
    """A value that weights read along a group's axis.

    Attributes:
        group: the group.
        value: number of the value in the trace.
        axes: what stands along its axes.
    """

    group: str
    value: int
    axes: tuple[Axis, ...]


def features(graph: Graph, spec: SymmetrySpec) -> tuple[Feature, ...]:
    """Returns where features of a folded network are read, in the order of the trace."""
    program = graph.program
    names, _, _ = read_folded(graph, spec.folds)
    axes, values = describe_values(graph, names).values, names.reading.values
    found: dict[tuple[str, int], Feature] = {}
    for equation in program.equations:
        for number, along in _summed(equation):
            if isinstance(number, int) and values[number].data:
                held = {u.group for i in along for u in units(axes[number][i])}
                for group in held - set(spec.permutations.parents.values()):
                    found.setdefault((group, number), Feature(group, number, axes[number]))
    return tuple(found.values())


def _summed(equation: Equation) -> list[tuple[Any, Sequence[int]]]:
    """The operands of a product, each with the axes that are summed over."""
    if equation.name == "dot_general":
        contract, _ = equation.params["dimension_numbers"]
        return list(zip(equation.inputs, contract, strict=True))
    if equation.name == "conv_general_dilated":
        return [(equation.inputs[0], [equation.params["dimension_numbers"].lhs_spec[1]])]
    return []


def match_features(
    problem: Problem, spec: SymmetrySpec, progress: ProgressFn | None
) -> tuple[Element, float]:
    """Returns the element that brings B's features nearest to A's, and the sum of their products.

    Batches are read once.

    Every family by itself: the sum over its places of A's and B's products over samples and
    positions, each divided by the features' norms, is the score.

    Raises:
        DataError: there is no batch.
    """
    sums: list[tuple[jax.Array, ...]] | None = None
    total, x = count_batches(problem.batches), None
    for i, (x, _, mask) in enumerate(problem.read_batches()):
        sums = _accumulate(problem.apply, spec, problem.a, problem.b, x, mask, sums)
        if progress:
            progress(i + 1, total, "features")
    if sums is None:
        raise DataError("matching by features needs data, and there is no batch")
    graph = trace(problem.apply, problem.a, x)
    scores: dict[str, np.ndarray] = {}
    for group in spec.permutations.groups:
        n = units_in_all(spec.permutations, group.name)
        scores[group.name] = np.zeros((n, n), np.float32)
    for feature, (cross, of_a, of_b) in zip(features(graph, spec), sums, strict=True):
        scores[feature.group] += np.asarray(cross) / max(float(of_a * of_b) ** 0.5, SMALLEST)
    found, value = Progress(spec), 0.0
    for family in families(spec.permutations):
        best = solve(spec, family, {n: scores[n] for n in (family[0], *family[1])})
        found.take(family, best)
        value += best.value
    return found.element(), value


@functools.partial(jax.jit, static_argnums=(0, 1))
def _accumulate(
    apply: Apply,
    spec: SymmetrySpec,
    a: Variables,
    b: Variables,
    x: Inputs,
    mask: jax.Array,
    sums: list[tuple[jax.Array, ...]] | None,
) -> list[tuple[jax.Array, ...]]:
    """Products and squares of a batch's features, added to those before."""
    with jax.default_matmul_precision("highest"):
        graph = trace(apply, a, x)
        layout = RowLayout.of(graph, apply, a, x, mask)
        of_a, of_b = graph.evaluate(a, x), graph.evaluate(b, x)
        new = []
        for feature in features(graph, spec):
            counts = read_mask(feature, spec, graph, layout)[:, None] > 0
            p, q = (
                jnp.where(counts, read(feature, spec, v.all[feature.value]), 0)
                for v in (of_a, of_b)
            )
            new.append((p.T @ q, (p * p).sum(), (q * q).sum()))
        if sums is None:
            return new
        return [tuple(map(jnp.add, old, now)) for old, now in zip(sums, new, strict=True)]


def read(feature: Feature, spec: SymmetrySpec, value: jax.Array) -> jax.Array:
    """Returns a feature's units: [samples, positions and all else, units in all places]."""
    parts = []
    for block in blocks(feature.axes, spec.permutations.parents):
        if feature.group in block.groups:
            k = block.groups.index(feature.group) + 1
            cut = jnp.moveaxis(block.extract(value.astype(jnp.float32)), k, -1)
            parts.append(cut.reshape(-1, cut.shape[-1]))
    return jnp.concatenate(parts)


def read_mask(
    feature: Feature, spec: SymmetrySpec, graph: Graph, layout: RowLayout
) -> Float[Array, " rows"]:
    """Returns 1 for each row of a feature (`read`) that counts, 0 for padding."""
    shape = graph.program.avals[feature.value].shape
    return read(feature, spec, jnp.broadcast_to(layout.mask_of(feature.value), shape))[:, 0]
