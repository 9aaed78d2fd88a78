"""How each primitive lets groups act beyond permutations. With it `acting.ACTS` is complete."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from llfc_jax.symmetry.beyond.acting import ACTS, Acting, acts, nothing_more
from llfc_jax.symmetry.beyond.mentions import mentions
from llfc_jax.symmetry.control import RULES
from llfc_jax.symmetry.layouts import keep_places
from llfc_jax.symmetry.reading import Reading
from llfc_jax.symmetry.terms import Each, Pinned, Sum, Term, factors, find
from llfc_jax.symmetry.values import Axes, Call, Record, Value

# fmt: off
IDENTITIES = ("copy", "copy_p", "stop_gradient", "reduce_precision", "name", "pvary",
              "sharding_constraint", "optimization_barrier", "device_put", "neg", "real", "imag",
              "conj")
ODD = ("tanh", "sin", "tan", "sinh", "asinh", "asin", "atan", "atanh", "erf", "erf_inv")
EVEN = ("cos", "cosh")
# fmt: on


def read_actions(reading: Reading) -> Acting:
    """Reads what a network's equations allow its groups."""
    return Acting(reading, ACTS)


# -- numbers that stay where they are --------------------------------------------------------------


@acts(*IDENTITIES)
def _identity(acting: Acting, record: Record) -> None:
    for value, made in zip(record.inputs, record.outputs, strict=True):
        for i in range(len(made.axes)):
            acting.along(value, i, made, i, record.why)
    acting.handed_on(record)


@acts("convert_element_type")
def _convert(acting: Acting, record: Record) -> None:
    kind = np.dtype(record.params["new_dtype"])
    # Numbers of one byte have so small a range that scales are lost.
    fine = jnp.issubdtype(kind, jnp.inexact) and kind.itemsize > 1
    (_identity if fine else nothing_more)(acting, record)


@acts("link")
def _link(acting: Acting, record: Record) -> None:
    (value,), (made,) = record.inputs, record.outputs
    if "place" in record.params:
        place = np.array([record.params["place"]])

        def cut(values: list[Value]) -> list[Value]:
            axes = keep_places(values[0].axes, 0, place, record.why)
            return [dataclasses.replace(values[0], axes=axes[1:])]

        return acting.laid_out(record, cut)
    shift = len(made.axes) - len(value.axes)
    for i in range(len(value.axes)):
        if 0 <= i + shift < len(made.axes):
            acting.along(value, i, made, i + shift, record.why, whole=False)
    if shift == 0:
        acting.handed_on(record)


# -- arithmetic ------------------------------------------------------------------------------------


@acts("add", "sub", "add_any")
def _add(acting: Acting, record: Record) -> None:
    (made,) = record.outputs
    acting.added(record.inputs, made, range(len(made.axes)), record.why)


@acts("select_n")
def _select(acting: Acting, record: Record) -> None:
    (which, *cases), (made,) = record.inputs, record.outputs
    _add(acting, Record("add", {}, tuple(cases), (made,), record.why))
    acting.freeze(which, record.why)


@acts("mul", "div")
def _multiply(acting: Acting, record: Record) -> None:
    (made,) = record.outputs
    powers = (1, 1 if record.name == "mul" else -1)
    for i in range(len(made.axes)):
        acting.multiplied(record.inputs, powers, made, i, record.why)


@acts("square", "integer_pow", "sqrt", "rsqrt", "abs", "sign")
def _power(acting: Acting, record: Record) -> None:
    actions, value, (made,) = acting.actions, record.inputs[0], record.outputs
    powers = {"square": 2, "sqrt": 0.5, "rsqrt": -0.5, "abs": 1, "sign": 0}
    exponent = record.params["y"] if record.name == "integer_pow" else powers[record.name]
    odd = record.name == "sign" or (record.name == "integer_pow" and exponent % 2 == 1)
    for i in range(len(made.axes)):
        for own, node in _beside(acting, value, made, i):
            if exponent == 2 and not actions.is_square(own):
                actions.square(node)
            else:
                actions.limit(own, "none", record.why)
            actions.relate_scales({node: -2, own: int(2 * exponent)})
            if record.name in ("sqrt", "rsqrt"):
                actions.relate_signs({own: 1})
            actions.relate_signs({node: 1, own: 1} if odd else {node: 1})


@acts("max", "min")
def _largest(acting: Acting, record: Record) -> None:
    _add(acting, record)
    for node in acting.actions.nodes(record.outputs[0]):
        acting.actions.limit(node, "none", record.why)
        acting.actions.relate_signs({node: 1})


