"""Renormalisation on the line: BatchNorm reset and REPAIR, as data that any measure can apply.

Between two modes the features of θ_α shrink (variance collapse), and running statistics that were
interpolated no longer fit. A *reset* puts the statistics of θ_α's own features, over training
data, in the place of BatchNorm's. *REPAIR* (Jordan et al. 2023) rescales every unit of a network
without BatchNorm to the mean and deviation interpolated from the ends.

This file says where a network is renormalised and runs it so; `calibrate` measures the
statistics. What they hand over is a `Correction`, one per α: small, and free of parameters.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from llfc_jax.errors import ModeError, unknown
from llfc_jax.graph import Graph, Values
from llfc_jax.graph.graph import Visit
from llfc_jax.graph.queries import unit_axes
from llfc_jax.graph.trace import is_literal
from llfc_jax.measures.similarity import wide

CHOICES = ("none", "reset", "repair")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Correction:
    """What to change when θ_α runs.

    Attributes:
        leaves: new value of a leaf of the variables, by its path (running statistics).
        scale: factor per unit of a linear site's product, by site.
        shift: what is then added per unit.
    """

    leaves: dict[str, Any]
    scale: dict[str, Any]
    shift: dict[str, Any]


NOTHING = Correction({}, {}, {})


def evaluate(graph: Graph, variables: Any, x: Any, correction: Correction = NOTHING) -> Values:
    """Run a network with a correction applied."""
    if correction.leaves:
        leaves, structure = jax.tree.flatten(variables)
        paths = graph.program.paths
        leaves = [correction.leaves.get(p, leaf) for p, leaf in zip(paths, leaves, strict=True)]
        variables = jax.tree.unflatten(structure, leaves)
    visit: dict[int, Visit] = {}
    for name, scale in correction.scale.items():
        product, axes = unit_axes(graph, graph[name])
        visit[product] = _rescale(product, axes, scale, correction.shift[name])
    return graph.evaluate(variables, x, visit)


def _rescale(number: int, axes: tuple[int, ...], scale: Any, shift: Any) -> Visit:
    def visit(values: Mapping[int, Any]) -> Mapping[int, Any]:
        value = values[number]
        fit = [n if i in axes else 1 for i, n in enumerate(value.shape)]
        new = wide(value) * scale.reshape(fit) + shift.reshape(fit)
        return {number: new.astype(value.dtype)}

    return visit


@dataclasses.dataclass(frozen=True)
class Normaliser:
    """A value that running statistics normalise: the leaves that hold them, the axes reduced."""

    value: int
    mean: int
    var: int
    axes: tuple[int, ...]
    path: str


def variance_path(mean_path: str) -> str:
    """Path of the running variance that belongs to a running mean."""
    before, _, after = mean_path.rpartition("mean")
    return f"{before}var{after}"


def running_statistics(graph: Graph) -> tuple[Normaliser, ...]:
    """Where the network subtracts a leaf called `mean` that has a sibling called `var`."""
    program = graph.program
    number = dict(zip(program.paths, program.leaves, strict=True))
    source = {n: p for p, n in number.items()}
    found = []
    for eq in program.equations:
        if eq.name in ("broadcast_in_dim", "reshape", "convert_element_type"):
            if not is_literal(eq.inputs[0]) and eq.inputs[0] in source:
                source[eq.outputs[0]] = source[eq.inputs[0]]
        elif eq.name == "sub" and not any(map(is_literal, eq.inputs)) and eq.inputs[1] in source:
            path = source[eq.inputs[1]]
            var = variance_path(path)
            if "mean" in path.split("/") and var in number:
                shape = program.avals[eq.inputs[1]].shape
                axes = tuple(i for i, n in enumerate(shape) if n == 1)
                found.append(Normaliser(eq.inputs[0], number[path], number[var], axes, path))
    return tuple(found)


def check(graph: Graph, kind: str) -> None:
    """See that a kind of renormalisation fits the network.

    Raises:
        ModeError: an unknown kind; a reset without running statistics; REPAIR with them.
    """
    if kind not in CHOICES:
        raise ModeError(unknown("renormalisation", kind, CHOICES))
    running = bool(running_statistics(graph))
    if kind == "reset" and not running:
        raise ModeError("renormalise='reset' needs BatchNorm; without it use 'repair'")
    if kind == "repair" and running:
        raise ModeError("renormalise='repair' is for networks without BatchNorm; use 'reset'")
