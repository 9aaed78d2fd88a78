"""What each primitive does to the identity of axes: arithmetic.

A rule takes an equation and the values of its inputs, ties and pins their axes, and returns the
values of its outputs. It states what it keeps (the same terms stand along the output's axes),
what it ties (`meet`, `unify`) and what it pins. The invariant is that of `terms`: permuting the
inputs as their terms say permutes the outputs as theirs say. Axes along which a rule mixes places
come out as *new* pinned terms, never as the old ones. A primitive without a rule pins every axis
that it touches, which is said in the notes.
"""

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llfc_jax.symmetry.terms import (
    Term,
    Wild,
    factors,
    find,
    overs,
    pin,
    pinned,
    product,
)
from llfc_jax.symmetry.ties import ANALYTIC, is_distinct, is_distinct_product, is_nonzero
from llfc_jax.symmetry.tying import collapse_where, regroup, unify
from llfc_jax.symmetry.values import Axes, Call, Reader, Value

Rule = Callable[[Call, list[Value], Reader], list[Value]]
RULES: dict[str, Rule] = {}
STACKED: set[str] = (
    set()
)  # primitives whose rules know of axes that differ in each place of another
NUMBERED: set[str] = set()  # primitives whose rules know of numbers that name places

# fmt: off
ELEMENTWISE = ANALYTIC | frozenset((
    "abs", "and", "bessel_i0e", "bessel_i1e", "ceil", "clamp", "clz", "complex", "eq", "eq_to",
    "floor", "ge", "gt", "igamma", "igammac", "is_finite", "le", "lt", "max", "min", "ne",
    "nextafter", "not", "or", "polygamma", "population_count", "reduce_precision",
    "regularized_incomplete_beta", "rem", "round",
    "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "xor",
    "zeta", "le_to", "lt_to", "dce_sink",
))
# fmt: on
_SEPARATE = ("optimization_barrier", "device_put")  # each output is its own input
_FOLDED: dict[str, Callable[..., Any]] = {  # counters of loops
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "lt": operator.lt,
    "convert_element_type": lambda value: value,
    "select_n": lambda which, *cases: cases[int(which)],
}


def rule(*names: str, stacked: bool = False, numbered: bool = False) -> Callable[[Rule], Rule]:
    """Registers the rule of some primitives."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        STACKED.update(names if stacked else ())
        NUMBERED.update(names if numbered else ())
        return function

    return register


def pin_all(values: Iterable[Value | Axes], reason: str, *, given_up: bool = False) -> None:
    """Pins every axis of every value."""
    for value in values:
        for axis in value.axes if isinstance(value, Value) else value:
            pin(axis, reason, given_up=given_up)


def fresh_pinned(shape: Sequence[int], reason: str, *, given_up: bool = False) -> Axes:
    """Returns the axes of a value that may not be permuted at all."""
    return tuple(pinned(n, reason, given_up=given_up) for n in shape)


def meet(values: Sequence[Axes], why: str) -> Axes:
    """Ties the axes of values that are combined element by element.

    Scalars, and axes of one place beside longer ones, join anything.
    """
    full = [value for value in values if value]
    if not full:
        return ()
    shape = [max(find(t).size for t in column) for column in zip(*full, strict=True)]
    if 0 in [find(t).size for value in full for t in value]:
        return tuple(Wild(min(find(t).size for t in column)) for column in zip(*full, strict=True))
    met: list[Term] = [Wild(n) for n in shape]
    columns = list(enumerate(zip(*full, strict=True)))
    # Axes that may differ in each place of another come after that other one.
    for i, column in sorted(columns, key=lambda c: any(True for t in c[1] for _ in overs(t))):
        for term in column:
            if find(term).size == shape[i]:
                met[i] = unify(met[i], term, why)
    return tuple(met)


def place_of(axes: Axes, over: Term) -> int | None:
    """Returns the number of the axis that is `over`; None unless just one is, and no factor."""
    held = [i for i, t in enumerate(axes) for f in factors(t) if f is find(over)]
    return held[0] if len(held) == 1 and find(axes[held[0]]) is find(over) else None


def settle(axes: Axes, why: str) -> Axes:
    """Returns the axes, with those tied that differ in each place of an axis no longer there."""
    while True:
        lost = {o for t in axes for o in overs(t) if place_of(axes, o) is None}
        if not lost:
            return axes
        for over in lost:
            axes = tuple(collapse_where(t, over, why) for t in axes)


def without(axes: Axes, gone: Iterable[int], why: str) -> Axes:
    """Returns the axes but those that are gone; nothing may depend on a place along them."""
    gone = set(gone)
    lost = {o for t in axes for o in overs(t) if place_of(axes, o) in gone}
    kept = [t for i, t in enumerate(axes) if i not in gone]
    for over in lost:
        kept = [collapse_where(t, over, why) for t in kept]
    return tuple(kept)


def mixed(
    axes: Axes, along: Iterable[int], sizes: Sequence[int], reason: str, *, given_up: bool = False
) -> Axes:
    """Returns the axes with new, pinned ones where an equation mixes or reorders places."""
    along = list(along)
    kept = iter(without(axes, along, reason))
    return tuple(
        pinned(sizes[i], reason, given_up=given_up) if i in along else next(kept)
        for i in range(len(axes))
    )


def unknown(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Pins everything: what is not understood is not guessed."""
    reason = f"{call.why} has no rule"
    pin_all(inputs, reason, given_up=True)
    return [Value(fresh_pinned(shape, reason, given_up=True)) for shape in call.shapes]


