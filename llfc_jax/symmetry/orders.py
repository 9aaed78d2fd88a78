"""Rules of the primitives that order places or name them: sorting, ranking, counting.

Numbers may name the places of an axis (`argmax`, `iota`): `Value.points`. They move as the places
do, for as long as they are only compared to such numbers, looked up by, or carried about.
"""

from collections.abc import Sequence

from llfc_jax.symmetry.rules import meet, mixed, rule, without
from llfc_jax.symmetry.terms import Pinned, Term, Wild, find, fresh, has_wild, is_wild, pin
from llfc_jax.symmetry.values import Axes, Call, Reader, Value


@rule("argmax", "argmin", numbered=True)
def _argmax(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps the other axes; its numbers name places of the reduced one."""
    (value,), (along,) = inputs, call.params["axes"]
    _no_numbers(call, inputs)
    points = _named(value, along, call)
    return [Value(without(value.axes, [along], call.why), points)]


def _ties(call: Call) -> str:
    return f"{call.why} breaks ties by place, and its numbers may be equal"


def _named(value: Value, along: int, call: Call) -> Term:
    """An axis whose places numbers name; pinned where ties are broken by the order of places."""
    reason = _ties(call)
    if not value.distinct:
        pin(value.axes[along], reason, given_up=True)
    axis = value.axes[along]
    if not has_wild(axis):
        return axis
    pin(axis, reason)
    return Pinned(find(axis).size, reason)


def _no_numbers(call: Call, inputs: Sequence[Value]) -> None:
    for value in inputs:
        if value.points is not None:
            pin(value.points, f"{call.why} computes with the numbers of places")


@rule("top_k", numbered=True)
def _top_k(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps the other axes; the largest numbers do not depend on the order of places."""
    (value,) = inputs
    _no_numbers(call, inputs)
    along = call.params.get("axis", -1) % len(value.axes)
    ranked = mixed(value.axes, [along], call.shapes[0], "ranks of top_k")
    points = _named(value, along, call)
    return [_of_input(value, ranked), Value(ranked, points)]


@rule("sort", numbered=True)
def _sort(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps the other axes; of one operand the order of places does not matter."""
    along = call.params["dimension"]
    keys = call.params["num_keys"]
    axes = meet([value.axes for value in inputs], call.why)
    if len(inputs) > 1 and not all(value.distinct for value in inputs[:keys]):
        pin(axes[along], _ties(call), given_up=True)
    _no_numbers(call, inputs[:keys])
    if is_wild(axes[along]) and len(inputs) == 1:
        return [Value(axes)]
    ranked = mixed(axes, [along], [find(t).size for t in axes], "ranks of sort")
    return [Value(ranked, v.points, v.wrapped, v.distinct, v.nonzero) for v in inputs]


@rule("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
def _cumulative(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps the other axes; pins the one that it runs along."""
    along, (axes,) = call.params["axis"], (value.axes for value in inputs)
    reason = f"{call.name} runs along it"
    pin(axes[along], reason)
    return [_of_input(inputs[0], mixed(axes, [along], call.shapes[0], reason))]


def _of_input(value: Value, axes: Axes) -> Value:
    return Value(axes, distinct=value.distinct, nonzero=value.nonzero)


@rule("rev")
def _reverse(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps the other axes; pins the reversed ones."""
    (value,) = inputs
    reason = f"{call.why} reverses an order"
    along = [i for i in call.params["dimensions"] if not is_wild(value.axes[i])]
    for i in along:
        pin(value.axes[i], reason, given_up=True)
    return [_of_input(value, mixed(value.axes, along, call.shapes[0], reason, given_up=True))]


@rule("iota", numbered=True)
def _iota(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Its numbers name places of its own axis; pinned by whatever computes with them."""
    (shape,), along = call.shapes, call.params["dimension"]
    own = fresh(shape[along])
    axes = tuple(own if i == along else Wild(n) for i, n in enumerate(shape))
    return [Value(axes, own if shape[along] > 1 else None, distinct=True)]
