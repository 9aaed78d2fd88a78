"""A traced network: its sites, and its evaluation with any of them read or written."""

import dataclasses
import fnmatch
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike

from llfc_jax.errors import GraphError, unknown
from llfc_jax.frameworks import Network
from llfc_jax.graph import queries
from llfc_jax.graph.affine import affine
from llfc_jax.graph.cache import trace_once
from llfc_jax.graph.normalisers import Normaliser, find_normalisers
from llfc_jax.graph.origins import depending
from llfc_jax.graph.pointwise import bind_wide
from llfc_jax.graph.sample_axes import find_sample_axes
from llfc_jax.graph.sites import Site, find_sites
from llfc_jax.graph.statistics import SHAPING
from llfc_jax.graph.trace import (
    CONTROL,
    Apply,
    Equation,
    Program,
    count_linear,
    flatten,
    is_literal,
    subjaxprs,
)
from llfc_jax.types import Inputs, Model, Variables

Visit = Callable[[Mapping[int, Any]], Mapping[int, Any]]
KINDS = ("linear", "activation", "module", "relu")
DEFAULT_SITES = ("linear", "activation")


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A network traced at one batch size.

    Attributes:
        program: the flat list of equations.
        sites: its named values, in the order in which they are computed.
        sample_axes: the axis along which the samples stand in each value, by number; None where
            there is none.
    """

    program: Program
    sites: tuple[Site, ...]
    sample_axes: Mapping[int, int | None]

    @functools.cached_property
    def by_name(self) -> dict[str, Site]:
        """Site of each name."""
        return {site.name: site for site in self.sites}

    @property
    def opaque(self) -> tuple[str, ...]:
        """What is kept whole though matrix products stand inside it: `scan in Net/layers`."""
        return tuple(
            f"{eq.name} in {eq.scope or 'the network'}"
            for eq in self.program.equations
            if eq.name in CONTROL and any(map(count_linear, subjaxprs(eq)))
        )

    @functools.cached_property
    def parametric(self) -> frozenset[int]:
        """Numbers of the values that depend on any leaf of the variables."""
        return depending(self.program)

    @functools.cached_property
    def affine(self) -> frozenset[int]:
        """Numbers of the values that are the mixture of the ends' own between any two modes."""
        return affine(self.program, self.parametric)

    @functools.cached_property
    def cut_sites(self) -> tuple[str, ...]:
        """Names of the sites that cut the network, in order.

        Every path from the input to the output passes through such a site, so the rest of the
        network is a function of its value and of the parameters alone.
        """
        cuts = queries.find_cuts(self.program)
        return tuple(s.name for s in self.sites if s.value in cuts and s.sample_axis is not None)

    @property
    def activation_sites(self) -> tuple[Site, ...]:
        """The activation sites of one pre-activation whose value holds samples, in order.

        Not among them: maxout written as the maximum of several values.
        """
        return tuple(
            s
            for s in self.sites
            if s.kind == "activation" and s.sample_axis is not None and len(s.inputs) == 1
        )

    def activate(self, site: Site, *z: ArrayLike) -> jax.Array:
        """Evaluates an activation site's function on other pre-activations, in their own type.

        Args:
            site: an activation site of this graph.
            z: one array for each of `site.inputs`, in its shape; all but maxout of several values
                have one.

        Raises:
            GraphError: no activation site, or another number of inputs.
        """
        if site.kind != "activation" or len(z) != len(site.inputs):
            raise GraphError(f"site {site.name} is no activation of {len(z)} values")
        values = {**self.program.constants, **dict(zip(site.inputs, z, strict=True))}
        for i in site.body:
            eq = self.program.equations[i]
            inputs = [a.val if is_literal(a) else values[a] for a in eq.inputs]
            exact = all(jnp.result_type(v) == self.program.avals[n].dtype
                        for n, v in zip(site.inputs, z, strict=True))  # fmt: skip
            out = eq.bind(*inputs)[0] if exact else bind_wide(eq, inputs)
            values[eq.outputs[0]] = out
        return values[site.value]

    @functools.cached_property
    def normalisers(self) -> tuple[Normaliser, ...]:
        """Where running statistics normalise, as BatchNorm's do."""
        return find_normalisers(self.program)

    def __getitem__(self, name: str) -> Site:
        """Returns the site of this name.

        Raises:
            GraphError: there is none; the line names the nearest.
        """
        if name not in self.by_name:
            raise GraphError(unknown("site", name, self.by_name))
        return self.by_name[name]

    def select(self, patterns: str | Iterable[str] = DEFAULT_SITES) -> tuple[Site, ...]:
        """Returns sites by kind, by activation function or by name, in order.

        A pattern is a kind ("linear", "activation", "module", "all"), an activation function
        ("relu", "gelu", ...) or a name in which `*` matches anything. Only sites whose value has a
        sample axis count: the others hold no features.

        Raises:
            GraphError: a pattern matches nothing.
        """
        patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        chosen: set[str] = set()
        for pattern in patterns:
            of_kind = [s.name for s in self.sites if pattern in (s.kind, s.function, "all")]
            match = of_kind or [s.name for s in self.sites if fnmatch.fnmatchcase(s.name, pattern)]
            if not match and pattern not in KINDS:
                raise GraphError(unknown("site", pattern, [*KINDS, "all", *self.by_name]))
            chosen.update(match)
        sites = tuple(s for s in self.sites if s.name in chosen and s.sample_axis is not None)
        if not sites:
            opaque = f" (kept whole: {', '.join(self.opaque)})" if self.opaque else ""
            raise GraphError(f"the network has no site that matches {patterns}{opaque}")
        return sites

    def evaluate(
        self, variables: Variables, x: Inputs, visit: Mapping[int, Visit] | None = None
    ) -> "Values":
        """Runs the network, keeping every value: pure, so it may stand in jit, vmap and grad.

        Args:
            variables: tree of the traced structure and shapes.
            x: a batch of the traced shape.
            visit: functions called with all values so far, just after the value of that number is
                known; what they return replaces values that later equations read.

        Raises:
            GraphError: arguments whose shapes or types are not those of the trace.
        """
        program = self.program
        values = dict(program.constants)
        given = []
        for what, tree, numbers, names in (
            ("variables", variables, program.leaves, program.paths),
            ("x", x, program.inputs, ["x"] * len(program.inputs)),
        ):
            leaves = jax.tree.leaves(tree)
            if len(leaves) != len(numbers):
                words = "variables have" if what == "variables" else "x has"
                raise GraphError(f"{words} {len(leaves)} arrays, the traced network {len(numbers)}")
            given += zip(names, numbers, leaves, strict=True)
        for name, number, value in given:
            shape, dtype = jnp.shape(value), jnp.result_type(value)
            aval = program.avals[number]
            if (shape, dtype) != (aval.shape, aval.dtype):
                raise GraphError(
                    f"{name} is {dtype}{list(shape)}, the network was traced with "
                    f"{aval.dtype}{list(aval.shape)}"
                )
            values[number] = value
        visit = visit or {}
        for eq in program.equations:
            _run(eq, values)
            for number in eq.outputs:
                if number in visit:
                    values.update(visit[number](values))
        return Values(self, values)

    def explain(self) -> str:
        """Returns the sites as lines of text, and what could not be looked into."""
        width = max((len(s.name) for s in self.sites), default=0)
        lines = [f"{s.name:<{width}}  {s.function or s.kind:<6}  {s.shape}" for s in self.sites]
        lines += [f"kept whole, no sites inside: {name}" for name in self.opaque]
        return "\n".join(lines)


