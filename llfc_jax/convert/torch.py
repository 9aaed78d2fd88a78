"""PyTorch weights into a JAX network and back: matched in order, laid out anew, checked.

A state dict is taken as plain arrays, flat or nested: what `llfc_jax.load` returns, or
`{k: v.numpy() for k, v in model.state_dict().items()}`.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from llfc_jax.checkpoints import flatten
from llfc_jax.convert import attention, recurrent, weight_norm
from llfc_jax.convert.layouts import Layout, alternatives, read_layouts
from llfc_jax.convert.modules import (
    Module,
    clean_path,
    find_leaf,
    pair_modules,
    split_network,
    split_state,
    style_of,
)
from llfc_jax.convert.trace_weights import trace_weights
from llfc_jax.errors import ModeError
from llfc_jax.pair import leaf_paths
from llfc_jax.types import Apply, Variables

StateDict: TypeAlias = Mapping[str, Any]
Input: TypeAlias = jax.Array | np.ndarray | jax.ShapeDtypeStruct
Check: TypeAlias = tuple[ArrayLike, ArrayLike] | Callable[[np.ndarray], ArrayLike]
"""(inputs of the JAX network, PyTorch's outputs for them), or the function that gives these."""

MAX_TRIALS = 64  # of layouts, against a check


def from_torch(
    state: StateDict,
    apply: Apply,
    variables: Variables,
    x: Input,
    names: Mapping[str, str] | None = None,
    *,
    check: Check | None = None,
    tolerance: float = 1e-3,
) -> Variables:
    """Returns the variables of a JAX network with the values of a PyTorch state dict.

    Modules are paired in order: the state dict's order against the order in which the JAX network
    uses its parameters. Layouts are read off the trace: in Flax a dense weight [out, in] becomes
    [in, out], a convolution [out, in, h, w] becomes [h, w, in, out], and the inputs of a dense
    layer behind a flattened image go from (channel, row, column) to (row, column, channel); in
    Equinox all stay as they are. Embeddings, transposed convolutions, weight normalisation, LSTM,
    GRU, RNN and multi-head attention are known in the forms of Flax Linen, NNX, Equinox and Haiku.

    A layout that can be read neither from the network nor from its shape (a square weight) is never
    guessed: it needs a `check`. Two things look alike on both sides and differ in a `check` only: a
    transposed convolution of stride 1 with as many channels in as out under a name that does not
    say `transpose`, and two modules of one shape that the two networks use in different orders.

    Args:
        state: PyTorch name -> array, or a tree of dicts, whose keys "." joins to such names.
        apply: the JAX network.
        variables: its variables; only structure, shapes and types are used, and what is no float
            (counters, keys) stays.
        x: a batch for it, channels last, or its shape.
        names: PyTorch module -> path of the JAX module, where the order of modules differs;
            it must then name every module.
        check: (inputs of the JAX network, PyTorch's outputs for them), or a function that returns
            these outputs for `x`. Both networks must then agree, and layouts that cannot be read
            are chosen so that they do.
        tolerance: how far the outputs may be apart, as a share of their largest.

    Returns:
        A tree like `variables`.

    Raises:
        ModeError: modules, parameters or shapes that do not correspond, a layout that cannot be
            read, or outputs that differ.
    """
    state = weight_norm.fold({n: np.asarray(array) for n, array in flatten(state).items()})
    links = _link(state, apply, variables, x, names)
    return _choose(state, links, apply, variables, x, check, tolerance)[0]


def to_torch(
    variables: Variables,
    like: StateDict,
    apply: Apply,
    x: Input,
    names: Mapping[str, str] | None = None,
    *,
    check: Check | None = None,
    tolerance: float = 1e-3,
) -> dict[str, np.ndarray]:
    """Returns the state dict of a JAX network's variables, in the form of one that it came from.

    Undoes `from_torch`, so that merged or permuted weights go back to where they are used. What
    PyTorch has twice (the two biases of a cell, g and v) is filled so that it computes the same.

    Args:
        variables: of the JAX network.
        like: the state dict whose names, shapes and types are taken over; what has no counterpart
            (BatchNorm's count of batches) keeps its value.
        apply: the JAX network.
        x: a batch for it, channels last, or its shape.
        names: as in `from_torch`.
        check: as in `from_torch`, for `like`; needed where it was needed there.
        tolerance: as in `from_torch`.

    Raises:
        ModeError: modules, parameters or shapes that do not correspond.
    """
    original = {name: np.asarray(array) for name, array in flatten(like).items()}
    state = weight_norm.fold(original)
    links = _link(state, apply, variables, x, names)
    layouts = _choose(state, links, apply, variables, x, check, tolerance)[1]
    values = {
        path: np.asarray(leaf)
        for path, leaf in zip(leaf_paths(variables), jax.tree.leaves(variables), strict=True)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    }
    scales = weight_norm.find_scales(links.clean)
    for g, v in scales.items():  # the network's own normalised weights, as they act
        weight, scale = values[links.clean[v]], values[links.clean[g]]
        norm = weight_norm.scale_of(weight, scale.shape)
        values[links.clean[v]] = weight * (scale / norm)
    made = dict(state)
    for link in links.plain:
        made[link.name] = layouts[link.path].to_torch(values[link.path])
    for theirs, ours in links.composites:
        made |= _composite_to_torch(theirs, ours, values, state)
    made = weight_norm.unfold(made, original)
    return {
        name: np.ascontiguousarray(made[name].reshape(old.shape).astype(old.dtype))
        for name, old in original.items()
    }


@dataclasses.dataclass(frozen=True)
class Link:
    """A parameter of a plain module, and the leaf that takes it.

    Attributes:
        name: in the state dict.
        path: of the leaf.
        layouts: that it may have; several where they cannot be distinguished.
    """

    name: str
    path: str
    layouts: Sequence[Layout]


@dataclasses.dataclass(frozen=True)
class Links:
    """The correspondence between PyTorch's parameters and the network's leaves.

    Attributes:
        plain: parameters of plain modules.
        composites: cells and attentions: PyTorch's module and the network's.
        clean: a leaf's path without collection and wrapping -> its path.
        shapes: a leaf's path -> its shape.
    """

    plain: Sequence[Link]
    composites: Sequence[tuple[Module, Module]]
    clean: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]


