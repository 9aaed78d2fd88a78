"""PyTorch weights into a JAX network: matched in order, laid out anew, checked by shape.

A state dict is taken as plain arrays (`{k: v.numpy() for k, v in model.state_dict().items()}`, or
an .npz of them): nothing is unpickled here.
"""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from llfc_jax.errors import ModeError
from llfc_jax.graph import Apply, Equation, Graph, trace
from llfc_jax.graph.trace import is_literal

# PyTorch's name of a parameter -> the names that JAX libraries give it.
LEAVES = {
    "weight": ("kernel", "scale", "weight", "w"),
    "bias": ("bias", "b"),
    "running_mean": ("mean",),
    "running_var": ("var",),
}
IGNORED = ("num_batches_tracked",)
CASTS = ("convert_element_type", "copy")


def from_torch(
    state: Mapping[str, np.ndarray],
    apply: Apply,
    variables: Any,
    x: Any,
    names: Mapping[str, str] | None = None,
) -> Any:
    """The variables of a JAX network with the values of a PyTorch state dict.

    Layers are paired in order: the state dict's order against the order in which the JAX network
    uses its parameters. Layouts are read off the trace: in Flax a dense weight [out, in] becomes
    [in, out], a convolution [out, in, h, w] becomes [h, w, in, out], and the inputs of a dense
    layer behind a flattened image go from (channel, row, column) to (row, column, channel); in
    Equinox all stay as they are.

    Args:
        state: PyTorch name -> array.
        apply: the JAX network.
        variables: its variables; only structure, shapes and types are used.
        x: a batch for it, channels last, or its shape.
        names: PyTorch module -> path of the JAX module, where the order of layers differs;
            it must then name every module.

    Returns:
        A tree like `variables`.

    Raises:
        ModeError: modules, parameters or shapes that do not correspond.
    """
    graph = trace(apply, variables, x)
    theirs = _modules(state)
    ours = _used(graph)
    if names is None:
        if len(theirs) != len(ours):
            raise ModeError(
                f"the state dict has {len(theirs)} modules ({', '.join(list(theirs)[:3])}, ...), "
                f"the network {len(ours)} ({', '.join(list(ours)[:3])}, ...); pass names to pair "
                "them"
            )
        names = dict(zip(theirs, ours, strict=True))
    elif set(names) != set(theirs) or set(names.values()) != set(ours):
        odd = set(names) ^ set(theirs) or set(names.values()) ^ set(ours)
        raise ModeError(f"names must pair every module; look at {', '.join(sorted(odd)[:3])}")
    layouts = _layouts(graph)
    values: dict[str, np.ndarray] = {}
    for module, path in names.items():
        for parameter, array in theirs[module].items():
            leaf = _leaf(ours[path], parameter, f"{module}.{parameter}", path)
            values[leaf] = layouts.get(leaf, Layout()).apply(np.asarray(array))
    return _fill(variables, graph.program.paths, values)