@acts("gt", "ge", "lt", "le", "eq", "ne")
def _compare(acting: Acting, record: Record) -> None:
    """Comparisons with zero, and of values alike, say the same after positive scaling."""
    actions, (made,) = acting.actions, record.outputs
    held: dict[int, list[int]] = {}
    for i in range(len(made.axes)):
        for value in record.inputs:
            pairs = acting.aligned(value, i, made)
            zero = acting.is_zero(value)
            if pairs is None or any(own is None and not zero for own, _ in pairs):
                return nothing_more(acting, record)
            for own, node in pairs:
                held.setdefault(node, []).extend([] if own is None else [own])
    for nodes in held.values():
        for own in nodes:
            actions.limit(own, "none", record.why)
            actions.relate_signs({own: 1})
            if own != nodes[0]:
                actions.relate_scales({own: 1, nodes[0]: -1})
    acting.freeze(made, record.why)


@acts(*ODD, *EVEN)
def _odd_or_even(acting: Acting, record: Record) -> None:
    """A change of sign goes through, or vanishes."""
    actions, (value,), (made,) = acting.actions, record.inputs, record.outputs
    for i in range(len(made.axes)):
        for own, node in _beside(acting, value, made, i):
            for each in (node, own):
                actions.limit(each, "none", record.why)
                actions.relate_scales({each: 1})
            actions.relate_signs({node: 1, own: 1} if record.name in ODD else {node: 1})


def _beside(acting: Acting, value: Value, made: Value, axis: int) -> list[tuple[int, int]]:
    """The nodes along an axis of an operand and of the result of a function of it."""
    pairs = acting.aligned(value, axis, made) or []
    found = [(own, node) for own, node in pairs if own is not None]
    if len(found) != len(acting.actions.along(made, axis)):
        acting.freeze_all((value, made), "a function of an axis that is laid out otherwise")
    return found


# -- products and sums -----------------------------------------------------------------------------


@acts("dot_general")
def _product(acting: Acting, record: Record) -> None:
    (left, right), (made,) = record.inputs, record.outputs
    contract, batch = record.params["dimension_numbers"]
    for i, j in zip(*contract, strict=True):
        acting.contracted(left, i, right, j, record.why)
    for n, pair in enumerate(zip(*batch, strict=True)):
        acting.batched((left, right), pair, made, n, record.why)
    place = len(batch[0])
    for k, value in enumerate((left, right)):
        for i in range(len(value.axes)):
            if i not in contract[k] and i not in batch[k]:
                acting.along(value, i, made, place, record.why)
                place += 1


@acts("conv_general_dilated")
def _convolution(acting: Acting, record: Record) -> None:
    (given, kernel), (made,) = record.inputs, record.outputs
    numbers = record.params["dimension_numbers"]
    if record.params["batch_group_count"] != 1:
        return nothing_more(acting, record)
    if record.params["feature_group_count"] != 1:
        return _grouped_convolution(acting, record)
    acting.contracted(given, numbers.lhs_spec[1], kernel, numbers.rhs_spec[1], record.why)
    acting.along(given, numbers.lhs_spec[0], made, numbers.out_spec[0], record.why)
    acting.along(kernel, numbers.rhs_spec[0], made, numbers.out_spec[1], record.why)


def _grouped_convolution(acting: Acting, record: Record) -> None:
    """Units inside a group of channels are summed over; the groups stand side by side."""
    actions, (given, kernel), (made,) = acting.actions, record.inputs, record.outputs
    numbers = record.params["dimension_numbers"]
    axes = (given.axes[numbers.lhs_spec[1]], kernel.axes[numbers.rhs_spec[1]],
            kernel.axes[numbers.rhs_spec[0]], made.axes[numbers.out_spec[1]])  # fmt: skip
    if any(isinstance(f, (Sum, Each)) for axis in axes for f in factors(axis)):
        return nothing_more(acting, record)
    before, within, own, after = (mentions(axis) for axis in axes)
    outer = before[: len(before) - len(within)]
    alike = [atom for atom, _ in before] == [atom for atom, _ in (*outer, *within)]
    if not alike or own != after or outer != after[: len(outer)]:
        return nothing_more(acting, record)
    acting.along(given, numbers.lhs_spec[0], made, numbers.out_spec[0], record.why)
    operand, inner, weight, result = (
        actions.along(value, axis)
        for value, axis in (
            (given, numbers.lhs_spec[1]),
            (kernel, numbers.rhs_spec[1]),
            (kernel, numbers.rhs_spec[0]),
            (made, numbers.out_spec[1]),
        )
    )
    for left, right in zip(operand[len(outer) :], inner, strict=True):
        acting.contract(left, right, record.why)
    for i, (node, made_node) in enumerate(zip(weight, result, strict=True)):
        if i >= len(outer):
            actions.linear(node, made_node, record.why)
            continue
        row = {made_node: -1, node: 1, operand[i]: 1}
        for each in row:
            actions.limit(each, "none", record.why)
        actions.relate_scales(row)
        actions.relate_signs(row)


