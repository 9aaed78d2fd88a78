"""Commutativity matching: aim at the product that weight and activation matching shrink by halves.

After matching, commutativity (definition 4 of the paper) reads, at every layer with weights,

    (W_A - π(W_B)) (H_A - π(H_B)) = 0,

W the layer's weights and H its inputs. Weight matching shrinks the first factor, activation
matching the second. This method minimises the product itself,

    J(π) = Σ over layers  ||(W_A - π(W_B)) (H_A - π(H_B))||² / ||W_A H_A||²,

over samples of the train split (and tokens, where padding does not count): a quadratic assignment
problem in every pair of neighbouring groups. A good local optimum is sought by `FrankWolfe`, from
the ends of other methods; the result's J is at most that of every start.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from llfc_jax.errors import MatchingError
from llfc_jax.graph import Graph, trace
from llfc_jax.graph.row_layout import RowLayout
from llfc_jax.graph.trace import abstract
from llfc_jax.matching.problem import Problem
from llfc_jax.matching.registry import build_method, matching_method
from llfc_jax.matching.result import Match
from llfc_jax.matching.search.descents import DescentOptions
from llfc_jax.matching.search.mixtures import Mixture, mix
from llfc_jax.symmetry.axes import Axis
from llfc_jax.symmetry.derive import Derived, derive
from llfc_jax.symmetry.spec import PermutationSpec
from llfc_jax.types import Apply, Batches, Inputs, Model, ProgressFn, Variables


class Layer(NamedTuple):
    """One linear site whose input depends on the network's parameters.

    Attributes:
        equation: index of its product in the program.
        data: which input of it is the feature.
        data_axes: axes of the feature.
        weight_axes: axes of the weight.
    """

    equation: int
    data: int
    data_axes: tuple[Axis, ...]
    weight_axes: tuple[Axis, ...]


class Values(NamedTuple):
    """What J needs of a layer.

    Attributes:
        data_a: its features in a.
        data_b: its features in b.
        weight_a: its weight in a.
        weight_b: its weight in b.
        mask: what of its product counts, in the product's layout.
        norm: the squared norm of a's product, by which J is divided.
    """

    data_a: jax.Array
    data_b: jax.Array
    weight_a: jax.Array
    weight_b: jax.Array
    mask: jax.Array
    norm: jax.Array


def find_layers(graph: Graph, derived: Derived) -> tuple[Layer, ...]:
    """Returns the linear sites that commutativity asks about; fed by x alone, a product is 0."""
    found = []
    for site in graph.sites:
        if site.kind != "linear" or site.data is None or site.weight is None:
            continue
        inputs = graph.program.equations[site.equation].inputs
        data, weight = inputs[site.data], inputs[site.weight]
        if data in graph.parametric:
            axes = derived.values[data], derived.values[weight]
            found.append(Layer(site.equation, site.data, *axes))
    return tuple(found)


class Program(NamedTuple):
    """A traced network and its layers."""

    graph: Graph
    layers: tuple[Layer, ...]


@dataclasses.dataclass(frozen=True)
class Commutativity:
    """J of a network, as a function of every layer's `Values` and a mixture.

    Attributes:
        apply: the network.
        spec: the spec that `permutation_spec` derived for it.
        structure: tree of the variables and the inputs.
        shapes: their leaves' shapes and types.
    """

    apply: Apply
    spec: PermutationSpec
    structure: Any
    shapes: tuple[jax.ShapeDtypeStruct, ...]

    def __call__(self, values: Sequence[Values], mixture: Mixture) -> jax.Array:
        """Returns J at a mixture (or, with permutation matrices, at a permutation)."""
        graph, layers = _program(self)
        parents, total = self.spec.parents, jnp.zeros((), jnp.float32)
        for layer, v in zip(layers, values, strict=True):
            data = v.data_a - mix(v.data_b, layer.data_axes, mixture, parents)
            weight = v.weight_a - mix(v.weight_b, layer.weight_axes, mixture, parents)
            off = _product(graph, layer, data, weight, v.mask)
            total += jnp.vdot(off, off) / v.norm
        return total


@functools.lru_cache(maxsize=16)
def _program(objective: Commutativity) -> Program:
    """Returns the trace behind an objective.

    Raises:
        MatchingError: the spec is not that of the trace.
    """
    graph = trace(objective.apply, *jax.tree.unflatten(objective.structure, objective.shapes))
    derived = derive(graph)
    if derived.spec.leaves != objective.spec.leaves:
        raise MatchingError(
            "the spec is not the one that this network's trace gives; pass "
            "permutation_spec(apply, a, x)"
        )
    return Program(graph, find_layers(graph, derived))


@functools.partial(jax.jit, static_argnums=0)
def read_values(
    objective: Commutativity, a: Variables, b: Variables, x: Inputs, mask: jax.Array
) -> list[Values]:
    """Runs both modes and returns what J needs."""
    graph, layers = _program(objective)
    layout, values = RowLayout.of(graph, objective.apply, a, x, mask), []
    with jax.default_matmul_precision("highest"):
        of_a, of_b = graph.evaluate(a, x).all, graph.evaluate(b, x).all
        for layer in layers:
            eq = graph.program.equations[layer.equation]
            data, weight = eq.inputs[layer.data], eq.inputs[1 - layer.data]
            held = graph.sample_axes[eq.outputs[0]] is not None
            counts = layout.mask_of(eq.outputs[0]) if held else jnp.ones(())
            own = _product(graph, layer, of_a[data], of_a[weight], counts)
            norm = jnp.maximum(jnp.vdot(own, own), jnp.finfo(own.dtype).tiny)
            sides = of_a[data], of_b[data], of_a[weight], of_b[weight]
            values.append(Values(*sides, counts, norm))
    return values


def _product(
    graph: Graph, layer: Layer, data: jax.Array, weight: jax.Array, mask: jax.Array
) -> jax.Array:
    """Returns a layer's product, 0 where a token is padding."""
    pair = (data, weight) if layer.data == 0 else (weight, data)
    product = graph.program.equations[layer.equation].bind(*pair)[0].astype(jnp.float32)
    return jnp.where(mask > 0, product, 0)


