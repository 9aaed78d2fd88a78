"""The modules of a PyTorch state dict and of a JAX network, and which goes with which."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

import numpy as np

from llfc_jax.convert import attention, recurrent, weight_norm
from llfc_jax.errors import ModeError

# PyTorch's name of a parameter -> the names that JAX libraries give it.
LEAVES = {
    "weight": ("kernel", "scale", "weight", "w", "embedding", "embeddings", "negative_slope"),
    "bias": ("bias", "b", "offset"),
    "running_mean": ("mean", "mean_ema"),
    "running_var": ("var", "var_ema"),
}
IGNORED = ("num_batches_tracked",)
RECURRENT = re.compile(r"((?:weight|bias)_(?:ih|hh|hr))(?:_l(\d+))?(_reverse)?")
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
COLLECTIONS = ("params", "batch_stats")


@dataclasses.dataclass(frozen=True)
class Module:
    """A module of either side.

    Attributes:
        name: of the module.
        kind: "plain", "attention", or a kind of recurrent cell.
        names: parameter, as the module knows it -> full name (a key or a leaf's path).
    """

    name: str
    kind: str
    names: Mapping[str, str]


def split_state(state: Mapping[str, np.ndarray]) -> dict[str, Module]:
    """Returns the modules of a state dict by name, in its order.

    A layer and direction of an LSTM, GRU or RNN is a module (`lstm`, or `lstm.l0`, `lstm.l1`,
    `lstm.l1_reverse` where there are several); `nn.MultiheadAttention` is one with its `out_proj`.
    """
    groups: dict[str, dict[str, str]] = {}
    for name in state:
        module, _, parameter = name.rpartition(".")
        if parameter not in IGNORED:
            groups.setdefault(module, {})[parameter] = name
    modules: dict[str, Module] = {}
    for name, names in groups.items():
        outer, _, last = name.rpartition(".")
        outer_is_attention = last == "out_proj" and _is_attention(groups.get(outer, {}))
        if outer_is_attention:
            continue
        if _is_attention(names):
            inner = groups.get(f"{name}.out_proj" if name else "out_proj", {})
            names = names | {f"out_proj.{key}": value for key, value in inner.items()}
            modules[name] = Module(name, "attention", names)
        elif all(RECURRENT.fullmatch(parameter) for parameter in names):
            modules |= _split_recurrent(name, names, state)
        else:
            modules[name] = Module(name, "plain", names)
    return modules


def split_network(
    paths: Iterable[str],
    order: Iterable[int],
    shapes: Mapping[str, tuple[int, ...]],
    kinds: Iterable[str],
) -> dict[str, Module]:
    """Returns the modules of a JAX network by path, in the order in which it uses them.

    Args:
        paths: of the leaves.
        order: numbers of the leaves in the order of their first use.
        shapes: path -> shape.
        kinds: of the state dict's modules; cells and attention are looked for only if they are
            among these (a network may also write them with plain layers on both sides).
    """
    paths, kinds = list(paths), set(kinds)
    clean = {clean_path(path): path for path in paths}
    names = {path: name for name, path in clean.items()}
    used = [names[paths[i]] for i in dict.fromkeys([*order, *range(len(paths))])]
    composites = _find_composites(clean, shapes, kinds)
    scales = weight_norm.find_scales(clean)
    modules: dict[str, Module] = {}
    for name in used:
        if name in scales:
            continue
        inside = [c for c in composites.values() if clean[name] in c.names.values()]
        if inside:
            modules.setdefault(inside[0].name, inside[0])
            continue
        module, parameter = _split_path(name)
        present = modules.get(module, Module(module, "plain", {}))
        modules[module] = Module(module, "plain", {**present.names, parameter: clean[name]})
    return modules


def clean_path(path: str) -> str:
    """Returns a leaf's path without collection and wrapping: `Dense_0/kernel`."""
    parts = path.split("/")
    if parts[-1] in ("value", "raw_value"):
        parts = parts[:-1]
    if len(parts) > 1 and parts[0] in COLLECTIONS:
        parts = parts[1:]
    parts = ["if" if part == "if_" else part for part in parts]  # NNX avoids Python's keyword
    return "/".join(parts)


def pair_modules(
    theirs: Mapping[str, Module], ours: Mapping[str, Module], names: Mapping[str, str] | None
) -> list[tuple[Module, Module]]:
    """Pairs the modules of a state dict with those of a network, in order or by `names`.

    Raises:
        ModeError: they do not correspond.
    """
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
    pairs = [(theirs[a], ours[b]) for a, b in names.items()]
    for a, b in pairs:
        if a.kind != b.kind:
            raise ModeError(
                f"{a.name or 'the state dict'} is {_words(a.kind)}, {b.name or 'the network'} is "
                f"{_words(b.kind)}; pass names to pair the modules"
            )
    return pairs


def find_leaf(module: Module, parameter: str, theirs: str) -> str:
    """Returns the path of the leaf that takes a parameter of a plain module of PyTorch's.

    Raises:
        ModeError: there is none.
    """
    for name in LEAVES.get(parameter, (parameter,)):
        if name in module.names:
            return module.names[name]
    raise ModeError(f"{theirs} has no counterpart in {module.name or 'the network'}")


def style_of(module: Module, shapes: Mapping[str, tuple[int, ...]]) -> recurrent.CellStyle:
    """Returns the style of a network's recurrent cell."""
    inner = {name: shapes[path] for name, path in module.names.items()}
    return next(
        style
        for style in recurrent.STYLES
        if all(name in inner for name in style.needs) and style.kind_of(inner) == module.kind
    )


def _split_path(name: str) -> tuple[str, str]:
    """Returns (module, parameter) of a leaf's clean path; Haiku's running statistics by name."""
    haiku = re.fullmatch(r"(?:\d+/)?(.*)/~/(mean_ema|var_ema)/average", name)
    if haiku:
        return haiku[1], haiku[2]
    module, _, parameter = name.rpartition("/")
    return re.sub(r"^0/", "", module), parameter


def _is_attention(parameters: Iterable[str]) -> bool:
    return not {"in_proj_weight", "q_proj_weight"}.isdisjoint(parameters)


def _split_recurrent(
    name: str, names: Mapping[str, str], state: Mapping[str, np.ndarray]
) -> dict[str, Module]:
    """Returns a module for each layer and direction."""
    layers: dict[str, dict[str, str]] = {}
    for parameter, full in names.items():
        found = RECURRENT.fullmatch(parameter)
        assert found is not None
        layer = f"l{found[2] or 0}{found[3] or ''}"
        layers.setdefault(layer, {})[found[1]] = full
    modules = {}
    for layer, inner in layers.items():
        own = name if len(layers) == 1 else f"{name}.{layer}"
        rows, size = state[inner["weight_hh"]].shape
        kind = recurrent.KINDS.get(rows // size)
        if kind is None:
            raise ModeError(f"{own} has {rows} rows for {size} hidden units; no cell is known so")
        modules[own] = Module(own, kind, inner)
    return modules


def _find_composites(
    clean: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], kinds: set[str]
) -> dict[str, Module]:
    """Returns the recurrent cells and attentions of a network, by path."""
    found: dict[str, Module] = {}
    for needs, kind_of, cell in _signatures():
        for name in clean:
            if name != needs[0] and not name.endswith(f"/{needs[0]}"):
                continue
            prefix = name[: -len(needs[0])]
            path = prefix.rstrip("/")
            inner = {n[len(prefix) :]: p for n, p in clean.items() if n.startswith(prefix)}
            own = path.rpartition("/")[2].lower().startswith(cell)
            if path in found or not own or not all(part in inner for part in needs):
                continue
            kind = kind_of({part: shapes[p] for part, p in inner.items()})
            if kind in kinds:
                found[path] = Module(path, kind, inner)
    return found


def _signatures() -> Iterator[tuple[tuple[str, ...], Callable[[Shapes], str], str]]:
    """Yields (names that it has, kind by its shapes, how its name begins) of every composite."""
    for style in recurrent.STYLES:
        yield style.needs, style.kind_of, style.cell
    for weights, _ in attention.STYLES:
        yield tuple(weights.values()), lambda _: "attention", ""


def _words(kind: str) -> str:
    """Returns a kind of module in words."""
    known = {"plain": "a plain layer", "attention": "multi-head attention"}
    return known.get(kind, f"a recurrent cell ({kind.upper()})")
