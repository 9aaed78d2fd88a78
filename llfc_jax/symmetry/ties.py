"""Which numbers of a value may be equal, so that what sorts or chooses could break a tie by place.

`argmax` of two equal numbers takes the first. Units that such an equation orders are free only if
no two of their numbers are equal by construction; the functions here follow that through
arithmetic. Equality is meant of exact arithmetic on parameters in general position.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from llfc_jax.symmetry.terms import Wild, find, has_wild, is_fixed, is_wild
from llfc_jax.symmetry.values import Axes, Call, Value

# fmt: off
ANALYTIC = frozenset((
    "acos", "acosh", "add", "add_any", "asin", "asinh", "atan", "atan2", "atanh", "cbrt",
    "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma", "div", "erf", "erf_inv",
    "erfc", "exp", "exp2", "expm1", "integer_pow", "lgamma", "log", "log1p", "logistic", "mul",
    "name", "neg", "optimization_barrier", "pow", "rsqrt", "sin", "sinh",
    "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "sharding_constraint", "pvary",
    "device_put", "real", "imag", "conj",
))
# fmt: on
CHOOSING = frozenset(
    (
        "argmax",
        "argmin",
        "cumsum",
        "cumprod",
        "cummax",
        "cummin",
        "cumlogsumexp",
        "reduce_max",
        "reduce_min",
        "reduce_window_max",
        "reduce_window_min",
        "rev",
        "sort",
        "top_k",
    )
)
SLICING = frozenset(("slice", "dynamic_slice", "split", "unstack"))
PRODUCTS = frozenset(("dot_general", "conv_general_dilated"))
SUMS = frozenset(("add", "add_any", "sub"))
NEVER_ZERO = frozenset(("exp", "exp2", "logistic", "rsqrt", "cosh"))
STEEP = 100.0  # scales beyond which the functions that follow may be constant up to rounding


def is_distinct(call: Call, inputs: list[Value], axes: Axes) -> bool:
    """Whether no two numbers of an elementwise result are equal by construction.

    Numbers that may be equal stay so when parameters are not added to them: a factor leaves zeros
    zero, and what depends on the same data may cancel (a straight-through estimator).
    """
    if call.name not in ANALYTIC or not any(value.distinct for value in inputs):
        return False
    if _may_cancel([v for v in inputs if not _alike(v, axes)]):
        return False
    if call.name in SUMS:
        return _shifted(inputs, axes, [v.distinct or _alike(v, axes) for v in inputs])
    return all(
        value.distinct or _is_plain_factor(value, axes, divides=call.name == "div" and i == 1)
        for i, value in enumerate(inputs)
    )


def _is_plain_factor(value: Value, axes: Axes, *, divides: bool) -> bool:
    """Whether numbers stay unequal when they are multiplied, divided or raised by a value."""
    if value.number is not None:
        size = abs(value.number)
        return size >= 1 / STEEP if divides else 0 < size <= STEEP
    if value.known:
        return value.nonzero
    return (value.nonzero or divides) and _alike(value, axes)


def is_nonzero(call: Call, inputs: list[Value], axes: Axes) -> bool:
    """Whether no number of an elementwise result is zero by construction."""
    held = [value.nonzero for value in inputs]
    if call.name in NEVER_ZERO:
        return True
    if call.name in SUMS and _may_cancel(inputs):
        return False
    if call.name in SUMS and not all(value.known for value in inputs):
        return _shifted(inputs, axes, held)
    if call.name == "select_n":
        return all(held[1:])
    if call.name == "div":
        return held[0]
    if all(value.known for value in inputs):
        return call.name in ("mul", "neg", "sqrt", "square", "integer_pow", "copy") and all(held)
    if call.name == "convert_element_type" and not _is_float(call.params["new_dtype"]):
        return False
    return (call.name in ANALYTIC or call.name == "abs") and all(held)


def _is_float(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.inexact) and jnp.dtype(dtype).itemsize >= 2


def _may_cancel(inputs: Sequence[Value]) -> bool:
    """Whether some of several values have numbers in common: h less its largest, say."""
    held = [value for value in inputs if not value.known]
    return any(
        value.chosen and sum(other.data == value.data for other in held) > 1 for value in held
    )


def is_chosen(call: Call, inputs: Sequence[Value]) -> bool:
    """Whether an equation's results have numbers of another value, at some places."""
    if call.name in CHOOSING:
        return True
    if call.name in PRODUCTS:
        return False
    if call.name == "gather":  # rows of a table of parameters are nothing of the data
        return inputs[0].data or inputs[0].chosen
    if call.name in SLICING or call.name == "reduce_sum":
        before, after = inputs[0].axes, call.shapes[0]
        sizes = [find(axis).size for axis in before]
        if call.name == "reduce_sum":
            return inputs[0].chosen or math.prod(sizes) == math.prod(after)
        rank = len(after) == len(sizes)
        if not rank or any(n == 1 < size for n, size in zip(after, sizes, strict=True)):
            return True
    return any(value.chosen for value in inputs)


def _shifted(inputs: list[Value], axes: Axes, held: list[bool]) -> bool:
    """Whether a sum is so, given which operands are: all, or parameters along all free axes."""
    if all(own or value.known for own, value in zip(held, inputs, strict=True)):
        return any(held)
    return any(
        own and not value.data and not value.known and _varies(value, axes)
        for own, value in zip(held, inputs, strict=True)
    )


def _alike(value: Value, axes: Axes) -> bool:
    """Whether a value is the same along all axes of a result that may be permuted."""
    return all(is_wild(t) or is_fixed(m) for t, m in zip(value.axes, axes, strict=False))


def _varies(value: Value, axes: Axes) -> bool:
    """Whether a value changes along all axes of a result that may be permuted."""
    held = value.axes or tuple(Wild(find(t).size) for t in axes)
    return all(not has_wild(t) or is_fixed(m) for t, m in zip(held, axes, strict=True))


def is_distinct_product(inputs: list[Value], kept: Sequence[Axes]) -> bool:
    """Whether no two numbers of a sum of products are equal by construction.

    Where all that it sums over is zero, it is zero along all its axes; and where an operand has
    equal rows, the result has.
    """
    return all(
        value.nonzero and (value.distinct or all(map(is_fixed, own)))
        for value, own in zip(inputs, kept, strict=True)
    )