def _run(eq: Equation, values: dict[int, Any]) -> None:
    out = eq.bind(*(a.val if is_literal(a) else values[a] for a in eq.inputs))
    values.update(zip(eq.outputs, out, strict=True))


@dataclasses.dataclass(frozen=True, eq=False)
class Values:
    """All values of one run. `values["Dense_0"]` reads a site; `replace` writes.

    Attributes:
        graph: the traced network.
        all: value of every number.
    """

    graph: Graph
    all: Mapping[int, Any]

    def __getitem__(self, name: str) -> Any:
        """Returns the value at a site."""
        return self.all[self.graph[name].value]

    @property
    def output(self) -> Any:
        """What the network returns: an array, or a tree of arrays."""
        program = self.graph.program
        return jax.tree.unflatten(program.output_tree, [self.all[n] for n in program.outputs])

    def replace(self, written: Mapping[str, Any]) -> "Values":
        """Returns the run with other values at these sites.

        Only what depends on them is evaluated again; all else is taken from this run.

        Raises:
            GraphError: an unknown site, or a value of another shape than the site's.
        """
        values = dict(self.all)
        changed = set()
        for name, value in written.items():
            site = self.graph[name]
            if jnp.shape(value) != site.shape:
                raise GraphError(f"site {name} has shape {site.shape}, not {jnp.shape(value)}")
            values[site.value] = value
            changed.add(site.value)
        written_ = frozenset(changed)
        for eq in self.graph.program.equations:
            if any(not is_literal(a) and a in changed for a in eq.inputs):
                keep = {n: values[n] for n in eq.outputs if n in written_}
                _run(eq, values)
                values.update(keep)
                changed.update(eq.outputs)
        return Values(self.graph, values)


