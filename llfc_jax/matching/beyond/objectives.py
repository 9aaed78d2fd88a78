"""What learned matching lowers: numbers of a place on the line, and of the ends that it joins.

    loss:           L(α A + (1 - α) g B)
    linearity:      mean over features of 1 - cos(f_(α A + (1-α) g B), α f_A + (1 - α) f_gB)
    commutativity:  mean over linear layers of ||(W_A - W_gB)(H_A - H_gB)||² / ||W_A H_A||²
    output:         how far the outputs at α are from the mixture of the ends' outputs

Only the loss looks at labels. Commutativity looks at the ends alone, whatever α is, and leaves out
layers of x itself, which both ends share, and those whose product in A is zero.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from llfc_jax.graph import Graph, Values, trace
from llfc_jax.graph.pointwise import widen
from llfc_jax.graph.queries import exchange_defect, linear_sites, multiply, operands
from llfc_jax.graph.row_layout import RowLayout
from llfc_jax.matching.beyond.features import features, read, read_mask
from llfc_jax.matching.outputs import deviation
from llfc_jax.pair import interpolate
from llfc_jax.symmetry.beyond.spec import SymmetrySpec
from llfc_jax.tasks import Batch, Task
from llfc_jax.types import Apply, Variables

Objective = Literal["loss", "linearity", "both", "commutativity", "output"]
SMALLEST = 1e-12


@dataclasses.dataclass(frozen=True)
class Line:
    """The network whose line is looked at, and what may be done to its end.

    Attributes:
        apply: the network.
        task: judges its outputs.
        spec: its symmetry.
    """

    apply: Apply
    task: Task
    spec: SymmetrySpec


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """One place of a line and a batch; each network runs once, however often it is looked at.

    Attributes:
        line: the network and its symmetry.
        a: the end that stays.
        b: the end that was moved.
        alpha: the share of a.
        batch: the data.
    """

    line: Line
    a: Variables
    b: Variables
    alpha: jax.Array
    batch: Batch

    @functools.cached_property
    def graph(self) -> Graph:
        """The network's trace."""
        return trace(self.line.apply, self.a, self.batch.x)

    @functools.cached_property
    def layout(self) -> RowLayout:
        """What counts of its values."""
        return RowLayout.of(self.graph, self.line.apply, self.a, self.batch.x, self.batch.mask)

    @functools.cached_property
    def of_a(self) -> Values:
        """All values of a."""
        return self.graph.evaluate(self.a, self.batch.x)

    @functools.cached_property
    def of_b(self) -> Values:
        """All values of b."""
        return self.graph.evaluate(self.b, self.batch.x)

    @functools.cached_property
    def of_middle(self) -> Values:
        """All values of the network at α."""
        return self.graph.evaluate(interpolate(self.a, self.b, self.alpha), self.batch.x)


def lowered(place: Place, objective: Objective, weight: float) -> jax.Array:
    """Returns an objective; "both" is the loss and `weight` times the linearity."""
    if objective == "both":
        return loss(place) + weight * linearity(place)
    return OBJECTIVES[objective](place)


def loss(place: Place) -> jax.Array:
    """Returns the mean loss of what counts."""
    task, mask = place.line.task, place.layout.output_mask
    losses, weight = task.losses(place.of_middle.output, place.batch.y, mask)
    return (losses * weight).sum() / jnp.maximum(weight.sum(), SMALLEST)


def linearity(place: Place) -> jax.Array:
    """Returns how far features at α are from the mixture of the ends', 1 - cos."""
    graph, spec, gaps = place.graph, place.line.spec, []
    for feature in features(graph, spec):
        of_a, of_b, found = (
            read(feature, spec, run.all[feature.value])
            for run in (place.of_a, place.of_b, place.of_middle)
        )
        mixture = place.alpha * of_a + (1 - place.alpha) * of_b
        norms = (jnp.sum(mixture**2, -1) + SMALLEST) * (jnp.sum(found**2, -1) + SMALLEST)
        cosines = jnp.sum(mixture * found, -1) / jnp.sqrt(norms)
        counts = read_mask(feature, spec, graph, place.layout)
        gaps.append(1 - (cosines * counts).sum() / jnp.maximum(counts.sum(), 1))
    return sum(gaps, jnp.zeros((), jnp.float32)) / max(1, len(gaps))


def commutativity(place: Place) -> jax.Array:
    """Returns the mean over linear layers of what commutativity lacks, over a's own product.

    Raises:
        GraphError: the network has no linear layer.
    """
    graph, shares = place.graph, []
    for site in linear_sites(graph):
        equation, feature, weight = operands(graph, site)
        if feature not in graph.parametric:
            continue
        counts = place.layout.mask_of(equation.outputs[0]) > 0
        own = multiply(graph, site, *(widen(place.of_a.all[n]) for n in (feature, weight)))
        off = exchange_defect(site, place.of_a, place.of_b)
        own, off = (jnp.where(counts, v, 0) for v in (own, off))
        norm = jnp.vdot(own, own).real
        share = jnp.vdot(off, off).real / jnp.where(norm > 0, norm, 1)
        shares.append(jnp.where(norm > 0, share, 0))
    return sum(shares, jnp.zeros((), jnp.float32)) / max(1, len(shares))


def output(place: Place) -> jax.Array:
    """Returns how far the outputs at α are from the mixture of the ends'."""
    of_a, of_b, found = (
        jax.tree.map(widen, run.output) for run in (place.of_a, place.of_b, place.of_middle)
    )
    mixture = jax.tree.map(lambda p, q: place.alpha * p + (1 - place.alpha) * q, of_a, of_b)
    mask, labelled = place.layout.output_mask, place.line.task.labelled
    return deviation(found, mixture, mask, labelled=labelled)


OBJECTIVES: Mapping[str, Callable[[Place], jax.Array]] = {
    "loss": loss,
    "linearity": linearity,
    "commutativity": commutativity,
    "output": output,
}
assert {"both", *OBJECTIVES} == set(get_args(Objective))
