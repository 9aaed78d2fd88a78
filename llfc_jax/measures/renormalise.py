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
from jaxtyping import Array, Float

from llfc_jax.errors import ModeError, unknown
from llfc_jax.graph import Graph, Values
from llfc_jax.graph.graph import Visit
from llfc_jax.graph.normalisers import normalises_samples
from llfc_jax.graph.origins import downstream
from llfc_jax.graph.queries import unit_axes
from llfc_jax.measures.similarity import wide
from llfc_jax.types import Inputs, Variables

CHOICES = ("none", "reset", "repair")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Correction:
    """What to change when θ_α runs, unit by unit: value · scale + shift.

    Attributes:
        scale: factor per unit, by the name of the place.
        shift: what is then added per unit.
    """

    scale: dict[str, Float[Array, "... units"]]
    shift: dict[str, Float[Array, "... units"]]


NOTHING = Correction({}, {})


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a network is renormalised.

    Attributes:
        name: name of a linear site, or of the leaf that holds a running mean.
        value: number of the value whose statistics count.
        end: number of the value that is rescaled.
        axes: the axes of their units.
        level: how many other places lie before it on the longest path.
    """

    name: str
    value: int
    end: int
    axes: tuple[int, ...]
    level: int


def find_places(graph: Graph, kind: str) -> tuple[Place, ...]:
    """Returns where a network is renormalised, in the order of its equations.

    A reset: wherever running statistics normalise. REPAIR: every linear layer but those that no
    other follows, which make the logits.
    """
    if kind == "reset":
        at = {n.name: (n.value, n.end, n.axes) for n in graph.normalisers}
    else:
        at = {}
        sites = [s for s in graph.sites if s.kind == "linear" and s.sample_axis is not None]
        products = [graph.program.equations[s.equation].outputs[0] for s in sites]
        for site in sites:
            product, axes = unit_axes(graph, site)
            if downstream(graph.program, product).intersection(products) - {product}:
                at[site.name] = (product, product, axes)
    levels: dict[str, int] = {}
    after = {name: downstream(graph.program, end) for name, (_, end, _) in at.items()}
    for name, (value, _, _) in at.items():
        before = [levels[other] for other in levels if value in after[other]]
        levels[name] = 1 + max(before, default=-1)
    return tuple(Place(name, *where, levels[name]) for name, where in at.items())


def evaluate(
    graph: Graph, variables: Variables, x: Inputs, correction: Correction = NOTHING
) -> Values:
    """Run a network with a correction applied."""
    if not correction.scale:
        return graph.evaluate(variables, x)
    places = {p.name: p for kind in ("reset", "repair") for p in find_places(graph, kind)}
    visit: dict[int, Visit] = {}
    for name, scale in correction.scale.items():
        visit[places[name].end] = rescale(places[name], scale, correction.shift[name])
    return graph.evaluate(variables, x, visit)


def rescale(place: Place, scale: jax.Array, shift: jax.Array) -> Visit:
    """Returns a visitor that rescales the units at a place."""

    def visit(values: Mapping[int, Any]) -> Mapping[int, Any]:
        value = values[place.end]
        fit = [n if i in place.axes else 1 for i, n in enumerate(value.shape)]
        new = wide(value) * scale.reshape(fit) + shift.reshape(fit)
        return {place.end: new.astype(value.dtype)}

    return visit


def check(graph: Graph, kind: str) -> None:
    """See that a kind of renormalisation fits the network.

    Raises:
        ModeError: an unknown kind; a reset without running statistics; REPAIR with them.
    """
    if kind not in CHOICES:
        raise ModeError(unknown("renormalisation", kind, CHOICES))
    if kind == "reset" and not graph.normalisers:
        if normalises_samples(graph.program):
            raise ModeError(
                "renormalise='reset' needs BatchNorm; this network's norms (LayerNorm, GroupNorm "
                "or RMSNorm) take their statistics from each sample and need no reset: use 'none'"
            )
        raise ModeError("renormalise='reset' needs BatchNorm; without it use 'repair'")
    if kind == "repair" and graph.normalisers:
        raise ModeError("renormalise='repair' is for networks without BatchNorm; use 'reset'")
