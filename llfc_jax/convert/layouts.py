"""Layouts: how PyTorch's axes of a weight lie in the array of a JAX network."""

import dataclasses
import math
from collections.abc import Collection, Iterator

import numpy as np

from llfc_jax.convert.trace_weights import WeightUse


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a weight of PyTorch's lies in a JAX network.

    Attributes:
        shape: of the JAX array.
        order: its axes, in the order of PyTorch's: outputs, inputs, positions.
        torch_shape: of PyTorch's array.
        flipped: axes of the JAX array that are reversed.
        transposed: whether PyTorch's array is that of a transposed convolution, [in, out, ...].
        groups: of a transposed convolution.
        image: shape of the image that is flattened in front of a dense layer, without samples.
        channels: its axis of channels.
        turned: whether PyTorch stores it the other way round than `nn.Linear` does.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    torch_shape: tuple[int, ...]
    flipped: frozenset[int] = frozenset()
    transposed: bool = False
    groups: int = 1
    image: tuple[int, ...] = ()
    channels: int = 0
    turned: bool = False

    def to_jax(self, array: np.ndarray) -> np.ndarray:
        """Returns PyTorch's array in this layout."""
        if self.image:
            array = _reorder_channels(array, self.image, self.channels)
        if self.transposed:
            array = _swap_channels(array, self.groups)
        array = array.reshape([self.shape[axis] for axis in self.order])
        return np.flip(array.transpose(np.argsort(self.order)), tuple(self.flipped))

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """Returns an array in this layout as PyTorch has it."""
        array = np.flip(array, tuple(self.flipped)).transpose(self.order)
        if self.transposed:
            array = _swap_channels(array, self.groups)
        array = array.reshape(self.torch_shape)
        if self.image:
            rest = [n for i, n in enumerate(self.image) if i != self.channels]
            array = array.reshape(len(array), *self.image)
            array = np.moveaxis(array, 1 + self.channels, 1)
            array = array.reshape(len(array), self.image[self.channels] * math.prod(rest))
        return array


def read_layouts(
    uses: Collection[WeightUse], shape: tuple[int, ...], torch_shape: tuple[int, ...], name: str
) -> list[Layout]:
    """Returns the layouts that a weight may have: one where its uses say it, else all that fit.

    Args:
        uses: what the network does with the weight.
        shape: of the JAX array.
        torch_shape: of PyTorch's.
        name: path of the JAX array. A name that says so makes a convolution a transposed one (at
            stride 1 the trace looks alike), and a product a lookup (by one-hot vectors).

    Returns:
        Nothing if no layout fits; several where they cannot be distinguished.
    """
    if len(torch_shape) < 2:
        fits = math.prod(torch_shape) == math.prod(shape)
        return [Layout(shape, tuple(range(len(shape))), torch_shape)] if fits else []
    read = {_from_use(use, shape, torch_shape, name.lower()) for use in uses}
    first = next(iter(read), None)
    if len(read) == 1 and first is not None:
        return [first]
    if read == {None} and len({use.kind for use in uses}) == 1:
        # It is read, but does not fit: stored the other way round, as GPT-2's Conv1D, or wrong.
        turned = (_from_use(_turn(use), shape, torch_shape, "") for use in uses)
        fitting = [dataclasses.replace(one, turned=True) for one in turned if one is not None]
        return fitting[:1] if shape_determines_layout(torch_shape) else []
    return list(_guess(shape, torch_shape))


def shape_determines_layout(torch_shape: tuple[int, ...]) -> bool:
    """Returns whether outputs and inputs of a weight differ in number."""
    return len(torch_shape) < 2 or torch_shape[0] != torch_shape[1]


