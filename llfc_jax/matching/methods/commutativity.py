"""Commutativity matching: aim at the product that weight and activation matching shrink by halves.

After matching, commutativity (definition 4 of the paper) reads, at every layer with weights,

    (W_A - π(W_B)) (H_A - π(H_B)) = 0,

W the layer's weights and H its inputs. Weight matching shrinks the first factor, activation
matching the second. This method minimises the product itself,

    J(π) = Σ over layers  ||(W_A - π(W_B)) (H_A - π(H_B))||² / ||W_A H_A||²,

over samples of the train split: a quadratic assignment problem in every pair of neighbouring
groups. A good local optimum is sought by `relax`, from the ends of other methods; the result's J is
at most that of every start.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from llfc_jax.errors import MatchingError
from llfc_jax.graph import Apply, Graph, trace
from llfc_jax.graph.trace import abstract
from llfc_jax.matching.assignment.solvers import Solver
from llfc_jax.matching.checks import check_modes
from llfc_jax.matching.data import Batches, Progress, take
from llfc_jax.matching.result import Matching
from llfc_jax.matching.search.frank_wolfe import ROUNDS, Descent
from llfc_jax.matching.search.mixtures import Mixture, mix
from llfc_jax.matching.search.starts import STARTS, begin, descend_from
from llfc_jax.symmetry.axes import Axis, Permutation
from llfc_jax.symmetry.derive import Derived, derive
from llfc_jax.symmetry.spec import PermutationSpec


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
    """A layer's features and weights in both modes, and what its product is divided by."""

    data_a: jax.Array
    data_b: jax.Array
    weight_a: jax.Array
    weight_b: jax.Array
    norm: jax.Array


def layers(graph: Graph, derived: Derived) -> tuple[Layer, ...]:
    """The linear sites whose product commutativity asks about; those fed by x alone are zero."""
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


def read(graph: Graph, found: Sequence[Layer], a: Any, b: Any, x: jax.Array) -> list[Values]:
    """Run both modes and keep what J needs."""
    of_a, of_b = graph.evaluate(a, x).all, graph.evaluate(b, x).all
    values = []
    for layer in found:
        inputs = graph.program.equations[layer.equation].inputs
        data, weight = inputs[layer.data], inputs[1 - layer.data]
        own = _product(graph, layer, of_a[data], of_a[weight])
        norm = jnp.maximum(jnp.vdot(own, own), jnp.finfo(own.dtype).tiny)
        values.append(Values(of_a[data], of_b[data], of_a[weight], of_b[weight], norm))
    return values


def _product(graph: Graph, layer: Layer, data: jax.Array, weight: jax.Array) -> jax.Array:
    pair = (data, weight) if layer.data == 0 else (weight, data)
    return graph.program.equations[layer.equation].bind(*pair)[0].astype(jnp.float32)


def objective(
    graph: Graph,
    found: Sequence[Layer],
    values: Sequence[Values],
    mixture: Mixture,
    parents: Mapping[str, str],
) -> jax.Array:
    """J at a mixture (or, with permutation matrices, at a permutation)."""
    total = jnp.zeros(())
    for layer, v in zip(found, values, strict=True):
        data = v.data_a - mix(v.data_b, layer.data_axes, mixture, parents)
        weight = v.weight_a - mix(v.weight_b, layer.weight_axes, mixture, parents)
        off = _product(graph, layer, data, weight)
        total += jnp.vdot(off, off) / v.norm
    return total


def commutativity_matching(
    key: jax.Array,
    apply: Apply,
    spec: PermutationSpec,
    a: Any,
    b: Any,
    batches: Batches,
    *,
    starts: Sequence[str | Permutation] = STARTS,
    samples: int = 2000,
    steps: int = 40,
    rounds: int = ROUNDS,
    solver: Solver = "auto",
    progress: Progress | None = None,
) -> Matching:
    """Match B to A by the commutativity of weights and features.

    Args:
        key: for weight matching, where it is a start.
        apply: `apply(variables, x) -> logits`.
        spec: the spec that `permutation_spec` derived for this network.
        a: the mode that stays.
        b: the mode that is permuted.
        batches: data, pairs (x, y); the labels are not looked at.
        starts: "identity", "weight", "activation", or permutations; the end with the lowest J is
            kept.
        samples: how many samples J is taken over, from the first batches.
        steps: see `Descent.run`.
        rounds: see `Descent.run`.
        solver: see `assign`.
        progress: called as (starts done, starts, words).

    Returns:
        A `Matching` whose objective is J: less is better. `history` holds J at the starts
        themselves first, then at the end from each.

    Raises:
        ModeError: `a` and `b` are no modes of one network.
        MatchingError: they do not fit the spec, or an argument is out of range.
        DataError: there is no batch.
    """
    check_modes(spec, a, b)
    x = take(batches, samples)
    shapes, structure = jax.tree.flatten(abstract((a, x)))
    problem = _problem(apply, spec, structure, tuple(shapes), solver)
    return descend_from(
        problem.descent,
        read(problem.graph, problem.layers, a, b, x),
        begin(key, apply, spec, a, b, batches, starts, solver),
        steps,
        rounds,
        "commutativity",
        progress,
    )


class _Problem(NamedTuple):
    graph: Graph
    layers: tuple[Layer, ...]
    descent: Descent


@functools.lru_cache(maxsize=16)
def _problem(
    apply: Apply, spec: PermutationSpec, structure: Any, shapes: tuple[Any, ...], solver: Solver
) -> _Problem:
    """What depends on the network and the shapes alone: compiled once for all pairs."""
    graph = trace(apply, *jax.tree.unflatten(structure, shapes))
    derived = derive(graph)
    if derived.spec.leaves != spec.leaves:
        raise MatchingError(
            "the spec is not the one that this network's trace gives; pass "
            "permutation_spec(apply, a, x)"
        )
    found = layers(graph, derived)
    at = functools.partial(objective, graph, found, parents=spec.parents)
    return _Problem(graph, found, Descent(spec, at, solver))
