"""Sites: the values of a trace that have a name.

Three kinds. A *linear* site is one `dot_general` or `conv_general_dilated` that has exactly one
operand made of parameters; its value is the pre-activation, bias included. An *activation* site is
what an activation function gives, a ReLU for example, however it was written. A *module* site is
what a module hands out, where the name stack says which module an equation belongs to (Linen
writes it there).

Names come from the parameter tree, which every framework has: `Dense_0` for the layer whose weight
is `params/Dense_0/kernel`, `Dense_0.relu` for the ReLU behind it, `Block_2` for a module.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import numpy as np

from llfc_jax.graph.activations import find_activations
from llfc_jax.graph.origins import Origins, depending, origins
from llfc_jax.graph.statistics import SHAPING
from llfc_jax.graph.trace import LINEAR, Equation, Program, is_literal

COLLECTION = "params"
SiteKind: TypeAlias = Literal["linear", "activation", "module"]


@dataclasses.dataclass(frozen=True)
class Site:
    """A named value of the trace.

    Attributes:
        name: unique, stable name.
        kind: "linear", "activation" or "module".
        value: number of the value that is read or written here.
        shape: its shape at the traced batch size.
        sample_axis: the axis along which the samples stand; None where there is none.
        equation: index of the equation: the product itself (before the bias) of a linear site.
        data: for linear sites, which input of that equation is the feature.
        weight: for linear sites, which input of that equation is the weight.
        leaf: for linear sites, the path of the leaf that holds the weight ("" where it is computed
            from several).
        function: for activation sites, the function's name: "relu", "gelu", ...
        inputs: for activation sites, the numbers of the values that go in: the pre-activation.
        body: for activation sites, the indices of the equations that make the value of them.
    """

    name: str
    kind: SiteKind
    value: int
    shape: tuple[int, ...]
    sample_axis: int | None
    equation: int
    data: int | None = None
    weight: int | None = None
    leaf: str = ""
    function: str = ""
    inputs: tuple[int, ...] = ()
    body: tuple[int, ...] = ()


def linear_inputs(eq: Equation, found: Origins) -> tuple[int, int] | None:
    """Returns the (feature, weight) inputs of a product with parameters; None for all else."""
    if eq.name not in LINEAR or any(map(is_literal, eq.inputs)):
        return None
    of_data = [a in found.data for a in eq.inputs]
    if sorted(of_data) != [False, True]:
        return None
    feature = of_data.index(True)
    return (feature, 1 - feature) if found.leaves.get(eq.inputs[1 - feature]) else None


def _module_path(path: str) -> str:
    """Returns the module part of a leaf's path: without its collection and the wrapping of NNX."""
    parts = path.split("/")
    if parts[-1] in ("value", "raw_value"):
        parts = parts[:-1]
    return "/".join(parts)


def _layer_names(paths: tuple[str, ...], weights: Iterable[int]) -> dict[int, str]:
    """Returns a name per weight leaf: its module, or its path where a module holds several."""
    collections = {p.split("/")[0] for p in paths}
    strip = COLLECTION in collections and all("/" in p for p in paths)
    plain = {i: _module_path(paths[i].split("/", 1)[1] if strip else paths[i]) for i in weights}
    siblings = Counter(p.rpartition("/")[0] for p in plain.values())
    return {
        i: parent if (parent := p.rpartition("/")[0]) and siblings[parent] == 1 else p or "weight"
        for i, p in plain.items()
    }


def layer_paths(program: Program, sites: Iterable[Site]) -> dict[str, tuple[str, ...]]:
    """Returns the leaves of each layer, by its name: a norm's go with the layer used before it.

    Every leaf that the network uses belongs to exactly one layer; those used before any layer
    (an embedding, say) are a layer called `input`.
    """
    layer_at = {s.equation: s.name for s in sites if s.kind == "linear"}
    number = dict(zip(program.leaves, program.paths, strict=True))
    of_value: dict[int, set[str]] = {n: {p} for n, p in number.items()}
    groups: dict[str, list[str]] = {}
    taken: set[str] = set()
    current = "input"
    for i, eq in enumerate(program.equations):
        current = layer_at.get(i, current)
        from_ = set().union(*(of_value.get(a, set()) for a in eq.inputs if not is_literal(a)))
        if i in layer_at or any(a not in of_value for a in eq.inputs if not is_literal(a)):
            new = from_ - taken
            if new:
                groups.setdefault(current, []).extend(p for p in program.paths if p in new)
            taken |= new
        else:  # made of parameters alone: who uses it decides
            of_value.update(dict.fromkeys(eq.outputs, from_))
    return {name: tuple(paths) for name, paths in groups.items()}


