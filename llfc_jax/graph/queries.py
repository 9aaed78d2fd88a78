"""Queries of a traced network: linear layers, their operands, activations, cuts.

Each measure and each matching method that reads a network's equations does it with these functions.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from llfc_jax.errors import GraphError, ModeError
from llfc_jax.graph.origins import origins, product_unit_axes
from llfc_jax.graph.pointwise import widen
from llfc_jax.graph.sites import Site
from llfc_jax.graph.trace import Equation, Program, is_literal
from llfc_jax.pair import equal_leaves, is_discrete
from llfc_jax.types import Variables

if TYPE_CHECKING:
    from llfc_jax.graph.graph import Graph, Values


def linear_sites(graph: "Graph") -> tuple[Site, ...]:
    """Returns the linear sites whose value holds samples.

    Raises:
        GraphError: there is none.
    """
    sites = tuple(s for s in graph.sites if s.kind == "linear" and s.sample_axis is not None)
    if not sites:
        raise GraphError("the network has no linear layer whose weight is a parameter")
    return sites


def operands(graph: "Graph", site: Site) -> tuple[Equation, int, int]:
    """Returns a linear site's equation, and the numbers of its feature and of its weight."""
    assert site.data is not None
    assert site.weight is not None
    eq = graph.program.equations[site.equation]
    return eq, eq.inputs[site.data], eq.inputs[site.weight]


def exchange_defect(site: Site, a: "Values", b: "Values") -> jax.Array:
    """Returns (W_a - W_b)(H_a - H_b) at a linear site, in the layout of its product.

    It is W_a H_a + W_b H_b - W_a H_b - W_b H_a, what commutativity lacks, in float32 or wider.
    """
    _, feature, weight = operands(a.graph, site)
    h, w = (widen(a.all[number]) - widen(b.all[number]) for number in (feature, weight))
    return multiply(a.graph, site, h, w)


def multiply(graph: "Graph", site: Site, feature: jax.Array, weight: jax.Array) -> jax.Array:
    """Evaluates a linear site's one equation on other operands, in their own type."""
    eq, _, _ = operands(graph, site)
    pair: list[Any] = [None, None]
    pair[site.data or 0], pair[site.weight or 0] = feature, weight
    preferred = eq.params.get("preferred_element_type")
    if preferred is not None and preferred != feature.dtype:
        params = {**eq.params, "preferred_element_type": feature.dtype}
        eq = dataclasses.replace(eq, params=params)
    return eq.bind(*pair)[0]


def unit_axes(graph: "Graph", site: Site) -> tuple[int, tuple[int, ...]]:
    """Returns the number of a linear site's product (before the bias) and its axes of units."""
    return product_unit_axes(graph.program, site.equation, site.weight)


def activation_sites(graph: "Graph") -> tuple[Site, ...]:
    """Returns the activation sites whose value holds samples.

    Raises:
        GraphError: there is none.
    """
    sites = tuple(s for s in graph.sites if s.kind == "activation" and s.sample_axis is not None)
    if not sites:
        raise GraphError("the network has no activation function, such as a ReLU")
    return sites


def used_leaves(graph: "Graph") -> tuple[str, ...]:
    """Returns the paths of the leaves that the network's output depends on."""
    program = graph.program
    needed = set(program.outputs)
    for eq in reversed(program.equations):
        if any(number in needed for number in eq.outputs):
            needed.update(a for a in eq.inputs if not is_literal(a))
    pairs = zip(program.paths, program.leaves, strict=True)
    return tuple(path for path, number in pairs if number in needed)


def check_used_leaves(graph: "Graph", a: Variables, b: Variables) -> None:
    """Checks that what a network uses of a pair can be interpolated.

    Between two quantised weights, index tables or masks there is nothing: where the network uses
    them, they must be alike in both modes. Leaves that it does not use, and random keys, pass.

    Args:
        graph: the network's trace.
        a: one mode.
        b: the other.

    Raises:
        ModeError: a leaf of integers or booleans that is used, and differs.
    """
    used = set(used_leaves(graph))
    for name, p, q in zip(graph.program.paths, jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if name in used and is_discrete(p) and not equal_leaves(p, q):
            raise ModeError(
                f"a and b differ at {name}, which is {jnp.result_type(p)} and cannot be "
                "interpolated; make it a float (dequantise it), or the same in both"
            )


def find_cuts(program: Program) -> frozenset[int]:
    """Returns the numbers of the values through which every path from x to the output passes.

    Paths run along the values that depend on x and that the output depends on. Equations stand in
    an order in which they can be evaluated, so a value cuts the network exactly where no path
    steps over it: nothing computed before it is used after it.
    """
    data = origins(program).data
    needed = set(program.outputs)
    for eq in reversed(program.equations):
        if any(number in needed for number in eq.outputs):
            needed.update(a for a in eq.inputs if not is_literal(a))
    live = data & needed
    last_use = dict.fromkeys(program.outputs, len(program.equations))
    for i, eq in enumerate(program.equations):
        if any(number in live for number in eq.outputs):
            last_use |= {a: max(i, last_use.get(a, i))
                         for a in eq.inputs if not is_literal(a) and a in live}  # fmt: skip
    inputs = live.intersection(program.inputs)
    cuts = set(inputs) if len(inputs) == 1 else set[int]()
    # the last equation that uses anything before here
    reach = max((last_use.get(number, -1) for number in inputs), default=-1)
    for i, eq in enumerate(program.equations):
        outputs = [number for number in eq.outputs if number in live]
        if len(outputs) == 1 and reach <= i:
            cuts.update(outputs)
        reach = max([reach, *(last_use.get(number, -1) for number in outputs)])
    return frozenset(cuts)