def _link(
    state: StateDict,
    apply: Apply,
    variables: Variables,
    x: Input,
    names: Mapping[str, str] | None,
) -> Links:
    """Pairs every parameter of a state dict with a leaf, and reads its layouts."""
    paths, leaves = leaf_paths(variables), jax.tree.leaves(variables)
    float_paths = [
        path
        for path, leaf in zip(paths, leaves, strict=True)
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not path.endswith("_ema/hidden")
    ]
    shapes = {path: tuple(leaf.shape) for path, leaf in zip(paths, leaves, strict=True)}
    x = jnp.asarray(x) if isinstance(x, np.ndarray) else x
    order, uses = trace_weights(apply, variables, x)
    by_path = {paths[number]: found for number, found in uses.items()}
    numbers = [float_paths.index(paths[i]) for i in order if paths[i] in float_paths]
    theirs = split_state(state)
    kinds = {module.kind for module in theirs.values()}
    pairs = pair_modules(theirs, split_network(float_paths, numbers, shapes, kinds), names)
    plain, composites = [], []
    for a, b in pairs:
        if a.kind != "plain":
            composites.append((a, b))
            continue
        for parameter, name in a.names.items():
            path = find_leaf(b, parameter, name)
            found = read_layouts(by_path.get(path, ()), shapes[path], state[name].shape, path)
            if not found:
                raise ModeError(
                    f"{path} has shape {shapes[path]}, {name} in the state dict "
                    f"{state[name].shape}; pass names to pair the modules"
                )
            plain.append(Link(name, path, found))
    if any(link.layouts[0].turned for link in plain):
        # PyTorch's network has layers that store [in, out]: then its square ones may do so too.
        plain = [_doubt(link) for link in plain]
    return Links(plain, composites, {clean_path(path): path for path in float_paths}, shapes)


def _doubt(link: Link) -> Link:
    """Adds the alternatives of a square dense weight to its layouts."""
    first = link.layouts[0]
    if len(first.torch_shape) != 2:
        return link
    return dataclasses.replace(link, layouts=[*link.layouts, *alternatives(first)])


def _choose(
    state: StateDict,
    links: Links,
    apply: Apply,
    variables: Variables,
    x: Input,
    check: Check | None,
    tolerance: float,
) -> tuple[Variables, dict[str, Layout]]:
    """Returns the filled variables and the layout of every plain leaf, right by the check.

    Raises:
        ModeError: a layout cannot be read and there is no check, or none agrees with it.
    """
    if check is None:
        unread = [link for link in links.plain if len(link.layouts) > 1]
        if unread:
            raise ModeError(
                f"cannot tell how {unread[0].name} {state[unread[0].name].shape} lies in "
                f"{unread[0].path}: it is square, or the trace does not show its use; pass "
                "check=(inputs, PyTorch's outputs), and the layout that agrees is taken"
            )
        layouts = {link.path: link.layouts[0] for link in links.plain}
        return _fill(state, links, layouts, variables), layouts
    inputs, expected = _outputs_of(check, x)
    run, best = jax.jit(apply), np.inf
    for layouts in itertools.islice(_trials(links), MAX_TRIALS):
        filled = _fill(state, links, layouts, variables)
        off = _deviation(np.asarray(run(filled, inputs)), expected)
        if off <= tolerance:
            return filled, layouts
        best = min(best, off)
    raise ModeError(
        f"with the converted weights the outputs differ from the check's by {best:.2g} of the "
        f"largest, more than {tolerance:g}; pair the modules with names, or see whether the two "
        "networks compute the same (padding, epsilon, the order of layers)"
    )