@matching_method("commutativity")
@dataclasses.dataclass(frozen=True)
class CommutativityMatching(DescentOptions):
    """Lowers the product of weight and feature differences, from weight's and activation's ends.

    Options: see `DescentOptions`.
    """

    def __call__(
        self, key: jax.Array, problem: Problem, progress: ProgressFn | None = None
    ) -> Match:
        """Matches B to A by the commutativity of weights and features.

        Args:
            key: for weight matching, where it is a start.
            problem: its spec is the one that `permutation_spec` derived for the network; of the
                labels of its batches only those that mark padding are looked at.
            progress: called as (starts done, starts, words).

        Returns:
            A `Match` whose objective is J: less is better.

        Raises:
            ModeError: the modes are none of one network.
            MatchingError: they do not fit the spec.
            DataError: there is no batch.
        """
        problem = problem.checked()
        x, _, mask = problem.first_batch(self.samples)
        shapes, structure = jax.tree.flatten(abstract((problem.a, x)))
        objective = Commutativity(problem.apply, problem.spec, structure, tuple(shapes))
        values = read_values(objective, problem.a, problem.b, x, mask)
        return self.descend(key, problem, objective, values, "commutativity", progress)


def commutativity_matching(
    key: jax.Array,
    network: Model,
    spec: PermutationSpec,
    a: Variables,
    b: Variables,
    batches: Batches,
    *,
    progress: ProgressFn | None = None,
    **options: object,
) -> Match:
    """Matches B to A by commutativity: `CommutativityMatching(**options)` on these modes.

    Args:
        key: for weight matching, where it is a start.
        network: a module of any framework, or a function apply(variables, x).
        spec: the spec that `permutation_spec` derived for this network.
        a: the mode that stays.
        b: the mode that is permuted.
        batches: data, pairs (x, y).
        progress: called as (starts done, starts, words).
        **options: the fields of `CommutativityMatching`.

    Returns:
        See `CommutativityMatching.__call__`.
    """
    method = build_method("commutativity", options)
    return method(key, Problem(network, spec, a, b, batches), progress)
