"""What each primitive does to the identity of axes.

A rule takes an equation and the terms of its inputs' axes, ties and pins them, and returns the
terms of its outputs' axes. A primitive without a rule pins every axis it touches and is noted.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from llfc_jax.symmetry.terms import (
    Term,
    find,
    is_pinned,
    pin,
    pinned,
    product,
    regroup,
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
