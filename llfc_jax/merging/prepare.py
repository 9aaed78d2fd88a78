"""Models brought together by the paths of their leaves, and checked before any is read.

What is checked needs names, shapes and types alone (and the integers, which are few), so a merge
that cannot work is refused before any long work.
"""

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from llfc_jax.errors import MergeError, unknown
from llfc_jax.merging.inputs import MergeInputs
from llfc_jax.merging.options import MergeOptions
from llfc_jax.merging.reading import dtype_of
from llfc_jax.merging.rule import Rule
from llfc_jax.merging.slot import Slot
from llfc_jax.merging.statistics import InputGram
from llfc_jax.pair import equal_leaves
from llfc_jax.types import AnyArray, Variables

STATISTICS = "statistics"


def prepare_inputs(
    models: Sequence[Variables],
    base: Variables | None,
    rule: Rule,
    statistics: Sequence[Any] | None = None,
    options: MergeOptions | None = None,
) -> MergeInputs:
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
    known = [name_leaves(of, STATISTICS) for of in statistics or ()]
    check_patterns(options.skip, [*named, of_base])
    if options.missing == "error":
        _check_same_names(named, of_base if rule.needs_base else None, options)
    slots = [_slot(name, named, of_base, known, rule, options) for name in named[0]]
    if not any(slot.merged for slot in slots):
        raise MergeError("no leaf is left to merge: skip and missing leave all of them out")
    return MergeInputs(_tie(slots), jax.tree.structure(models[0]), len(models))


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
    if not named and what != STATISTICS:
        raise MergeError(f"{what} has no arrays; pass the network's variables")
    return named


def _is_gram(node: object) -> bool:
    return isinstance(node, InputGram)


def _kind(leaf: AnyArray) -> str:
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


def is_skipped(name: str, patterns: Sequence[str]) -> bool:
    """Returns whether patterns name a leaf by its path, or by what holds it."""
    return any(fnmatch.fnmatchcase(name, pattern + end)
               for pattern in patterns for end in ("", "/*", ".*"))  # fmt: skip


def with_heads(tree: Variables, other: Variables, patterns: Sequence[str]) -> Variables:
    """Returns a model with another's structure, and the leaves of it that patterns name."""
    if not patterns:
        return tree
    of_other, own = name_leaves(other, "the model"), name_leaves(tree, "the model")
    return jax.tree.unflatten(jax.tree.structure(other), [
        leaf if is_skipped(name, patterns) else own.get(name, leaf)
        for name, leaf in of_other.items()])  # fmt: skip


def check_patterns(patterns: Sequence[str], trees: Sequence[Mapping[str, Any]]) -> None:
    """Checks that each pattern names a leaf; a misspelt one would be merged.

    Raises:
        MergeError: one names nothing; the line names the nearest leaf.
    """
    names = sorted(set().union(*trees))
    for pattern in patterns:
        if not any(is_skipped(name, (pattern,)) for name in names):
            raise MergeError(unknown("leaf to skip", pattern, names[:20]))


def _check_same_names(
    named: Sequence[Mapping[str, Any]], base: Mapping[str, Any] | None, options: MergeOptions
) -> None:
    """Checks that all models, and the base, have the same leaves but for those skipped."""
    trees = {f"models[{i}]": tree for i, tree in enumerate(named)}
    trees |= {} if base is None else {"the base": base}
    for who, tree in trees.items():
        lacking = [n for n in named[0] if n not in tree and not is_skipped(n, options.skip)]
        extra = [n for n in tree if n not in named[0] and not is_skipped(n, options.skip)]
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
    kind, skipped = _kind(leaves[0]), is_skipped(name, options.skip)
    fits = base is not None and (np.shape(base), dtype_of(base)) == (
        np.shape(leaves[0]), dtype_of(leaves[0]))  # fmt: skip
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
            rule.check_statistics(name, [np.shape(leaf) for leaf in leaves], statistics)
            statistics = None if any(of is None for of in statistics) else statistics
    elif kind == "discrete" and not kept:
        _check_discrete(name, leaves, holders)
    return Slot(
        leaves=leaves,
        base=base if merged or (skipped and fits) else None,
        statistics=statistics,
        name=name,
        holders=holders,
        merged=merged,
        from_base=skipped and fits,
        common=common,
        tied_to="",
    )


def _check_shapes(
    name: str,
    leaves: Sequence[Any],
    holders: Sequence[int],
    base: AnyArray | None,
    options: MergeOptions,
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


def _check_kinds(name: str, leaves: Sequence[Any], base: AnyArray | None, rule: Rule) -> None:
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


def _identity(leaf: AnyArray) -> Any:
    """Returns what two leaves have in common where they are one array."""
    if isinstance(leaf, np.ndarray) and leaf.size:
        return leaf.__array_interface__["data"][0], leaf.shape, leaf.strides, str(leaf.dtype)
    return id(leaf)
