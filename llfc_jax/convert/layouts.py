"""How PyTorch's weights lie in a JAX network, read off its trace."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from llfc_jax.graph import Equation, Graph
from llfc_jax.graph.trace import is_literal

CASTS = ("convert_element_type", "copy")


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
        return array.transpose(self.axes) if self._fits(array) else array

    def undo(self, array: np.ndarray) -> np.ndarray:
        """An array in this layout, as PyTorch has it."""
        array = array.transpose(np.argsort(np.array(self.axes))) if self._fits(array) else array
        if self.image and array.ndim == 2 and math.prod(self.image) == array.shape[1]:
            array = array.reshape(len(array), *self.image)
            array = np.moveaxis(array, 1 + self.channels, 1).reshape(len(array), -1)
        return array

    def _fits(self, array: np.ndarray) -> bool:
        return self.axes is not None and array.ndim == len(self.axes)


def layouts(graph: Graph) -> dict[str, Layout]:
    """Layout of every weight that a linear site reads, by its path."""
    made_by = {number: eq for eq in graph.program.equations for number in eq.outputs}
    found = {}
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
        found[site.leaf] = Layout(axes, image, channels)
    return found


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
