"""Models side by side: their leaves brought together by path, checked before any is read.

What is checked needs names, shapes and types alone (and the integers, which are few), so a merge
that cannot work is refused before any long work, and leaves that lie in files are read one at a
time, when they are merged.
"""

import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.core import Tracer

from llfc_jax.errors import MergeError, unknown
from llfc_jax.matching.placement import on_host
from llfc_jax.merging.options import MergeOptions
from llfc_jax.merging.rule import Leaf, LeafRule, Rule
from llfc_jax.merging.statistics import InputGram
from llfc_jax.pair import equal_leaves
from llfc_jax.types import Variables


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slot:
    """A leaf of the result, and where it comes from.

    Attributes:
        leaves: the leaf in each model that has it; the first model is always one of them.
        base: the leaf in the base; None where that lacks it.
        statistics: what the rule needs to know of the leaf in each of these models; None for
            nothing.
        name: its path.
        holders: which models have it, by their place in the list.
        merged: whether it is merged; else it is `kept`.
        from_base: whether it is the base's where it is kept.
        common: the shape of what all have in common, where their shapes differ.
        tied_to: the path of the leaf that it is tied to, in every model; "" for none.
    """

    leaves: tuple[Any, ...]
    base: Any
    statistics: tuple[Any, ...] | None
    name: str = dataclasses.field(metadata={"static": True})
    holders: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    merged: bool = dataclasses.field(metadata={"static": True})
    from_base: bool = dataclasses.field(metadata={"static": True})
    common: tuple[int, ...] | None = dataclasses.field(metadata={"static": True})
    tied_to: str = dataclasses.field(metadata={"static": True})

    @property
    def kept(self) -> Any:
        """The leaf as it stays where it is not merged."""
        return self.base if self.from_base else self.leaves[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what is merged."""
        return np.shape(self.leaves[0]) if self.common is None else self.common

    @property
    def sources(self) -> tuple[Any, ...]:
        """All leaves that are read to merge it."""
        return self.leaves if self.base is None else (*self.leaves, self.base)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AlignedModels:
    """Several models, leaf by leaf, ready to be merged; a pytree of their arrays.

    Attributes:
        slots: the leaves of the first model, in tree order.
        structure: the first model's structure.
        count: the number of models.
    """

    slots: tuple[Slot, ...]
    structure: Any = dataclasses.field(metadata={"static": True})
    count: int = dataclasses.field(metadata={"static": True})

    @property
    def to_merge(self) -> list[Slot]:
        """The slots that are merged, tied ones once."""
        return [slot for slot in self.slots if slot.merged and not slot.tied_to]

    @property
    def on_host(self) -> bool:
        """Whether all that is merged lies in the memory of a CPU, or in files."""
        arrays = [leaf for slot in self.to_merge for leaf in (*slot.sources, slot.statistics)]
        arrays = [leaf for leaf in jax.tree.leaves(arrays) if isinstance(leaf, jax.Array)]
        return not arrays or on_host(arrays)

    @property
    def sizes(self) -> list[int]:
        """How many entries of each model are merged."""
        return [sum(int(np.prod(slot.shape)) for slot in self.to_merge if i in slot.holders)
                for i in range(self.count)]  # fmt: skip

    @property
    def dtype(self) -> np.dtype:
        """The type in which entries of all leaves can be compared."""
        return np.result_type(np.float32, *map(_wide_dtype, self.to_merge))

    def check_whole(self, rule: str) -> None:
        """Checks that every model has every leaf that is merged.

        Raises:
            MergeError: one lacks a leaf.
        """
        for slot in self.to_merge:
            lacking = set(range(self.count)) - set(slot.holders)
            if lacking:
                raise MergeError(
                    f"models[{min(lacking)}] lacks {slot.name}, but merge rule {rule!r} compares "
                    "whole models; name the leaf in skip"
                )

    def leaves(self) -> Iterator[Leaf]:
        """Yields each leaf that is merged, read and widened."""
        host = self.on_host
        for slot in self.to_merge:
            yield _read(slot, host)[0]

    def merged(self, rule: LeafRule) -> Iterator[tuple[Slot, Any]]:
        """Yields each slot with its leaf of the merged model, in tree order.

        Raises:
            MergeError: a model holds NaN or infinity, or the merged leaf is beyond its type.
        """
        host, survey = self.on_host, rule.survey(self)
        ties = {slot.tied_to for slot in self.slots}
        done: dict[str, Any] = {}
        for slot in self.slots:
            if not slot.merged:
                yield slot, slot.kept
                continue
            if slot.tied_to:
                yield slot, done[slot.tied_to]
                continue
            leaf, fixed = _read(slot, host)
            found = _finish(slot, leaf, rule.merge_leaf(leaf, survey), fixed)
            if slot.name in ties:
                done[slot.name] = found
            yield slot, found

    def build(self, rule: LeafRule) -> Variables:
        """Returns the merged model."""
        return jax.tree.unflatten(self.structure, [leaf for _, leaf in self.merged(rule)])

    def choose(self, models: Sequence[int]) -> "AlignedModels":
        """Returns these models alone, by their places; each has every leaf that is merged."""
        chosen = tuple(
            dataclasses.replace(
                slot,
                leaves=tuple(slot.leaves[i] for i in models) if slot.merged else slot.leaves,
                holders=tuple(range(len(models))) if slot.merged else slot.holders,
            )
            for slot in self.slots
        )
        return dataclasses.replace(self, slots=chosen, count=len(models))

    def tree(self, model: int) -> Variables:
        """Returns one model, with the leaves of the result."""
        leaves = [slot.leaves[slot.holders.index(model)] if slot.merged else slot.kept
                  for slot in self.slots]  # fmt: skip
        return jax.tree.unflatten(self.structure, leaves)

    def replace_trees(self, trees: Sequence[Variables]) -> "AlignedModels":
        """Returns the same with other leaves, of every model."""
        leaves = zip(*map(jax.tree.leaves, trees), strict=True)
        slots = [dataclasses.replace(slot, leaves=of, holders=tuple(range(self.count)))
                 for slot, of in zip(self.slots, leaves, strict=True)]  # fmt: skip
        return dataclasses.replace(self, slots=tuple(slots))


def align_models(
    models: Sequence[Variables],
    base: Variables | None,
    rule: Rule,
    statistics: Sequence[Any] | None = None,
    options: MergeOptions | None = None,
) -> AlignedModels:
    """Brings models together by the paths of their leaves, and checks that they can be merged.

    Args:
        models: trees of arrays, of any framework.
        base: the model that they were fine-tuned from.
        rule: the rule they will be merged by.
        statistics: a tree for each model, of what the rule needs to know.
        options: which leaves are merged.

    Raises:
        MergeError: one line that says what does not fit.
    """
    options = options or MergeOptions()
    if not isinstance(models, Sequence):
        raise MergeError(f"pass the models as a list of variables, not a {type(models).__name__}")
    rule.check(len(models))
    if rule.needs_base and base is None:
        raise MergeError(
            f"merge rule {rule.name!r} merges differences to a base; pass base=, the model that "
            "these were fine-tuned from"
        )
    if rule.needs_statistics and (statistics is None or len(statistics) != len(models)):
        raise MergeError(
            f"merge rule {rule.name!r} needs statistics=, for each model {rule.needs_statistics}"
        )
    named = [name_leaves(model, f"models[{i}]") for i, model in enumerate(models)]
    of_base = {} if base is None else name_leaves(base, "the base")
    known = [name_leaves(of, "statistics") for of in statistics or ()]
    _check_patterns(options, [*named, of_base])
    if options.missing == "error":
        _check_same_names(named, of_base if rule.needs_base else None, options)
    slots = [_slot(name, named, of_base, known, rule, options) for name in named[0]]
    if not any(slot.merged for slot in slots):
        raise MergeError("no leaf is left to merge: skip and missing leave all of them out")
    return AlignedModels(_tie(slots), jax.tree.structure(models[0]), len(models))


def name_leaves(tree: Variables, what: str) -> dict[str, Any]:
    """Returns path -> leaf, in tree order.

    Raises:
        MergeError: there is none, two have the same path, or one holds no numbers.
    """
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_gram)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in named:
            raise MergeError(f"two leaves of {what} have the path {name}; rename one")
        if not _is_gram(leaf) and _kind(leaf) == "none":
            raise MergeError(
                f"{what} holds a {type(leaf).__name__} at {name} that is no array of numbers; pass "
                "the variables alone, or network="
            )
        named[name] = leaf
    if not named:
        raise MergeError(f"{what} has no arrays; pass the network's variables")
    return named


def _is_gram(node: object) -> bool:
    return isinstance(node, InputGram)


def _kind(leaf: Any) -> str:
    """Returns "float", "complex", "discrete", "key" for random keys, or "none"."""
    if not hasattr(leaf, "dtype"):
        return {bool: "discrete", int: "discrete", float: "float", complex: "complex"}.get(
            type(leaf), "none"
        )
    for kind, of in (("key", jax.dtypes.extended), ("float", np.floating),
                     ("complex", np.complexfloating)):  # fmt: skip
        if jnp.issubdtype(leaf.dtype, of):
            return kind
    discrete = jnp.issubdtype(leaf.dtype, np.integer) or leaf.dtype == np.bool_
    return "discrete" if discrete else "none"


def _is_skipped(name: str, options: MergeOptions) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern + end)
               for pattern in options.skip for end in ("", "/*", ".*"))  # fmt: skip


def _check_patterns(options: MergeOptions, trees: Sequence[Mapping[str, Any]]) -> None:
    """Checks that each pattern of `skip` matches something; a misspelt one would be merged."""
    names = sorted(set().union(*trees))
    for pattern in options.skip:
        one = MergeOptions(skip=(pattern,))
        if not any(_is_skipped(name, one) for name in names):
            raise MergeError(unknown("leaf to skip", pattern, names[:20]))


def _check_same_names(
    named: Sequence[Mapping[str, Any]], base: Mapping[str, Any] | None, options: MergeOptions
) -> None:
    """Checks that all models, and the base, have the same leaves but for those skipped."""
    trees = {f"models[{i}]": tree for i, tree in enumerate(named)}
    trees |= {} if base is None else {"the base": base}
    for who, tree in trees.items():
        lacking = [n for n in named[0] if n not in tree and not _is_skipped(n, options)]
        extra = [n for n in tree if n not in named[0] and not _is_skipped(n, options)]
        lora = any("lora" in name.lower() for name in (*lacking, *extra))
        advice = "fold the LoRA factors into the weights" if lora else "name it in skip"
        for names, verb, than in ((lacking, "lacks", "has"), (extra, "has", "lacks")):
            if names:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                raise MergeError(
                    f"{who} {verb} {names[0]}{more}, which models[0] {than}; {advice}, or set "
                    "missing='first' or 'present'"
                )


def _slot(
    name: str,
    named: Sequence[Mapping[str, Any]],
    of_base: Mapping[str, Any],
    known: Sequence[Mapping[str, Any]],
    rule: Rule,
    options: MergeOptions,
) -> Slot:
    """Returns one leaf of the result, checked."""
    holders = tuple(i for i, tree in enumerate(named) if name in tree)
    leaves, base = tuple(named[i][name] for i in holders), of_base.get(name)
    kind, skipped = _kind(leaves[0]), _is_skipped(name, options)
    fits = base is not None and np.shape(base) == np.shape(leaves[0])
    incomplete = len(holders) < len(named) and options.missing == "first"
    kept = skipped or incomplete or (rule.needs_base and base is None)
    merged = not kept and kind in ("float", "complex")
    common, statistics = None, None
    if merged:
        base = base if rule.needs_base else None
        common = _check_shapes(name, leaves, holders, base, options)
        _check_kinds(name, leaves, base, rule)
        if rule.needs_statistics:
            statistics = tuple(known[i].get(name) for i in holders)
            rule.check_statistics(name, np.shape(leaves[0]), statistics)
    elif kind == "discrete" and not kept:
        _check_discrete(name, leaves, holders)
    return Slot(
        leaves=leaves,
        base=base if merged or (skipped and fits) else None,
        statistics=None if statistics is None or None in statistics else statistics,
        name=name,
        holders=holders,
        merged=merged,
        from_base=skipped and fits,
        common=common,
        tied_to="",
    )


def _check_shapes(
    name: str, leaves: Sequence[Any], holders: Sequence[int], base: Any, options: MergeOptions
) -> tuple[int, ...] | None:
    """Returns the shape of what all leaves have in common, None where they have one shape."""
    all_leaves = [*leaves, *(() if base is None else (base,))]
    shapes = [tuple(np.shape(leaf)) for leaf in all_leaves]
    other = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
    if other is None:
        return None
    who = f"models[{holders[other]}]" if other < len(leaves) else "the base"
    words = f"{name} has shape {shapes[0]} in models[0] and {shapes[other]} in {who}"
    alike = all(len(shape) == len(shapes[0]) for shape in shapes)
    axes = [len(set(lengths)) > 1 for lengths in zip(*shapes, strict=True)] if alike else []
    if not alike or sum(axes) != 1:
        raise MergeError(f"{words}; name it in skip")
    if options.sizes == "error":
        raise MergeError(f"{words}; name it in skip, or set sizes='common'")
    return tuple(min(lengths) for lengths in zip(*shapes, strict=True))


def _check_kinds(name: str, leaves: Sequence[Any], base: Any, rule: Rule) -> None:
    kinds = {_kind(leaf) for leaf in (*leaves, *(() if base is None else (base,)))}
    if not kinds <= {"float", "complex"}:
        raise MergeError(f"{name} holds floats in models[0] and integers elsewhere; dequantise it")
    if "complex" in kinds and (not rule.takes_complex or len(kinds) > 1):
        raise MergeError(f"{name} is complex, which merge rule {rule.name!r} does not take; name "
                         "it in skip")  # fmt: skip


def _check_discrete(name: str, leaves: Sequence[Any], holders: Sequence[int]) -> None:
    """Checks that integers are the same in all models; a single one is a counter, and may differ.

    Raises:
        MergeError: they differ.
    """
    if np.size(leaves[0]) == 1 or any(isinstance(leaf, Tracer) for leaf in leaves):
        return
    for holder, leaf in zip(holders, leaves, strict=True):
        if not equal_leaves(leaves[0], leaf):
            raise MergeError(
                f"{name} holds integers that differ between models[0] and models[{holder}], and "
                "have no mean; dequantise it, or name it in skip"
            )


def _tie(slots: Sequence[Slot]) -> tuple[Slot, ...]:
    """Ties each slot to an earlier one that is the same array in every model."""
    first: dict[Any, str] = {}
    tied = []
    for slot in slots:
        key = tuple(map(_identity, slot.sources)), slot.holders
        other = first.setdefault(key, slot.name) if slot.merged else slot.name
        tied.append(dataclasses.replace(slot, tied_to="" if other == slot.name else other))
    return tuple(tied)


def _identity(leaf: Any) -> Any:
    """Returns what two leaves have in common where they are one array."""
    if isinstance(leaf, np.ndarray) and leaf.size:
        return leaf.__array_interface__["data"][0], leaf.shape, leaf.strides, str(leaf.dtype)
    return id(leaf)


def _dtype(leaf: Any) -> np.dtype:
    return leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype


def _wide_dtype(slot: Slot) -> np.dtype:
    """Returns the type in which a leaf is merged: float32, or the widest of its own types."""
    types = [_dtype(leaf) for leaf in slot.sources]
    # The narrow types of ml_dtypes have no common type with each other; all fit into float32.
    wide = [kind for kind in types if kind.itemsize >= 4 or kind.kind == "c"]
    return np.result_type(np.float32, *wide)


def _read(slot: Slot, host: bool) -> tuple[Leaf, Any]:
    """Returns a leaf as a rule takes it, and where it is an infinity that all models hold."""
    xp, wide = np if host else jnp, _wide_dtype(slot)
    part = tuple(map(slice, slot.shape))

    def read(leaf: Any) -> Any:
        array = xp.asarray(leaf)
        array = array if slot.common is None else array[part]
        return array.astype(wide) if array.dtype != wide else array

    *models, base = (*map(read, slot.leaves), None if slot.base is None else read(slot.base))
    fixed = _shared_infinities(slot, models, base, xp)
    if fixed is not None:
        models = [xp.where(fixed, 0, model) for model in models]
        base = None if base is None else xp.where(fixed, 0, base)
    statistics = slot.statistics
    return Leaf(slot.name, tuple(models), slot.holders, base, statistics, xp), fixed


def _shared_infinities(slot: Slot, models: Sequence[Any], base: Any, xp: Any) -> Any:
    """Returns where all models hold the same infinity, as masks do; None where all is finite.

    Raises:
        MergeError: one holds NaN, or an infinity that another lacks.
    """
    arrays = [*models, *(() if base is None else (base,))]
    traced = any(isinstance(array, Tracer) for array in arrays)
    if not traced and all(bool(xp.isfinite(array).all()) for array in arrays):
        return None
    fixed = xp.isinf(arrays[0])
    for array in arrays[1:]:
        fixed = fixed & (array == arrays[0])
    for i, array in enumerate(() if traced else arrays):
        if not bool((xp.isfinite(array) | fixed).all()):
            who = f"models[{slot.holders[i]}]" if i < len(models) else "the base"
            raise MergeError(f"{who} holds NaN or infinity at {slot.name}: did it diverge?")
    return fixed


def _finish(slot: Slot, leaf: Leaf, found: Any, fixed: Any) -> Any:
    """Returns a merged leaf in the first model's type, shape and place.

    Raises:
        MergeError: it is beyond what the type holds.
    """
    xp, first = leaf.xp, slot.leaves[0]
    with np.errstate(over="ignore", invalid="ignore"):
        result = found.astype(_dtype(first))
    if not isinstance(result, Tracer):
        check = result.astype(np.float32) if result.dtype.itemsize == 1 else result
        if not bool(xp.isfinite(check).all()):
            largest = float(abs(found).max())
            limit = float(ml_dtypes.finfo(result.dtype).max)
            raise MergeError(
                f"{slot.name} reaches {largest:.4g} when merged, beyond the {limit:.4g} of "
                f"{result.dtype}; lower the rule's scale, or merge the models in float32"
            )
    whole = xp.asarray(first)
    if fixed is not None:
        part = whole if slot.common is None else whole[tuple(map(slice, slot.common))]
        result = xp.where(fixed, part, result)
    if slot.common is not None:
        part = tuple(map(slice, slot.common))
        result = whole.at[part].set(result) if xp is jnp else _write(whole, part, result)
    if xp is np and isinstance(first, jax.Array):
        return jax.device_put(result, first.sharding)
    return result


def _write(whole: np.ndarray, part: tuple[slice, ...], values: np.ndarray) -> np.ndarray:
    whole = np.array(whole)
    whole[part] = values
    return whole