def find_sites(program: Program, sample_axes: dict[int, int | None]) -> tuple[Site, ...]:
    """Names the sites of a program, in the order in which they are computed."""
    found = origins(program)
    users: dict[int, list[int]] = defaultdict(list)
    for i, eq in enumerate(program.equations):
        for atom in eq.inputs:
            if not is_literal(atom):
                users[atom].append(i)
    linear = {
        i: inputs
        for i, eq in enumerate(program.equations)
        if (inputs := linear_inputs(eq, found)) is not None
    }
    held = {i: _weight_leaf(program, found, i, inputs[1]) for i, inputs in linear.items()}
    names = _layer_names(program.paths, sorted(set(held.values())))

    sites: list[Site] = []
    layer_of: dict[int, str] = {}  # value -> name of the latest layer that it has passed

    def add(name: str, kind: SiteKind, value: int, equation: int, **rest: Any) -> None:
        shape = tuple(program.avals[value].shape)
        sites.append(Site(name, kind, value, shape, sample_axes[value], equation, **rest))

    latest: dict[int, int] = {}  # value -> index of the latest linear equation above it
    for i, eq in enumerate(program.equations):
        above = max((latest.get(a, -1) for a in eq.inputs if not is_literal(a)), default=-1)
        latest.update(dict.fromkeys(eq.outputs, i if i in linear else above))
        if i in linear:
            feature, weight = linear[i]
            leaf = program.paths[held[i]] if _only_leaf(found, eq.inputs[weight]) else ""
            layer_of[i] = names[held[i]]
            value = _with_bias(program, found, users, eq.outputs[0])
            add(layer_of[i], "linear", value, i, data=feature, weight=weight, leaf=leaf)
    weights = {i: weight for i, (_, weight) in linear.items()}
    for one in find_activations(program, found.data, depending(program), latest, weights):
        equation = one.body[-1]
        layer = layer_of.get(latest[one.value], "")
        add(f"{layer}.{one.function}" if layer else one.function, "activation", one.value,
            equation, function=one.function, inputs=one.inputs, body=one.body)  # fmt: skip
    layers = {site.name for site in sites}  # a layer's module hands out the layer's own value
    for scope, value, i in _module_outputs(program, found, users):
        if scope not in layers:
            add(scope, "module", value, i)
    order = {value: i for i, eq in enumerate(program.equations) for value in eq.outputs}
    return _unique(sorted(sites, key=lambda site: order[site.value]))


def _only_leaf(found: Origins, value: int) -> bool:
    return len(found.leaves[value]) == 1


def _weight_leaf(program: Program, found: Origins, equation: int, weight: int) -> int:
    """Returns the leaf that names a layer: the largest of those that its weight is made of."""
    leaves = found.leaves[program.equations[equation].inputs[weight]]
    return max(leaves, key=lambda i: (np.prod(program.avals[program.leaves[i]].shape), -i))


def _with_bias(program: Program, found: Origins, users: dict[int, list[int]], value: int) -> int:
    """Returns the value after the bias where nothing but adding one follows, else the same."""
    at = value
    while len(users[at]) == 1:
        eq = program.equations[users[at][0]]
        others = [a for a in eq.inputs if a is not at and a != at]
        if eq.name in ("add", "add_any") and len(others) == 1:
            bias = others[0]
            is_bias = not is_literal(bias) and bias not in found.data and found.leaves.get(bias)
            return eq.outputs[0] if is_bias else value
        if eq.name not in SHAPING:
            break
        at = eq.outputs[0]
    return value


def _module_outputs(
    program: Program, found: Origins, users: dict[int, list[int]]
) -> Iterable[tuple[str, int, int]]:
    """Yields (module path, value, equation) of the last value that each module hands out."""
    known = {""}
    for path in program.paths:
        parts = _module_path(path).split("/")
        inner = parts[1:] if len(parts) > 2 else parts
        for which in (parts, inner):
            known |= {"/".join(which[:n]) for n in range(1, len(which))}
    inside: dict[str, set[int]] = defaultdict(set)
    for i, eq in enumerate(program.equations):
        parts = eq.scope.split("/")[1:]  # the first part is the network itself
        for n in range(1, len(parts) + 1):
            scope = "/".join(parts[:n])
            if scope in known:
                inside[scope].add(i)
    for scope, members in inside.items():
        handed = [
            (value, i)
            for i in sorted(members)
            for value in program.equations[i].outputs
            if value in found.data
            and (value in program.outputs or any(u not in members for u in users[value]))
        ]
        if handed:
            yield scope, *handed[-1]


def _unique(sites: list[Site]) -> tuple[Site, ...]:
    """Numbers the sites that share a name: the second call of a layer is `name#2`."""
    seen: Counter[str] = Counter()
    named = []
    for site in sites:
        seen[site.name] += 1
        again = f"{site.name}#{seen[site.name]}" if seen[site.name] > 1 else site.name
        named.append(dataclasses.replace(site, name=again))
    return tuple(named)