def _modules(state: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    modules: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for name, array in state.items():
        module, _, parameter = name.rpartition(".")
        if parameter not in IGNORED:
            modules[module][parameter] = array
    return dict(modules)


def _used(graph: Graph) -> dict[str, list[str]]:
    """Module path -> its leaves' paths, in the order in which the network uses them."""
    number = dict(zip(graph.program.leaves, graph.program.paths, strict=True))
    order: list[str] = []
    for eq in graph.program.equations:
        order += [number[a] for a in eq.inputs if not is_literal(a) and a in number]
    modules: dict[str, list[str]] = defaultdict(list)
    for path in dict.fromkeys([*order, *graph.program.paths]):
        modules[_parts(path)[0]].append(path)
    return dict(modules)


def _parts(path: str) -> tuple[str, str]:
    """(module, parameter) of a leaf's path, without collection and wrapping."""
    parts = path.split("/")
    if parts[-1] in ("value", "raw_value"):
        parts = parts[:-1]
    if parts[0] in ("params", "batch_stats"):
        parts = parts[1:]
    return "/".join(parts[:-1]), parts[-1]


def _leaf(paths: Sequence[str], parameter: str, theirs: str, module: str) -> str:
    wanted = LEAVES.get(parameter, (parameter,))
    for path in paths:
        if _parts(path)[1] in wanted:
            return path
    raise ModeError(f"{theirs} has no counterpart in {module or 'the network'}")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a weight lies in the JAX network.

    Attributes:
        axes: for each of its axes the one of PyTorch's that stands there (out, in, and the rest);
            all alike if None.
        image: shape of the image that is flattened in front of a dense layer, without samples.
        channels: the axis of its channels.
    """

    axes: tuple[int, ...] | None = None
    image: tuple[int, ...] = ()
    channels: int = 0

    def apply(self, array: np.ndarray) -> np.ndarray:
        """PyTorch's array in this layout."""
        if self.image and array.ndim == 2 and math.prod(self.image) == array.shape[1]:
            rest = [n for i, n in enumerate(self.image) if i != self.channels]
            array = array.reshape(len(array), self.image[self.channels], *rest)
            array = np.moveaxis(array, 1, 1 + self.channels).reshape(len(array), -1)
        fits = self.axes is not None and array.ndim == len(self.axes)
        return array.transpose(self.axes) if fits else array


def _layouts(graph: Graph) -> dict[str, Layout]:
    """Layout of every weight that a linear site reads, by its path."""
    made_by = {number: eq for eq in graph.program.equations for number in eq.outputs}
    layouts = {}
    for site in graph.sites:
        if site.kind != "linear" or site.data is None or site.weight is None:
            continue
        eq = graph.program.equations[site.equation]
        number = eq.inputs[site.weight]
        axes = _axes(eq, site.weight, len(graph.program.avals[number].shape))
        while axes is not None and (made := made_by.get(number)) is not None:
            if made.name == "transpose":
                there = made.params["permutation"]
                axes = tuple(axes[there.index(i)] for i in range(len(axes)))
            elif made.name not in CASTS:
                axes = None
            number = made.inputs[0]
        image, channels = _flattened(graph, made_by, eq.inputs[site.data])
        layouts[site.leaf] = Layout(axes, image, channels)
    return layouts


def _axes(eq: Equation, weight: int, rank: int) -> tuple[int, ...] | None:
    """PyTorch's axis at each axis of a linear equation's weight."""
    if eq.name == "conv_general_dilated":
        spec = eq.params["dimension_numbers"].rhs_spec
        return tuple(spec.index(i) for i in range(len(spec)))
    contracted, _ = eq.params["dimension_numbers"]
    if rank != 2 or len(contracted[weight]) != 1:
        return None
    return (1, 0) if contracted[weight][0] == 0 else (0, 1)


def _flattened(
    graph: Graph, made_by: Mapping[int, Equation], number: int
) -> tuple[tuple[int, ...], int]:
    """Shape of the image that was flattened into a value, and its axis of channels."""
    shapes = {n: aval.shape for n, aval in graph.program.avals.items()}
    while (eq := made_by.get(number)) is not None and eq.name != "reshape":
        alike = [a for a in eq.inputs if not is_literal(a) and shapes[a] == shapes[number]]
        if not alike:
            return (), 0
        number = alike[0]
    if eq is None or len(shapes[eq.inputs[0]]) != 4:
        return (), 0
    number = eq.inputs[0]
    return shapes[number][1:], _channel_axis(graph, made_by, number) - 1


def _channel_axis(graph: Graph, made_by: Mapping[int, Equation], number: int) -> int:
    """The axis that the last convolution before a value wrote its channels to; else the last."""
    shapes = {n: aval.shape for n, aval in graph.program.avals.items()}
    path = []
    while (eq := made_by.get(number)) is not None and eq.name != "conv_general_dilated":
        of_data = [a for a in eq.inputs if not is_literal(a) and graph.sample_axes[a] is not None]
        if not of_data:
            break
        path.append((eq, of_data[0], number))
        number = of_data[0]
    if eq is not None and eq.name == "conv_general_dilated":
        axis = eq.params["dimension_numbers"].out_spec[1]
    else:
        axis = len(shapes[number]) - 1
    for eq, before, after in reversed(path):
        if eq.name == "transpose":
            axis = eq.params["permutation"].index(axis)
        elif len(shapes[before]) != len(shapes[after]):  # axes of length 1 come and go
            place = sum(n != 1 for n in shapes[before][:axis])
            kept = [i for i, n in enumerate(shapes[after]) if n != 1]
            axis = kept[place] if place < len(kept) else len(shapes[after]) - 1
    return axis


def _fill(variables: Any, paths: Sequence[str], values: Mapping[str, np.ndarray]) -> Any:
    leaves, structure = jax.tree.flatten(variables)
    filled = []
    for path, leaf in zip(paths, leaves, strict=True):
        if path not in values:
            raise ModeError(f"the state dict has nothing for {path}")
        value = values[path]
        if [n for n in leaf.shape if n != 1] == list(value.shape):  # a bias as [channels, 1, 1]
            value = value.reshape(leaf.shape)
        if value.shape != tuple(leaf.shape):
            raise ModeError(f"{path} has shape {tuple(leaf.shape)}, the state dict {value.shape}")
        filled.append(jax.numpy.asarray(value, leaf.dtype))
    return jax.tree.unflatten(structure, filled)
