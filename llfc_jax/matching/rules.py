"""What each primitive does to the identity of axes.

A rule takes an equation and the terms of its inputs' axes, ties and pins them, and returns the
terms of its outputs' axes. A primitive without a rule pins every axis it touches and is noted.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from llfc_jax.matching.terms import (
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

Axes = tuple[Term, ...]


class Reader(Protocol):
    """What rules may ask of whoever reads the equations."""

    def contracted(self, terms: Sequence[Term], beside: Sequence[Term]) -> None:
        """`terms` are summed over in pairs of operands, with `beside` the same in both."""
        ...

    def note(self, words: str) -> None:
        """Report something that was given up."""
        ...


@dataclasses.dataclass(frozen=True)
class Call:
    """An equation, as its rule sees it.

    Attributes:
        name: of the primitive.
        params: its parameters.
        shapes: shapes of its outputs.
        scope: module path in which it stands.
    """

    name: str
    params: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    scope: str


Rule = Callable[[Call, list[Axes], Reader], list[Axes]]
RULES: dict[str, Rule] = {}

# fmt: off
ELEMENTWISE = frozenset((
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2",
    "atanh", "bessel_i0e", "bessel_i1e", "cbrt", "ceil", "clamp", "clz", "conj",
    "convert_element_type", "copy", "copy_p", "cos", "cosh", "device_put", "digamma", "div",
    "eq", "eq_to", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt",
    "igamma", "igammac", "imag", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p",
    "logistic", "lt", "max", "min", "mul", "name", "ne", "neg", "nextafter", "not",
    "optimization_barrier", "or", "polygamma", "population_count", "pow", "pvary", "real",
    "reduce_precision", "rem", "round", "rsqrt", "select_n", "sharding_constraint",
    "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh",
    "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor", "zeta",
))
# fmt: on
_SEPARATE = ("optimization_barrier", "device_put")  # each output is its own input


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule of some primitives."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def pin_all(axes: Sequence[Axes], reason: str) -> None:
    """Pin every axis of every value."""
    for axis in (axis for value in axes for axis in value):
        pin(axis, reason)


def fresh_pinned(shape: Sequence[int], reason: str) -> Axes:
    """Axes of a value that may not be permuted at all."""
    return tuple(pinned(n, reason) if n > 1 else wild(1) for n in shape)


def meet(values: Sequence[Axes]) -> Axes:
    """Tie the axes of values that are combined element by element; scalars join anything."""
    full = [value for value in values if value]
    if not full:
        return ()
    met = full[0]
    for value in full[1:]:
        met = tuple(unify(p, q) for p, q in zip(met, value, strict=True))
    return met


def unknown(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    """Pin everything: what is not understood is not guessed."""
    touched = any(not is_pinned(t) and not find(t).wild for axes in inputs for t in axes)
    reason = f"{call.name} in {call.scope}" if call.scope else call.name
    if touched:
        reader.note(f"{reason} has no rule; the axes that it touches are fixed")
    pin_all(inputs, reason)
    return [fresh_pinned(shape, reason) for shape in call.shapes]


@rule(*ELEMENTWISE)
def _elementwise(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    if call.name in _SEPARATE:
        return list(inputs)
    return [meet(inputs)] * len(call.shapes)


@rule("dot_general")
def _dot(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    (contract, batch), (lhs, rhs) = call.params["dimension_numbers"], inputs
    tied = [unify(lhs[i], rhs[j]) for i, j in zip(*batch, strict=True)]
    summed = [unify(lhs[i], rhs[j]) for i, j in zip(*contract, strict=True)]
    reader.contracted(summed, tied)
    free = [
        [axis for i, axis in enumerate(side) if i not in contract[k] and i not in batch[k]]
        for k, side in enumerate((lhs, rhs))
    ]
    return [(*tied, *free[0], *free[1])]


@rule("conv_general_dilated")
def _convolution(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    numbers, groups = call.params["dimension_numbers"], call.params["feature_group_count"]
    if call.params["batch_group_count"] != 1:
        return unknown(call, inputs, reader)
    lhs, rhs = inputs
    (sample, feature, *space), (out, in_, *window) = numbers.lhs_spec, numbers.rhs_spec
    reason = "positions of a convolution"
    for axes, places in ((lhs, space), (rhs, window)):
        pin_all([tuple(axes[i] for i in places)], reason)
    given, made = lhs[feature], rhs[out]
    if groups == 1:
        reader.contracted([unify(given, rhs[in_])], [])
    else:
        size = [find(given).size // groups, find(made).size // groups]
        left = regroup([given], [groups, size[0]])
        right = regroup([made], [groups, size[1]])
        if left is None or right is None:
            pin_all([(given, made, rhs[in_])], "a grouped convolution cuts across its channels")
        else:
            tied = unify(left[0], right[0])
            reader.contracted([unify(left[1], rhs[in_])], [tied])
            made = product([tied, right[1]])
    result = list(fresh_pinned(call.shapes[0], reason))
    result[numbers.out_spec[0]], result[numbers.out_spec[1]] = lhs[sample], made
    return [tuple(result)]


@rule("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or",
      "reduce_xor")  # fmt: skip
def _reduce(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    return [tuple(t for i, t in enumerate(inputs[0]) if i not in call.params["axes"])]


@rule("argmax", "argmin")
def _argmax(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    pin_all([tuple(inputs[0][i] for i in call.params["axes"])], f"{call.name} names places")
    return _reduce(call, inputs, reader)


@rule("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
def _cumulative(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    pin(inputs[0][call.params["axis"]], f"{call.name} runs along it")
    return [_settle(inputs[0], [call.params["axis"]], call.name)]


@rule("rev")
def _reverse(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    dimensions = call.params["dimensions"]
    pin_all([tuple(inputs[0][i] for i in dimensions)], "reversed")
    return [_settle(inputs[0], dimensions, "reversed")]


@rule("sort")
def _sort(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    met, dimension = meet(inputs), call.params["dimension"]
    pin(met[dimension], "sorted")
    return [_settle(met, [dimension], "sorted")] * len(call.shapes)


def _settle(axes: Axes, places: Sequence[int], reason: str) -> Axes:
    """The axes, with those that an operation reorders pinned even where they were wild."""
    return tuple(
        pinned(find(t).size, reason) if i in places and find(t).wild else t
        for i, t in enumerate(axes)
    )


@rule("iota")
def _iota(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    (shape,), along = call.shapes, call.params["dimension"]
    return [tuple(pinned(n, "numbered") if i == along else wild(n) for i, n in enumerate(shape))]


@rule("reduce_window_sum", "reduce_window_max", "reduce_window_min", "reduce_window")
def _window(call: Call, inputs: list[Axes], reader: Reader) -> list[Axes]:
    params, shape = call.params, call.shapes[0]
    met = meet([axes for axes in inputs if len(axes) == len(shape)])
    rank = len(shape)
    moved = [
        not (
            params["window_dimensions"][i] == 1
            and params["window_strides"][i] == 1
            and tuple(params["padding"][i]) == (0, 0)
            and (params.get("base_dilation") or (1,) * rank)[i] == 1
        )
        for i in range(rank)
    ]
    result = []
    for i, axis in enumerate(met):
        if moved[i]:
            pin(axis, "positions of a pooling")
        result.append(pinned(shape[i], "positions of a pooling") if moved[i] else axis)
    return [tuple(result)] * len(call.shapes)


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
