"""PyTorch weights into a JAX network: matched in order, laid out anew, checked by shape.

A state dict is taken as plain arrays (`{k: v.numpy() for k, v in model.state_dict().items()}`, or
an .npz of them): nothing is unpickled here.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from llfc_jax.errors import ModeError
from llfc_jax.graph import Apply, Graph, trace
from llfc_jax.graph.trace import is_literal

# PyTorch's name of a parameter -> the names that JAX libraries give it.
LEAVES = {
    "weight": ("kernel", "scale", "weight", "w"),
    "bias": ("bias", "b"),
    "running_mean": ("mean",),
    "running_var": ("var",),
}
IGNORED = ("num_batches_tracked",)


def from_torch(
    state: Mapping[str, np.ndarray],
    apply: Apply,
    variables: Any,
    x: Any,
    names: Mapping[str, str] | None = None,
) -> Any:
    """The variables of a JAX network with the values of a PyTorch state dict.

    Layers are paired in order: the state dict's order against the order in which the JAX network
    uses its parameters. Layouts are changed as the two conventions need: a dense weight
    [out, in] becomes [in, out], a convolution [out, in, h, w] becomes [h, w, in, out], and the
    inputs of a dense layer behind a flattened image go from (channel, row, column) to
    (row, column, channel).

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
    flattened = _flattened(graph)
    values: dict[str, np.ndarray] = {}
    for module, path in names.items():
        for parameter, array in theirs[module].items():
            leaf = _leaf(ours[path], parameter, f"{module}.{parameter}", path)
            values[leaf] = _layout(np.asarray(array), flattened.get(leaf))
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


def _flattened(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Shape (h, w, c) of what is flattened in front of a dense layer, by its weight's path."""
    made_by = {number: eq for eq in graph.program.equations for number in eq.outputs}
    shapes = {}
    for site in graph.sites:
        if site.kind != "linear" or site.data is None:
            continue
        eq = made_by.get(graph.program.equations[site.equation].inputs[site.data])
        if eq is not None and eq.name == "reshape":
            before = graph.program.avals[eq.inputs[0]].shape
            if len(before) == 4:
                shapes[site.leaf] = before[1:]
    return shapes


def _layout(array: np.ndarray, flattened: tuple[int, ...] | None) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim != 2:
        return array
    if flattened and np.prod(flattened) == array.shape[1]:
        h, w, c = flattened
        array = array.reshape(-1, c, h, w).transpose(0, 2, 3, 1).reshape(len(array), -1)
    return array.T


def _fill(variables: Any, paths: Sequence[str], values: Mapping[str, np.ndarray]) -> Any:
    leaves, structure = jax.tree.flatten(variables)
    filled = []
    for path, leaf in zip(paths, leaves, strict=True):
        if path not in values:
            raise ModeError(f"the state dict has nothing for {path}")
        value = values[path]
        if value.shape != tuple(leaf.shape):
            raise ModeError(f"{path} has shape {tuple(leaf.shape)}, the state dict {value.shape}")
        filled.append(jax.numpy.asarray(value, leaf.dtype))
    return jax.tree.unflatten(structure, filled)