def alternatives(layout: Layout) -> Iterator[Layout]:
    """Yields the layouts of the same shape that another kind of PyTorch module would have."""
    if shape_determines_layout(layout.torch_shape) or len(layout.torch_shape) < 2:
        return
    outputs, inputs, *space = layout.order
    if len(layout.torch_shape) == len(layout.shape) == 2 and not layout.image:
        yield dataclasses.replace(layout, order=(inputs, outputs))
    elif len(layout.torch_shape) == len(layout.shape) and layout.groups == 1:
        other = not layout.transposed
        yield dataclasses.replace(layout, order=(outputs, inputs, *space), transposed=other)


def _from_use(
    use: WeightUse, shape: tuple[int, ...], torch_shape: tuple[int, ...], name: str
) -> Layout | None:
    """Returns the layout that one use asks for, or None if PyTorch's shape does not fit."""
    size = lambda axes: math.prod(shape[axis] for axis in axes)  # noqa: E731
    order = (*use.outputs, *use.inputs, *use.space)
    if sorted(order) != list(range(len(shape))):
        return None
    if use.kind == "dense" and "embedding" in name:
        order, outputs, inputs = (*use.inputs, *use.outputs), use.inputs, use.outputs
    else:
        outputs, inputs = use.outputs, use.inputs
    transposed = use.kind == "conv" and (use.transposed or "transpose" in name)
    wanted = (size(outputs), size(inputs), *(shape[axis] for axis in use.space))
    if transposed:
        wanted = (wanted[1] * use.groups, wanted[0] // use.groups, *wanted[2:])
    if wanted != torch_shape and not (
        use.kind == "dense" and torch_shape[:2] == wanted and set(torch_shape[2:]) == {1}
    ):
        return None
    return Layout(
        shape,
        order,
        torch_shape,
        use.flipped,
        transposed,
        use.groups if transposed else 1,
        use.image if math.prod(use.image) == torch_shape[1] else (),
        use.channels,
    )


def _turn(use: WeightUse) -> WeightUse:
    """Returns a use with outputs and inputs exchanged."""
    if use.kind == "conv":
        return dataclasses.replace(use, transposed=not use.transposed)
    return dataclasses.replace(use, outputs=use.inputs, inputs=use.outputs, image=())


def _guess(shape: tuple[int, ...], torch_shape: tuple[int, ...]) -> Iterator[Layout]:
    """Yields the layouts that fit by shape alone."""
    outputs, inputs, *space = torch_shape
    rank = len(shape)
    if len(space) == rank - 2 and space:
        last = (rank - 1, rank - 2, *range(rank - 2))
        for order in (tuple(range(rank)), last):
            if tuple(shape[axis] for axis in order) == torch_shape:
                yield Layout(shape, order, torch_shape)
        return
    if space:
        return
    for cut in range(1, rank):
        first, rest = tuple(range(cut)), tuple(range(cut, rank))
        sizes = math.prod(shape[:cut]), math.prod(shape[cut:])
        if sizes == (outputs, inputs):
            yield Layout(shape, (*first, *rest), torch_shape)
        if sizes == (inputs, outputs):
            yield Layout(shape, (*rest, *first), torch_shape)


def _reorder_channels(array: np.ndarray, image: tuple[int, ...], channels: int) -> np.ndarray:
    """Reorders the inputs of a dense weight from PyTorch's flattened image to the network's."""
    rest = [n for i, n in enumerate(image) if i != channels]
    parts = array.reshape(len(array), image[channels], *rest)
    return np.moveaxis(parts, 1, 1 + channels).reshape(array.shape)


def _swap_channels(array: np.ndarray, groups: int) -> np.ndarray:
    """Turns the weight of a transposed convolution into that of a convolution, and back.

    [in, out / groups, positions] becomes [out, in / groups, positions], positions reversed.
    """
    first, second, *space = array.shape
    parts = array.reshape(groups, first // groups, second, *space).swapaxes(1, 2)
    swapped = parts.reshape(groups * second, first // groups, *space)
    return np.flip(swapped, tuple(range(2, swapped.ndim)))
