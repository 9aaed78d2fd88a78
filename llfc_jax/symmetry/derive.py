"""The permutation spec of a network, read off its trace.

Every axis of every parameter starts as an unknown; each equation ties or pins the axes that it
meets (`reading`). The unknowns that stay free are the groups (`naming`).

An axis each of whose places is looked at by itself (layers stacked in one array; queries, keys
and values in one projection) is fixed, and what stands beside it may be another axis in each of
its places. Which axes are of that kind shows only while the equations are read; they are then
read again with it.
"""

import dataclasses
import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

from llfc_jax.graph import Graph, trace
from llfc_jax.symmetry.axes import Axis, units
from llfc_jax.symmetry.naming import Names
from llfc_jax.symmetry.reading import Key, read
from llfc_jax.symmetry.spec import PermutationSpec
from llfc_jax.symmetry.values import Turn

MOST_READINGS = 6


@dataclasses.dataclass(frozen=True)
class Derived:
    """A spec, and the axes of every value of the trace.

    Attributes:
        spec: the permutation spec.
        values: axes of each value, by its number in the graph's program.
    """

    spec: PermutationSpec
    values: dict[int, tuple[Axis, ...]]


def derive(graph: Graph) -> Derived:
    """Follows the axes of a traced network."""
    return describe_values(graph, name_axes(graph))


def name_axes(
    graph: Graph,
    uniform: frozenset[int] = frozenset(),
    turns: Sequence[Turn] = (),
    same: Mapping[int, int] = {},
) -> Names:
    """Reads a network again and again, until nothing more is found to stand apart.

    Args:
        graph: the traced network.
        uniform: numbers of the leaves that hold one and the same number everywhere.
        turns: where units are turned in pairs; they are read as if nothing were done there.
        same: numbers of values that are read as if they were others, by number.
    """
    apart: frozenset[Key] = frozenset()
    best = Names(graph, read(graph.program, apart, uniform, turns, same))
    for _ in range(MOST_READINGS):
        more = apart | best.reading.apart_keys
        if more == apart:
            break
        apart = more
        again = Names(graph, read(graph.program, apart, uniform, turns, same))
        if _freedom(again) < _freedom(best):
            break
        best = again
    return best


def _freedom(names: Names) -> float:
    """Logarithm of the number of permutations."""
    copies = {group.name: group.size for group in names.groups}
    return sum(copies.get(group.parent, 1) * math.lgamma(group.size + 1) for group in names.groups)


def describe_values(graph: Graph, names: Names, rigid: Container[str] = ()) -> Derived:
    """Returns the spec of a network whose groups have names, and its values' axes.

    Args:
        graph: the traced network.
        names: of its groups.
        rigid: the groups whose units keep their places.
    """
    program, reading = graph.program, names.reading
    values = {number: names.axes(value.axes) for number, value in reading.values.items()}
    sites = tuple(
        (site.name, values[site.value])
        for site in graph.sites
        if any(True for axis in values[site.value] for _ in units(axis))
    )
    leaves = zip(program.paths, (values[n] for n in program.leaves), strict=True)
    groups = tuple(dataclasses.replace(g, rigid=g.name in rigid) for g in names.groups)
    spec = PermutationSpec(groups, tuple(leaves), sites, names.notes)
    return Derived(spec, values)


def permutation_spec(network: Any, variables: Any, x: Any) -> PermutationSpec:
    """Derives which units of a network may be permuted, from its trace.

    Args:
        network: a module of any framework, or a function `apply(variables, x) -> logits`, the
            network in evaluation mode.
        variables: its variables, or their shapes.
        x: a batch, or its shape; two samples are enough.

    Returns:
        The spec. `explain()` prints it; `check` proves it on numbers.

    Raises:
        GraphError: the network cannot be traced.

    Examples:
        >>> import jax.numpy as jnp
        >>> def apply(w, x):
        ...     return jnp.maximum(x @ w["first"], 0) @ w["second"]
        >>> w = {"first": jnp.ones((3, 4)), "second": jnp.ones((4, 2))}
        >>> permutation_spec(apply, w, jnp.ones((5, 3))).where("first")
        [('first', 1), ('second', 0)]
    """
    return derive(trace(network, variables, x)).spec
