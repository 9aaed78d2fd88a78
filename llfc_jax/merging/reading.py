"""Leaves read block by block and widened, and brought back into the type that they had.

On the host a leaf goes through a rule in blocks of `BLOCK` entries, so a large one (an embedding,
say) takes no more memory than a few blocks of each model beside the result.
"""

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from llfc_jax.checkpoints.mapped import release
from llfc_jax.errors import MergeError
from llfc_jax.merging.rule import BLOCK, Leaf, LeafRule
from llfc_jax.merging.slot import Slot
from llfc_jax.types import AnyArray

Bounds = tuple[int, int]
"""Where a block begins and ends among the entries of a leaf."""


def dtype_of(leaf: AnyArray) -> np.dtype:
    """Returns a leaf's type."""
    return leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype


def wide_dtype(slot: Slot) -> np.dtype:
    """Returns the type in which a leaf is merged: float32, or the widest of its own types."""
    types = [dtype_of(leaf) for leaf in slot.sources]
    # Narrow types (bfloat16, float8) need not have a common type, but all fit into float32.
    wide = [kind for kind in types if kind.itemsize >= 4]
    return np.result_type(np.float32, *wide)


def read_blocks(slot: Slot, host: bool, whole: bool) -> Iterator[Leaf]:
    """Yields a leaf of all models in blocks, in float32 or wider.

    Args:
        slot: the leaf.
        host: whether NumPy computes; elsewhere the leaf is one block.
        whole: whether the rule needs the leaf as one block, in its shape.

    Raises:
        MergeError: a model holds NaN, or an infinity that another lacks.
    """
    statistics = slot.statistics
    if not host:
        part = tuple(map(slice, slot.shape))
        models = [jnp.asarray(leaf)[part] for leaf in slot.leaves]
        base = None if slot.base is None else jnp.asarray(slot.base)[part]
        if statistics is not None and not whole:
            statistics = tuple(jnp.asarray(of)[part] for of in statistics)
        yield _widen(slot, models, base, statistics, None, jnp)
        return
    models, base = [_open(leaf, slot) for leaf in slot.leaves], _open(slot.base, slot)
    if whole:
        arrays = [np.reshape(_take(leaf, (0, slot.size)), slot.shape) for leaf in models]
        base = None if base is None else np.reshape(_take(base, (0, slot.size)), slot.shape)
        yield _widen(slot, arrays, base, statistics, None, np)
        _release(*arrays, base)
        return
    opened = None if statistics is None else [_open(of, slot) for of in statistics]
    for number, bounds in enumerate(blocks_of(slot)):
        known = None if opened is None else tuple(_take(of, bounds) for of in opened)
        of_base = None if base is None else _take(base, bounds)
        parts = [_take(leaf, bounds) for leaf in models]
        yield _widen(slot, parts, of_base, known, number, np)
        _release(*parts, of_base)


def _release(*arrays: AnyArray | None) -> None:
    for array in arrays:
        if isinstance(array, np.ndarray):
            release(array)


def blocks_of(slot: Slot) -> list[Bounds]:
    """Returns the bounds of a leaf's blocks."""
    return [(at, min(at + BLOCK, slot.size)) for at in range(0, max(slot.size, 1), BLOCK)]


def _open(leaf: AnyArray, slot: Slot) -> Any:
    """Returns a leaf's entries, flat; what lies in a file is not read yet."""
    if leaf is None:
        return None
    array = np.asarray(leaf)
    return (array if slot.common is None else array[tuple(map(slice, slot.common))]).reshape(-1)


def _take(leaf: AnyArray, bounds: Bounds) -> AnyArray:
    """Returns a block of a leaf's entries."""
    return leaf[bounds[0] : bounds[1]]


def _widen(
    slot: Slot,
    models: Sequence[Any],
    base: AnyArray | None,
    statistics: PyTree,
    block: int | None,
    xp: ModuleType,
) -> Leaf:
    """Returns a block as a rule takes it, without the infinities that all models hold (masks)."""
    wide = wide_dtype(slot) if xp is np else jax.dtypes.canonicalize_dtype(wide_dtype(slot))
    models = [model.astype(wide) if model.dtype != wide else model for model in models]
    base = base if base is None or base.dtype == wide else base.astype(wide)
    masked = _shared_infinities(slot, models, base, xp)
    if masked is not None:
        models = [xp.where(masked, 0, model) for model in models]
        base = None if base is None else xp.where(masked, 0, base)
    return Leaf(slot.name, tuple(models), slot.holders, base, statistics, block, masked, xp)


def _shared_infinities(
    slot: Slot, models: Sequence[Any], base: AnyArray | None, xp: ModuleType
) -> Any:
    """Returns where all models hold the same infinity, as masks do; None where all is finite.

    Raises:
        MergeError: one holds NaN, or an infinity that another lacks.
    """
    arrays = [*models, *(() if base is None else (base,))]
    traced = any(isinstance(array, Tracer) for array in arrays)
    if not traced and all(bool(xp.isfinite(array).all()) for array in arrays):
        return None
    shared = xp.isinf(arrays[0])
    for array in arrays[1:]:
        shared = shared & (array == arrays[0])
    for i, array in enumerate(() if traced else arrays):
        if not bool((xp.isfinite(array) | shared).all()):
            who = f"models[{slot.holders[i]}]" if i < len(models) else "the base"
            raise MergeError(f"{who} holds NaN or infinity at {slot.name}: did it diverge?")
    return shared


def merge_slot(slot: Slot, rule: LeafRule, survey: PyTree, host: bool) -> Any:
    """Returns a leaf of the merged model, in the first model's type, shape and place.

    Raises:
        MergeError: a model holds NaN, or the merged leaf is beyond what its type holds.
    """
    first, kind = slot.leaves[0], dtype_of(slot.leaves[0])
    blocks = read_blocks(slot, host, rule.whole_leaves)
    part = tuple(map(slice, slot.shape))
    if not host:
        (leaf,) = blocks
        first = jnp.asarray(first)
        result = _narrow(leaf, rule.merge_leaf(leaf, survey), first.dtype)
        if leaf.masked is not None:
            result = jnp.where(leaf.masked, first[part], result)
        return result if slot.common is None else first.at[part].set(result)
    result = np.empty(slot.size, kind)
    opened = _open(first, slot)
    bounds = [(0, slot.size)] if rule.whole_leaves else blocks_of(slot)
    for (start, stop), leaf in zip(bounds, blocks, strict=True):
        merged = _narrow(leaf, rule.merge_leaf(leaf, survey), kind)
        if leaf.masked is not None:
            there = np.reshape(_take(opened, (start, stop)), merged.shape)
            merged = np.where(leaf.masked, there, merged)
        result[start:stop] = merged.reshape(-1)
    result = result.reshape(slot.shape)
    if slot.common is not None:
        whole = np.array(first)
        whole[part] = result
        result = whole
    return jax.device_put(result, first.sharding) if isinstance(first, jax.Array) else result


def _narrow(leaf: Leaf, merged: AnyArray, kind: np.dtype) -> Any:
    """Returns a merged block in the leaf's type.

    Raises:
        MergeError: it is beyond what the type holds.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        result = merged.astype(kind)
    if isinstance(result, Tracer):
        return result
    check = result.astype(np.float32) if result.dtype.itemsize == 1 else result
    if not bool(leaf.xp.isfinite(check).all()):
        raise MergeError(
            f"{leaf.name} reaches {float(abs(merged).max()):.4g} when merged, beyond the "
            f"{float(ml_dtypes.finfo(kind).max):.4g} of {kind}; lower the rule's scale, or merge "
            "the models in float32"
        )
    return result