@acts("reduce_sum", "reduce_max", "reduce_min")
def _reduce(acting: Acting, record: Record) -> None:
    (value,), (made,) = record.inputs, record.outputs
    gone = record.params["axes"]
    kept = [i for i in range(len(value.axes)) if i not in gone]
    for place, i in enumerate(kept):
        acting.along(value, i, made, place, record.why)
    if record.name == "reduce_sum":
        for i in gone:
            for node in acting.actions.along(value, i):
                acting.summed(node, record.why)
        return
    for node in acting.actions.nodes(value):
        acting.actions.limit(node, "none", record.why)
        acting.actions.relate_signs({node: 1})
    for i in gone:
        for node in acting.actions.along(value, i):
            acting.actions.freeze(node, record.why)


@acts("cumsum", "reduce_window_sum")
def _running_sum(acting: Acting, record: Record) -> None:
    """Sums along axes that hold no group: those that do stay as they are."""
    _identity(acting, record)


# -- layouts ---------------------------------------------------------------------------------------


class _NoReader:
    """Stands for the reader where a layout is repeated.

    Attributes:
        apart_axes: numbers of the axes of a reshape whose places hold different axes.
    """

    def __init__(self, apart_axes: Sequence[int] = ()) -> None:
        self.apart_axes = apart_axes
        self.position: tuple[int, ...] = ()

    def link(self, old: Value, new: Value, why: str, place: int | None = None) -> Value:
        return new

    def opaque(self, given: Sequence[Value], made: Sequence[Value], why: str) -> None:
        pass

    def contracted(self, terms: Sequence[Term], beside: Sequence[Term]) -> None:
        pass

    def lost(self, kept: Sequence[Term], gone: Sequence[Term]) -> None:
        pass

    def inside(self, jaxpr: Any, inputs: Sequence[Value], scope: str, step: Any) -> list[Value]:
        return []

    def reshaped(self, axes: Axes) -> None:
        pass

    def apart(self) -> Sequence[int]:
        return self.apart_axes


@acts("transpose", "broadcast_in_dim", "tile", "reshape", "squeeze", "expand_dims", "slice",
      "split", "rev", "unstack")  # fmt: skip
def _laid_out(acting: Acting, record: Record) -> None:
    _repeat_layout(acting, record)
    acting.handed_on(record)


def _repeat_layout(acting: Acting, record: Record) -> None:
    shapes = tuple(tuple(find(t).size for t in made.axes) for made in record.outputs)
    call = Call(record.name, record.params, shapes, "")
    overs = {find(t.over) for made in record.outputs for axis in made.axes
             for t in [find(axis)] if isinstance(t, Each)}  # fmt: skip
    apart = [
        i
        for i, axis in enumerate(record.outputs[0].axes)
        if isinstance(find(axis), Pinned) and find(axis) in overs
    ]
    reader = _NoReader(apart)
    acting.laid_out(record, lambda values: RULES[record.name](call, values, reader))


@acts("dynamic_slice")
def _dynamic_slice(acting: Acting, record: Record) -> None:
    _laid_out(acting, record)
    acting.freeze_all(record.inputs[1:], record.why)


@acts("concatenate", "stack")
def _joined(acting: Acting, record: Record) -> None:
    """Operands side by side take the same action along the other axes."""
    _repeat_layout(acting, record)
    (made,), rank = record.outputs, len(record.outputs[0].axes)
    along = record.params["dimension" if record.name == "concatenate" else "axis"] % rank
    others = [j for j in range(rank) if j != along]
    before = others if record.name == "concatenate" else range(rank - 1)
    for i, j in zip(before, others, strict=True):
        for value in record.inputs:
            acting.beside(value, i, made, j, made.axes[along], record.why)


@acts("pad")
def _pad(acting: Acting, record: Record) -> None:
    if not acting.is_zero(record.inputs[1]):
        return nothing_more(acting, record)
    _laid_out(acting, record)


@acts("gather")
def _gather(acting: Acting, record: Record) -> None:
    """Whole slices of a table stay as they are."""
    (table, index), (made,) = record.inputs, record.outputs
    fill = record.params.get("fill_value")  # in the place of what is looked up beyond the end
    if fill and not np.isnan(fill):
        return nothing_more(acting, record)
    numbers = record.params["dimension_numbers"]
    batched = tuple(getattr(numbers, "operand_batching_dims", ()))
    acting.freeze(index, record.why)
    kept = [i for i in range(len(table.axes)) if i not in (*numbers.collapsed_slice_dims, *batched)]
    for i in set(range(len(table.axes))) - set(kept):
        for node in acting.actions.along(table, i):
            acting.actions.freeze(node, record.why)
    offsets = dict(zip(numbers.offset_dims, kept, strict=True))
    for place in range(len(made.axes)):
        if place in offsets:
            acting.along(table, offsets[place], made, place, record.why)
        else:
            for node in acting.actions.along(made, place):
                acting.actions.freeze(node, record.why)