@rule(*ELEMENTWISE, stacked=True, numbered=True)
def _elementwise(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps all axes; ties those of the operands."""
    if call.name in _SEPARATE:
        return list(inputs)
    if call.name in _FOLDED and all(value.number is not None for value in inputs):
        folded = _FOLDED[call.name](*(value.number for value in inputs))
        return [Value((), number=folded)] * len(call.shapes)
    axes = meet([value.axes for value in inputs], call.why)
    points, wrapped = _numbers(call, inputs, reader)
    distinct, nonzero = is_distinct(call, inputs, axes), is_nonzero(call, inputs, axes)
    return [Value(axes, points, wrapped, distinct, nonzero)] * len(call.shapes)


def _numbers(call: Call, inputs: list[Value], reader: Reader) -> tuple[Term | None, bool]:
    """What the numbers of a result name, where those of an operand name places."""
    held = [value for value in inputs if value.points is not None]
    if not held:
        return None, False
    terms = [value.points for value in held if value.points is not None]
    sizes = {find(term).size for term in terms}
    others = [value.number for value in inputs if value.points is None]
    plain = not any(value.wrapped for value in held)
    whole = call.name in ("copy", "copy_p", "stop_gradient", "name") or (
        call.name == "convert_element_type" and "int" in str(call.params["new_dtype"])
    )
    if whole and plain:
        return terms[0], False
    if call.name in ("eq", "ne") and len(held) == 2 and len(sizes) == 1 and plain:
        reader.contracted([unify(terms[0], terms[1], call.why)], [])
        return None, False
    if call.name == "lt" and inputs[1].number == 0 and plain and inputs[0].points is not None:
        return None, False  # no place is negative
    if call.name in ("add", "sub") and inputs[1].number == 0 and plain:
        return inputs[0].points, False  # as jax.numpy.eye numbers its diagonal
    if call.name in ("add", "max") and plain and len(held) == 1:
        if call.name == "add" and others == [find(terms[0]).size]:
            return terms[0], True
        if call.name == "max" and others == [0]:
            return terms[0], False
    cases = call.name == "select_n" and len(held) == 2 and len(inputs) == 3
    if cases and terms[0] is terms[1] and not held[0].wrapped:
        return terms[0], False  # jax.numpy counts negative indices from the end; there are none
    for term in terms:
        pin(term, f"{call.why} computes with the numbers of places")
    return None, False


@rule("dot_general", stacked=True)
def _dot(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps free axes; ties contracted axes and batch axes of the two operands."""
    contract, batch = call.params["dimension_numbers"]
    sides = [
        list(_paired(value.axes, contract[k], batch[k], call.why)) for k, value in enumerate(inputs)
    ]
    pairs = [*zip(*batch, strict=True), *zip(*contract, strict=True)]
    number = [{pair[k]: n for n, pair in enumerate(pairs)} for k in (0, 1)]
    met: dict[int, Term] = {}
    varies = [any(True for k in (0, 1) for _ in overs(sides[k][p[k]])) for p in pairs]
    for n in sorted(range(len(pairs)), key=lambda n: varies[n]):
        left, right = (sides[k][pairs[n][k]] for k in (0, 1))
        at = [
            {number[k].get(place_of(tuple(sides[k]), o), -1) for o in overs((left, right)[k])}
            for k in (0, 1)
        ]
        if at[0] and at[1] and at[0] != at[1]:
            left, right = collapse_where(left, None), collapse_where(right, None)
        met[n] = unify(left, right, call.why)
    tied = [met[n] for n in range(len(batch[0]))]
    reader.contracted([met[n] for n in range(len(batch[0]), len(pairs))], tied)
    free = [t for k in (0, 1) for i, t in enumerate(sides[k]) if i not in number[k]]
    rows = [[t for i, t in enumerate(sides[k]) if i not in contract[k]] for k in (0, 1)]
    for k, side in enumerate(sides):
        reader.lost(rows[k], [t for i, t in enumerate(side) if i in contract[k]])
    distinct = is_distinct_product(inputs, [tuple(own) for own in rows])
    nonzero = all(value.nonzero for value in inputs)
    return [Value((*tied, *free), distinct=distinct, nonzero=nonzero)]


def _paired(axes: Axes, contract: Sequence[int], batch: Sequence[int], why: str) -> Axes:
    """An operand's axes, tied where they vary along an axis that their partners do not share."""
    result = list(axes)
    for i, axis in enumerate(axes):
        for over in set(overs(axis)):
            place = place_of(axes, over)
            if i in contract:
                shared = place in contract or place in batch
            else:
                shared = place in batch if i in batch else place not in contract
            if not shared:
                result[i] = collapse_where(result[i], over, why)
    return tuple(result)


@rule("conv_general_dilated")
def _convolution(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps samples and output channels; ties input channels; pins positions."""
    numbers, groups = call.params["dimension_numbers"], call.params["feature_group_count"]
    if call.params["batch_group_count"] != 1:
        return unknown(call, inputs, reader)
    lhs, rhs = (value.axes for value in inputs)
    (sample, feature, *space), (out, in_, *window) = numbers.lhs_spec, numbers.rhs_spec
    reason = "positions of a convolution"
    for axes, places in ((lhs, space), (rhs, window)):
        pin_all([tuple(axes[i] for i in places)], reason)
    given, made = lhs[feature], rhs[out]
    reader.lost([lhs[sample]], [given])
    reader.lost([made], [rhs[in_]])
    rest: Axes = ()
    if groups == 1:
        reader.contracted([unify(given, rhs[in_], call.why)], [])
    else:
        rest = (given,)
        given_sizes, made_sizes = ((groups, find(t).size // groups) for t in (given, made))
        left = regroup([given], given_sizes, call.why)
        right = regroup([made], made_sizes, call.why)
        left, right = ([collapse_where(t, None) for t in side] for side in (left, right))
        tied = unify(left[0], right[0], call.why)
        reader.contracted([unify(left[1], rhs[in_], call.why)], [tied])
        made = product([tied, right[1]])
    result = list(fresh_pinned(call.shapes[0], reason))
    result[numbers.out_spec[0]], result[numbers.out_spec[1]] = lhs[sample], made
    distinct = is_distinct_product(inputs, [(lhs[sample], *rest), (made,)])
    return [Value(tuple(result), distinct=distinct, nonzero=all(v.nonzero for v in inputs))]


@rule("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or",
      "reduce_xor", stacked=True)  # fmt: skip
def _reduce(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps the axes that are not reduced; the order along those that are does not matter."""
    (value,), gone = inputs, call.params["axes"]
    held = list(enumerate(value.axes))
    reader.lost([t for i, t in held if i not in gone], [t for i, t in held if i in gone])
    axes = without(value.axes, gone, call.why)
    return [Value(axes, distinct=value.distinct, nonzero=value.nonzero)]


@rule("reduce_window_sum", "reduce_window_max", "reduce_window_min", "reduce_window",
      "select_and_gather_add")  # fmt: skip
def _window(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps the axes along which the window has one place; pins the others."""
    params, shape = call.params, call.shapes[0]
    met = meet([v.axes for v in inputs if len(v.axes) == len(shape)], call.why)
    rank, ones = len(shape), (1,) * len(shape)
    moved = [
        params["window_dimensions"][i] != 1
        or params["window_strides"][i] != 1
        or tuple(params["padding"][i]) != (0, 0)
        or (params.get("base_dilation") or ones)[i] != 1
        for i in range(rank)
    ]
    along = [i for i in range(rank) if moved[i]]
    for i in along:
        pin(met[i], "positions of a pooling")
    axes = mixed(met, along, shape, "positions of a pooling")
    known = "sum" in call.name or "max" in call.name or "min" in call.name
    distinct, nonzero = (
        known and all(held) for held in zip(*((v.distinct, v.nonzero) for v in inputs), strict=True)
    )
    return [Value(axes, distinct=distinct, nonzero=nonzero)] * len(call.shapes)