def _trials(links: Links) -> Iterator[dict[str, Layout]]:
    """Yields choices of layouts: first among those that look alike, then all alternatives."""
    paths = [link.path for link in links.plain]
    known = [list(link.layouts) for link in links.plain]
    more = [[*own, *(a for a in alternatives(own[0]) if a not in own)] for own in known]
    for options in (known, more):
        for chosen in itertools.product(*options):
            yield dict(zip(paths, chosen, strict=True))
        if more == known:
            return


def _outputs_of(check: Check, x: Input) -> tuple[jax.Array, np.ndarray]:
    """Returns inputs and PyTorch's outputs for them."""
    if not callable(check):
        return jnp.asarray(check[0]), np.asarray(check[1])
    if isinstance(x, jax.ShapeDtypeStruct):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ModeError("a check by a function needs a batch as x, not its shape")
        x = np.random.default_rng(0).normal(size=x.shape).astype(x.dtype)
    return jnp.asarray(x), np.asarray(check(np.asarray(x)))


def _deviation(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference of outputs, as a share of the largest output."""
    if found.shape != expected.shape:
        raise ModeError(f"the network gives outputs {found.shape}, the check has {expected.shape}")
    scale = max(float(np.max(np.abs(expected))), np.finfo(np.float32).tiny)
    off = float(np.max(np.abs(found.astype(np.float64) - expected)) / scale)
    return off if np.isfinite(off) else np.inf


def _fill(
    state: StateDict, links: Links, layouts: Mapping[str, Layout], variables: Variables
) -> Variables:
    """Returns the variables with the values of a state dict.

    Raises:
        ModeError: a leaf gets no value, or one of another shape.
    """
    values = {link.path: layouts[link.path].to_jax(state[link.name]) for link in links.plain}
    for theirs, ours in links.composites:
        values |= _composite_to_jax(theirs, ours, state, links.shapes)
    for g, v in weight_norm.find_scales(links.clean).items():
        g, v = links.clean[g], links.clean[v]
        values[g] = weight_norm.scale_of(values[v], links.shapes[g])
    wanted, filled = set(links.clean.values()), []
    leaves, structure = jax.tree.flatten(variables)
    for path, leaf in zip(leaf_paths(variables), leaves, strict=True):
        if path not in wanted:
            filled.append(leaf)
            continue
        if path not in values:
            raise ModeError(f"the state dict has nothing for {path}")
        value = values[path]
        if value.shape != tuple(leaf.shape):
            raise ModeError(f"{path} has shape {tuple(leaf.shape)}, the state dict {value.shape}")
        filled.append(jnp.asarray(value, leaf.dtype))
    return jax.tree.unflatten(structure, filled)


def _composite_to_jax(
    theirs: Module, ours: Module, state: StateDict, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Returns path -> array of a recurrent cell or an attention.

    Raises:
        ModeError: it has a bias that the network's lacks, or its shapes do not fit.
    """
    arrays = {parameter: state[name] for parameter, name in theirs.names.items()}
    if theirs.kind == "attention":
        inner = {name: shapes[path] for name, path in ours.names.items()}
        made = attention.write_attention(attention.read_torch_attention(arrays, theirs.name), inner)
    else:
        _, cell = recurrent.read_torch_cell(arrays, theirs.name)
        made = style_of(ours, shapes).write(cell)
    for name in [name for name in made if name not in ours.names]:
        if made.pop(name).any():
            raise ModeError(
                f"{theirs.name} has a bias for which {ours.name or 'the network'} has no place "
                f"({name})"
            )
    return {ours.names[name]: np.ascontiguousarray(array) for name, array in made.items()}


def _composite_to_torch(
    theirs: Module, ours: Module, values: Mapping[str, np.ndarray], state: StateDict
) -> dict[str, np.ndarray]:
    """Returns name in the state dict -> array of a recurrent cell or an attention."""
    arrays = {name: values[path] for name, path in ours.names.items()}
    if theirs.kind == "attention":
        old = {parameter: state[name] for parameter, name in theirs.names.items()}
        made = attention.write_torch_attention(attention.read_attention(arrays), old)
    else:
        shapes = {path: array.shape for path, array in values.items()}
        cell = style_of(ours, shapes).read(arrays)
        made = recurrent.write_torch_cell(cell, with_bias="bias_ih" in theirs.names)
    return {theirs.names[parameter]: array for parameter, array in made.items()}
