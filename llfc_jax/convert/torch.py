"""PyTorch weights into a JAX network and back: matched in order, laid out anew, checked by shape.

A state dict is taken as plain arrays: `llfc_jax.convert.load`, or
`{k: v.numpy() for k, v in model.state_dict().items()}`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from llfc_jax.convert.layouts import Layout, layouts
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
    *,
    check: tuple[Any, Any] | None = None,
    tolerance: float = 1e-3,
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
        check: inputs for the JAX network, and the logits that PyTorch gives for them.
        tolerance: how far the logits may be from those, as a share of their largest.

    Returns:
        A tree like `variables`.

    Raises:
        ModeError: modules, parameters, shapes or, where there is a check, logits that do not
            correspond.
    """
    graph = trace(apply, variables, x)
    known = layouts(graph)
    values = {
        leaf: known.get(leaf, Layout()).apply(np.asarray(state[name]))
        for name, leaf in _pairs(state, graph, names).items()
    }
    found = _fill(variables, graph.program.paths, values)
    if check is not None:
        _check(apply(found, check[0]), check[1], tolerance)
    return found


def to_torch(
    variables: Any,
    like: Mapping[str, np.ndarray],
    apply: Apply,
    x: Any,
    names: Mapping[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """The state dict of a JAX network's variables, in the form of one that it came from.

    Undoes `from_torch`, so that merged or permuted weights go back to where they are used.

    Args:
        variables: of the JAX network.
        like: the state dict whose names, shapes and types are taken over; what has no counterpart
            (BatchNorm's count of batches) keeps its value.
        apply: the JAX network.
        x: a batch for it, channels last, or its shape.
        names: as in `from_torch`.

    Raises:
        ModeError: modules, parameters or shapes that do not correspond.
    """
    graph = trace(apply, variables, x)
    known = layouts(graph)
    leaves = dict(zip(graph.program.paths, jax.tree.leaves(variables), strict=True))
    state = {name: np.asarray(array) for name, array in like.items()}
    for name, leaf in _pairs(like, graph, names).items():
        value = known.get(leaf, Layout()).undo(np.asarray(leaves[leaf]))
        old = state[name]
        if value.size != old.size:
            raise ModeError(f"{leaf} has shape {value.shape}, {name} in the state dict {old.shape}")
        state[name] = np.ascontiguousarray(value.reshape(old.shape).astype(old.dtype))
    return state


def _pairs(
    state: Mapping[str, np.ndarray], graph: Graph, names: Mapping[str, str] | None
) -> dict[str, str]:
    """Name in the state dict -> path of the leaf, of every parameter."""
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
    found = {}
    for module, path in names.items():
        for parameter in theirs[module]:
            name = f"{module}.{parameter}" if module else parameter
            found[name] = _leaf(ours[path], parameter, name, path)
    return found


def _check(found: Any, expected: Any, tolerance: float) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        raise ModeError(f"the network gives logits {found.shape}, the check has {expected.shape}")
    scale = np.max(np.abs(expected))
    off = np.max(np.abs(found - expected)) / max(scale, np.finfo(np.float32).tiny)
    if not off <= tolerance:
        raise ModeError(
            f"with the converted weights the logits differ from the check's by {off:.2g} of the "
            f"largest, more than {tolerance:g}; pair the layers with names, or see whether "
            "the two networks compute the same (padding, epsilon, the order of layers)"
        )


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
