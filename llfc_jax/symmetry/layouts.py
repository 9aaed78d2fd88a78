"""Rules of the primitives that lay arrays out anew: what stands where; nothing is computed.

With them the table of rules is complete: `RULES`.
"""

import numpy as np

from llfc_jax.symmetry.rules import RULES as RULES
from llfc_jax.symmetry.rules import Axes, Call, Reader, fresh_pinned, meet, pin_all, rule, unknown
from llfc_jax.symmetry.terms import (
    Term,
    concatenated,
    find,
    is_pinned,
    pick,
    pin,
    pinned,
    product,
    regroup,
    total,
    unify,
    wild,
)


@rule("transpose")
def _transpose(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    return [tuple(inputs[0][i] for i in call.params["permutation"])]


@rule("squeeze")
def _squeeze(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    rank = len(inputs[0])
    dropped = [d % rank for d in call.params["dimensions"]]
    return [tuple(t for i, t in enumerate(inputs[0]) if i not in dropped)]


@rule("broadcast_in_dim")
def _broadcast(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    (shape,) = call.shapes
    result = [wild(n) for n in shape]
    for axis, place in zip(inputs[0], call.params["broadcast_dimensions"], strict=True):
        if find(axis).size == shape[place]:
            result[place] = axis
    return [tuple(result)]


@rule("tile")
def _tile(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    repeats = zip(inputs[0], call.params["reps"], strict=True)
    return [tuple(product([wild(n), axis]) for axis, n in repeats)]


@rule("reshape")
def _reshape(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    (shape,) = call.shapes
    if call.params.get("dimensions") is not None:
        return unknown(call, inputs, reader)
    found = regroup(inputs[0], shape)
    if found is not None:
        return [tuple(found)]
    pin_all(inputs, "a reshape cuts across it")
    return [fresh_pinned(shape, "a reshape cuts across it")]


@rule("concatenate")
def _concatenate(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    along = call.params["dimension"]
    rest = meet([(*axes[:along], *axes[along + 1 :]) for axes in inputs])
    joined = concatenated([_distinct(axes[along]) for axes in inputs])
    return [(*rest[:along], joined, *rest[along:])]


def _distinct(axis: Term) -> Term:
    """An axis of one place has an identity once it stands beside others."""
    return axis if find(axis).size > 1 else pinned(1, "one place among others")


@rule("split")
def _split(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    along, sizes = call.params["axis"], call.params["sizes"]
    pieces = pick(inputs[0][along], np.repeat(np.arange(len(sizes)), sizes))
    return [(*inputs[0][:along], piece, *inputs[0][along + 1 :]) for piece in pieces]


@rule("slice")
def _slice(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    starts, stops = call.params["start_indices"], call.params["limit_indices"]
    strides = call.params["strides"] or (1,) * len(starts)
    result = []
    for axis, begin, end, step in zip(inputs[0], starts, stops, strides, strict=True):
        size = find(axis).size
        chosen = np.zeros(size, int)
        chosen[begin:end:step] = 1
        if chosen.all():
            result.append(axis)
        elif not chosen.any():
            result.append(wild(0))
        else:
            result.append(pick(axis, chosen)[1])
    return [tuple(result)]


@rule("pad")
def _pad(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    if inputs[1]:  # the padding value is a scalar
        return unknown(call, inputs, reader)
    result = []
    for axis, (low, high, inner) in zip(inputs[0], call.params["padding_config"], strict=True):
        size = find(axis).size
        if low == high == inner == 0:
            result.append(axis)
        elif min(low, high) < 0 or is_pinned(axis):
            pin(axis, "padded or cut")
            result.append(pinned(low + high + size + inner * max(0, size - 1), "padded or cut"))
        else:
            labels = np.zeros(low + high + size + inner * (size - 1), int)
            labels[low : low + size + inner * (size - 1) : inner + 1] = 1
            nothing = wild(int((labels == 0).sum()))
            result.append(total([nothing, _distinct(axis)], labels))
    return [tuple(result)]


@rule("dynamic_slice", "dynamic_update_slice")
def _dynamic(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    (shape,) = call.shapes
    array, piece = inputs[0], shape
    if call.name == "dynamic_update_slice":
        piece = [find(t).size for t in inputs[1]]
    result = []
    for i, axis in enumerate(array):
        if find(axis).size == piece[i]:
            result.append(unify(axis, inputs[1][i]) if piece is not shape else axis)
            continue
        pin(axis, "sliced at a computed place")
        if piece is not shape:
            pin(inputs[1][i], "sliced at a computed place")
        result.append(pinned(shape[i], "sliced at a computed place") if shape[i] > 1 else wild(1))
    return [tuple(result)]


@rule("gather")
def _gather(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    """Whole slices along an axis keep it; axes that are looked up in are pinned."""
    (shape,), (operand, index) = call.shapes, inputs
    numbers, sizes = call.params["dimension_numbers"], call.params["slice_sizes"]
    offsets = list(numbers.offset_dims)
    gone = {*numbers.collapsed_slice_dims, *getattr(numbers, "operand_batching_dims", ())}
    result: list[Term | None] = [None] * len(shape)
    kept = [i for i in range(len(operand)) if i not in gone]
    for i, axis in enumerate(operand):
        whole = i in kept and sizes[i] == find(axis).size
        if whole:
            result[offsets[kept.index(i)]] = axis
        else:
            pin(axis, "looked up by index")
    pin_all([index[-1:]], "looked up by index")
    if getattr(numbers, "start_indices_batching_dims", ()):
        pin_all([index], "looked up by index")
    batch = iter(index[:-1])
    for i in range(len(shape)):
        if i not in offsets:
            result[i] = next(batch)
    places = (pinned(n, "looked up by index") if n > 1 else wild(1) for n in shape)
    return [tuple(t if t is not None else p for t, p in zip(result, places, strict=True))]
