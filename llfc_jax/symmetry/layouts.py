"""Rules of the primitives that lay arrays out anew: what stands where; nothing is computed."""

import dataclasses
import itertools
import math

import numpy as np

from llfc_jax.symmetry.rules import fresh_pinned, meet, mixed, rule, unknown, without
from llfc_jax.symmetry.terms import (
    Pinned,
    Term,
    Wild,
    at_place,
    concatenated,
    each,
    find,
    is_fixed,
    is_wild,
    pin,
    pinned,
    product,
    total,
)
from llfc_jax.symmetry.tying import collapse_where, pick, regroup, unify
from llfc_jax.symmetry.values import Axes, Call, Reader, Value


def _moved(value: Value, axes: Axes) -> Value:
    """The value with its places laid out otherwise; its numbers are the same."""
    return dataclasses.replace(value, axes=axes, number=None)


def _together(values: list[Value], axes: Axes) -> Value:
    """Values side by side: what is so of each number is so of each of them."""
    distinct, nonzero = all(v.distinct for v in values), all(v.nonzero for v in values)
    return Value(axes, distinct=distinct, nonzero=nonzero)


@rule("transpose", stacked=True, numbered=True)
def _transpose(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps all axes, in another order."""
    (value,) = inputs
    return [_moved(value, tuple(value.axes[i] for i in call.params["permutation"]))]


@rule("squeeze", stacked=True, numbered=True)
def _squeeze(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps the axes of more than one place."""
    (value,) = inputs
    rank = len(value.axes)
    dropped = [d % rank for d in call.params["dimensions"]]
    return [_moved(value, tuple(t for i, t in enumerate(value.axes) if i not in dropped))]


@rule("broadcast_in_dim", stacked=True, numbered=True)
def _broadcast(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps the axes; the value is the same along new ones."""
    (shape,), value = call.shapes, inputs[0]
    result: list[Term] = [Wild(n) for n in shape]
    for axis, place in zip(value.axes, call.params["broadcast_dimensions"], strict=True):
        if find(axis).size == shape[place]:
            result[place] = axis
    return [_moved(value, tuple(result))]


@rule("tile")
def _tile(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps the axes as factors; the value is the same along the copies."""
    repeats = zip(inputs[0].axes, call.params["reps"], strict=True)
    axes = tuple(product([Wild(n), axis]) for axis, n in repeats)
    return [Value(axes, distinct=inputs[0].distinct, nonzero=inputs[0].nonzero)]


@rule("reshape", stacked=True, numbered=True)
def _reshape(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps the places, as axes of other sizes."""
    (shape,), value = call.shapes, inputs[0]
    if call.params.get("dimensions") is not None:
        return unknown(call, inputs, reader)
    axes = tuple(regroup(value.axes, shape, call.why, reader.apart()))
    reader.reshaped(axes)
    return [_moved(value, axes)]


@rule("concatenate", stacked=True)
def _concatenate(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps the joined axes as parts of a sum; ties the others."""
    along = call.params["dimension"]
    inputs = [value for value in inputs if find(value.axes[along]).size] or inputs[:1]
    if len(inputs) == 1:
        return inputs
    if len(inputs) > 1 and all(find(value.axes[along]).size == 1 for value in inputs):
        squeezed = [_moved(v, (*v.axes[:along], *v.axes[along + 1 :])) for v in inputs]
        return _stack(dataclasses.replace(call, params={"axis": along}), squeezed, reader)
    rest = meet([without(value.axes, [along], call.why) for value in inputs], call.why)
    joined = concatenated([value.axes[along] for value in inputs])
    axes = (*rest[:along], joined, *rest[along:])
    return [_together(inputs, axes)]


@rule("stack", stacked=True)
def _stack(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps all axes, each operand's own in its place of the new one."""
    along, n = call.params["axis"] % (len(inputs[0].axes) + 1), len(inputs)
    settled = [tuple(collapse_where(t, None, call.why) for t in v.axes) for v in inputs]
    if n == 1:
        rest, over = list(settled[0]), Wild(1)
    else:
        over = Pinned(n, "values side by side", apart=True)
        rest = [each(over, column) for column in zip(*settled, strict=True)]
    return [_together(inputs, (*rest[:along], over, *rest[along:]))]


@rule("unstack", stacked=True)
def _unstack(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps the axes of each place of the one that is taken apart."""
    (value,), along = inputs, call.params["axis"] % len(inputs[0].axes)
    found = []
    for i in range(len(call.shapes)):
        axes = keep_places(value.axes, along, np.array([i]), call.why)
        found.append(_moved(value, (*axes[:along], *axes[along + 1 :])))
    return found


@rule("empty", "empty2")
def _empty(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """The same everywhere."""
    return [Value(tuple(map(Wild, shape))) for shape in call.shapes]


def keep_places(axes: Axes, along: int, chosen: np.ndarray, why: str) -> Axes:
    """Returns the axes after only some places of one, in order, were kept."""
    axis, size = find(axes[along]), find(axes[along]).size
    if len(chosen) == size:
        return axes
    if not len(chosen):
        return (*axes[:along], Wild(0), *axes[along + 1 :])
    labels = np.zeros(size, int)
    labels[chosen] = 1
    piece = pick(axis, labels, why)[1]
    if not isinstance(axis, Pinned):
        return (*axes[:along], piece, *axes[along + 1 :])
    return tuple(
        piece if i == along else at_place(t, axis, chosen, find(piece)) for i, t in enumerate(axes)
    )


@rule("split", stacked=True)
def _split(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps the other axes, and each piece of the one that is cut."""
    (value,), along = inputs, call.params["axis"]
    ends = np.cumsum([0, *call.params["sizes"]])
    ranges = [np.arange(i, j) for i, j in itertools.pairwise(ends)]
    return [_moved(value, keep_places(value.axes, along, r, call.why)) for r in ranges]


@rule("slice", stacked=True, numbered=True)
def _slice(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps whole axes, and the chosen places of the others."""
    (value,), axes = inputs, inputs[0].axes
    starts, stops = call.params["start_indices"], call.params["limit_indices"]
    strides = call.params["strides"] or (1,) * len(starts)
    for i, (begin, end, step) in enumerate(zip(starts, stops, strides, strict=True)):
        axes = keep_places(axes, i, np.arange(begin, end, step), call.why)
    return [_moved(value, axes)]


@rule("pad")
def _pad(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps the padded axis as a part of a sum; the rest of the sum is the padding."""
    value, padding = inputs
    if padding.axes:  # the padding value is a scalar
        return unknown(call, inputs, reader)
    axes, result = value.axes, []
    for i, (low, high, inner) in enumerate(call.params["padding_config"]):
        size = find(axes[i]).size
        whole = low + high + size + inner * max(0, size - 1)
        at = low + (inner + 1) * np.arange(size)
        inside = (at >= 0) & (at < whole)
        if not inside.all():
            axes = keep_places(axes, i, np.flatnonzero(inside), call.why)
        labels = np.zeros(whole, int)
        labels[at[inside]] = 1
        nothing = Wild(int((labels == 0).sum()))
        result.append(total([nothing, axes[i]], labels))
    return [Value(tuple(result))]


@rule("dynamic_slice", stacked=True, numbered=True)
def _dynamic_slice(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps whole axes; pins those that are cut at a computed place."""
    (shape,), value, starts = call.shapes, inputs[0], inputs[1:]
    axes = value.axes
    for i, n in enumerate(shape):
        size = find(axes[i]).size
        if n == size:
            continue
        start = starts[i].number
        if start is not None:
            begin = int(np.clip(start, 0, size - n))
            axes = keep_places(axes, i, np.arange(begin, begin + n), call.why)
        else:
            pin(axes[i], f"{call.why}: sliced at a computed place", given_up=True)
            axes = axes if is_wild(axes[i]) else _cut(axes, i, n)
    for start in starts:
        if start.points is not None:
            pin(start.points, "sliced at a computed place")
    return [
        _moved(value, tuple(Wild(n) if is_wild(t) else t for t, n in zip(axes, shape, strict=True)))
    ]


def _cut(axes: Axes, along: int, size: int) -> Axes:
    sizes = [find(t).size for t in axes]
    sizes[along] = size
    return mixed(axes, [along], sizes, "sliced at a computed place")


@rule("dynamic_update_slice")
def _dynamic_update(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Ties whole axes; keeps the places that are written at known ones apart from the others."""
    whole, piece, starts = inputs[0].axes, inputs[1].axes, [v.number for v in inputs[2:]]
    result = list(whole)
    partial = [i for i, t in enumerate(whole) if find(t).size != find(piece[i]).size]
    for i, axis in enumerate(whole):
        if i not in partial:
            result[i] = unify(axis, piece[i], call.why)
    for i in partial:
        size, n, start = find(whole[i]).size, find(piece[i]).size, starts[i]
        if start is not None and len(partial) == 1:
            labels = np.zeros(size, int)
            begin = int(np.clip(start, 0, size - n))
            labels[begin : begin + n] = 1
            rest = pick(whole[i], labels, call.why)[0]
            result[i] = total([rest, piece[i]], labels)
        else:
            reason = f"{call.why}: written at a computed place"
            pin(whole[i], reason, given_up=True)
            pin(piece[i], reason, given_up=True)
            result[i] = pinned(size, reason)
    return [Value(tuple(result))]


@rule("gather", numbered=True)
def _gather(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps whole slices, ties batch axes; pins what is looked up by numbers that name no place."""
    (shape,), (operand, index) = call.shapes, inputs
    numbers = call.params["dimension_numbers"]
    along = list(numbers.start_index_map)
    batched = list(getattr(numbers, "operand_batching_dims", ()))
    by = list(getattr(numbers, "start_indices_batching_dims", ()))
    gone = {*numbers.collapsed_slice_dims, *batched}
    kept = [i for i in range(len(operand.axes)) if i not in gone]
    rows = list(index.axes[:-1])
    for i, j in zip(batched, by, strict=True):
        rows[j] = unify(operand.axes[i], rows[j], call.why)
    named = (
        index.points is not None
        and not index.wrapped
        and len(along) == 1
        and along[0] in gone
        and find(index.points).size == find(operand.axes[along[0]]).size
    )
    held = list(enumerate(operand.axes))
    reader.lost(
        [t for i, t in held if i not in along or i in batched], [t for i, t in held if i in along]
    )
    if named and index.points is not None:
        looked_up = unify(operand.axes[along[0]], index.points, call.why)
        reader.contracted([looked_up], [rows[j] for j in by])
    elif index.points is not None:
        pin(index.points, f"{call.why} looks up by numbers of places")
    offsets = dict(zip(numbers.offset_dims, kept, strict=True))
    batch, result = iter(rows), []
    for i, n in enumerate(shape):
        if i not in offsets:
            result.append(next(batch))
            continue
        axis = operand.axes[offsets[i]]
        if n != find(axis).size:
            pin(axis, f"{call.why}: looked up by index", given_up=True)
            axis = axis if is_wild(axis) else pinned(n, "looked up by index")
        result.append(Wild(n) if is_wild(axis) else axis)
    for i in along:
        if i in gone and not named:
            # More rows than places: places are looked up again and again, as in a table of biases.
            rows_ = math.prod(find(row).size for row in rows)
            once = index.known and rows_ <= find(operand.axes[i]).size
            reason = f"{call.why}: looked up by constant numbers; slices would leave more free"
            pin(operand.axes[i], reason if once else "looked up by index", given_up=once)
    pin(index.axes[-1], "looked up by index")
    return [Value(tuple(result), operand.points, operand.wrapped, nonzero=operand.nonzero)]


@rule("scatter", "scatter-add", "scatter_add", "scatter-mul", "scatter_mul", "scatter-min",
      "scatter_min", "scatter-max", "scatter_max", "scatter-sub", "scatter_sub")  # fmt: skip
def _scatter(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Ties whole windows and batch axes; pins axes that are written by index."""
    operand, index, updates = (value.axes for value in inputs)
    numbers = call.params["dimension_numbers"]
    batched = list(getattr(numbers, "operand_batching_dims", ()))
    by = list(getattr(numbers, "scatter_indices_batching_dims", ()))
    window = [i for i in range(len(operand)) if i not in {*numbers.inserted_window_dims, *batched}]
    rows = [i for i in range(len(updates)) if i not in numbers.update_window_dims]
    for axis, row in zip(index[:-1], rows, strict=True):
        unify(axis, updates[row], call.why)
    result, reason = list(operand), "written by index"
    for i, j in zip(batched, by, strict=True):
        result[i] = unify(unify(operand[i], index[j], call.why), updates[rows[j]], call.why)
    for i, j in zip(window, numbers.update_window_dims, strict=True):
        if find(operand[i]).size == find(updates[j]).size:
            result[i] = unify(operand[i], updates[j], call.why)
        else:
            pin(operand[i], reason, given_up=True)
            pin(updates[j], reason, given_up=True)
            result[i] = pinned(find(operand[i]).size, reason)
    for i in numbers.scatter_dims_to_operand_dims:
        pin(operand[i], reason)
        if i in window:
            pin(updates[numbers.update_window_dims[window.index(i)]], reason)
        result[i] = pinned(find(operand[i]).size, reason)
    for axis in index[-1:]:
        pin(axis, reason)
    if not all(is_fixed(updates[r]) for r in rows) and call.name == "scatter":
        for row in rows:  # later writes replace earlier ones
            pin(updates[row], reason)
    return [Value(tuple(result))]


@rule("random_bits", "random_wrap", "random_unwrap", "random_seed", "random_fold_in",
      "random_split", "threefry2x32", "rng_bit_generator", "rng_uniform")  # fmt: skip
def _random(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Pins everything: random numbers differ from place to place."""
    for value in inputs:
        for axis in value.axes:
            pin(axis, "random numbers")
    return [Value(fresh_pinned(shape, "random numbers")) for shape in call.shapes]