def rows(graph: Graph, number: int, value: jax.Array) -> jax.Array:
    """Returns a value as one row per sample: [n, d], the samples' own axes flattened.

    Args:
        graph: the traced network.
        number: which value of the trace it is, or has the layout of.
        value: the array itself.

    Raises:
        GraphError: the value holds no samples.
    """
    axis = graph.sample_axes[number]
    if axis is None:
        raise GraphError("a value without a sample axis has no features")
    return jnp.moveaxis(value, axis, 0).reshape(graph.program.samples, -1)


def features(values: Values, site: Site) -> jax.Array:
    """Returns what is read at a site, a row per sample: [n, d]."""
    return rows(values.graph, site.value, values.all[site.value])


def in_layout(graph: Graph, site: Site, product: jax.Array) -> Any:
    """Returns a linear site's product, in the layout of the site's value, without the bias.

    Between the two may stand a transpose or a reshape: those that `vmap` leaves, for example.
    """
    equations = graph.program.equations
    number = equations[site.equation].outputs[0]
    for eq in equations[site.equation + 1 :]:
        if number == site.value:
            break
        if number in eq.inputs:
            if eq.name not in SHAPING:
                break  # the bias
            (product,), (number,) = eq.bind(product), eq.outputs
    return product


def trace(network: Model, variables: Model, x: Inputs) -> Graph:
    """Traces a network and names its sites.

    Args:
        network: a module of any framework, or a function `apply(variables, x)`.
        variables: a mode of it, or any pytree of arrays (or of their shapes).
        x: one batch [n, ...], an array or a tree of them, or its shape; only shapes count.

    Returns:
        The graph at this batch size. Site names do not depend on the batch size.

    Raises:
        GraphError: the network fails on these shapes, or returns no array.

    Examples:
        >>> import jax.numpy as jnp
        >>> def apply(w, x):
        ...     return jnp.maximum(x @ w["first"] + w["shift"], 0) @ w["second"]
        >>> w = {"first": jnp.ones((3, 4)), "shift": jnp.ones(4), "second": jnp.ones((4, 2))}
        >>> [site.name for site in trace(apply, w, jnp.ones((5, 3))).sites]
        ['first', 'first.relu', 'second']
    """
    view = Network.of(network)
    variables = view.variables(variables)
    return trace_once(_trace, lambda graph: graph.program, view.apply, variables, x)


def _trace(apply: Apply, variables: Variables, x: Inputs) -> Graph:
    program = flatten(apply, variables, x)
    sample_axes = find_sample_axes(program, apply, variables, x)
    return Graph(program, find_sites(program, sample_axes), sample_axes)
