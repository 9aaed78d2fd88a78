"""Rules of loops and branches. With them the table of rules is complete: `RULES`.

A scan is read as the unrolled network would be: its body once for each step, until another step
would say the same. A `while` loop's carry is tied between steps, a branch's outputs to each other.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from llfc_jax.symmetry import layouts
from llfc_jax.symmetry import orders as orders
from llfc_jax.symmetry.rules import RULES as RULES
from llfc_jax.symmetry.rules import meet, pin_all, rule, unknown
from llfc_jax.symmetry.terms import Wild, each, find, overs, pin, pinned, same
from llfc_jax.symmetry.tying import collapse_where
from llfc_jax.symmetry.values import Call, Reader, Value

MOST_STEPS = 128
"""Steps of a scan that are read one by one; the carry is tied from step to step after them."""


def _alike(left: Sequence[Value], right: Sequence[Value]) -> bool:
    return all(
        (p.number, p.distinct, p.nonzero) == (q.number, q.distinct, q.nonzero)
        and (p.data, p.chosen) == (q.data, q.chosen)
        and all(map(same, p.axes, q.axes))
        for p, q in zip(left, right, strict=True)
    )


def _plain(value: Value, reason: str) -> Value:
    """The value without what its numbers mean; nothing varies with places of another axis."""
    if value.points is not None:
        pin(value.points, reason)
    axes = tuple(collapse_where(t, None, reason) for t in value.axes)
    return dataclasses.replace(
        value, axes=axes, points=None, wrapped=False, number=None, known=False
    )


def _tie(call: Call, left: Sequence[Value], right: Sequence[Value]) -> list[Value]:
    pairs = zip(left, right, strict=True)
    return [
        Value(
            meet([p.axes, q.axes], call.why),
            distinct=p.distinct and q.distinct,
            nonzero=p.nonzero and q.nonzero,
            data=p.data or q.data,
            chosen=p.chosen or q.chosen,
        )
        for p, q in pairs
    ]


def _fixpoint(
    call: Call, jaxpr: Any, consts: list[Value], carry: list[Value], xs: list[Value], reader: Reader
) -> tuple[list[Value], list[Value]] | None:
    """The carry tied from step to step, and the body's outputs; None where that does not end."""
    given, carry = carry, [_plain(value, call.why) for value in carry]
    for _ in range(20):
        outputs = reader.inside(jaxpr, [*consts, *carry, *xs], call.scope, "loop")
        outputs = [_plain(value, call.why) for value in outputs]
        tied = _tie(call, carry, outputs[: len(carry)])
        if _alike(carry, tied):
            reader.opaque([*given, *outputs], [*tied, *outputs[len(carry) :]], call.why)
            return tied, outputs[len(carry) :]
        carry = tied
    return None


def _step(value: Value, i: int, why: str, reader: Reader) -> Value:
    """What a step of a scan sees of a stacked value."""
    axes = layouts.keep_places(value.axes, 0, np.array([i]), why)
    return reader.link(value, dataclasses.replace(value, axes=axes[1:]), why)


@rule("scan", stacked=True, numbered=True)
def _scan(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Keeps what each step keeps; pins the stacked axes."""
    params, jaxpr = call.params, call.params["jaxpr"]
    length, cut = params["length"], params["num_consts"]
    consts, carry = inputs[:cut], inputs[cut : cut + params["num_carry"]]
    xs, reason = inputs[cut + len(carry) :], "steps of a scan"
    for value in xs:
        pin(value.axes[0], reason, apart=True)
    carry = [_carried(v, reason, reader) for v in carry]
    xs = [x if x.points is None else _carried(x, reason, reader) for x in xs]
    steady = not any(True for x in xs for t in x.axes for o in overs(t) if o is find(x.axes[0]))
    steps = list(range(length))[:: -1 if params["reverse"] else 1]
    ys: dict[int, list[Value]] = {}
    for count, i in enumerate(steps):
        if count == MOST_STEPS:
            xs = [_carried(x, reason, reader) for x in xs]
            tied = _fixpoint(
                call, jaxpr, consts, carry, [_step(x, i, call.why, reader) for x in xs], reader
            )
            if tied is None:
                return unknown(call, inputs, reader)
            carry, rest = tied
            ys |= dict.fromkeys(steps[count:], rest)
            break
        seen = [*consts, *carry, *(_step(x, i, call.why, reader) for x in xs)]
        outputs = reader.inside(jaxpr, seen, call.scope, i)
        outputs = [_carried(v, reason, reader) for v in outputs]
        before, carry, ys[i] = carry, outputs[: len(carry)], outputs[len(carry) :]
        if steady and _alike(before, carry):
            for old, new in zip(before, carry, strict=True):
                reader.link(old, new, call.why)
            ys |= dict.fromkeys(steps[count:], ys[i])
            break
    return [*carry, *_stacked(length, [ys[i] for i in range(length)], call, reader)]


def _carried(value: Value, why: str, reader: Reader) -> Value:
    """What a step of a scan hands to the next."""
    carried = dataclasses.replace(_plain(value, why), number=value.number)
    return reader.link(value, carried, why)


def _stacked(length: int, ys: list[list[Value]], call: Call, reader: Reader) -> list[Value]:
    """The outputs of all steps, stacked along a new first axis."""
    shapes = call.shapes[call.params["num_carry"] :]
    if not length:
        return [Value(tuple(map(Wild, shape))) for shape in shapes]
    over = pinned(length, "steps of a scan")
    stacked = []
    for values in zip(*ys, strict=True):
        columns = zip(*(y.axes for y in values), strict=True)
        axes = (over, *(each(over, column) for column in columns))
        distinct, nonzero = all(y.distinct for y in values), all(y.nonzero for y in values)
        stacked.append(Value(axes, distinct=distinct, nonzero=nonzero))
        for y in values:
            reader.link(y, stacked[-1], call.why)
    return stacked


@rule("while")
def _while(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Ties the carry from step to step."""
    test, cut = call.params["cond_nconsts"], call.params["body_nconsts"]
    found = _fixpoint(
        call, call.params["body_jaxpr"], inputs[test : test + cut], inputs[test + cut :], [], reader
    )
    if found is None:
        return unknown(call, inputs, reader)
    carry, _ = found
    reader.inside(call.params["cond_jaxpr"], [*inputs[:test], *carry], call.scope, "test")
    return carry


@rule("cond")
def _cond(call: Call, inputs: list[Value], reader: Reader) -> list[Value]:
    """Ties the outputs of all branches."""
    pin_all(inputs[:1], "chooses a branch")
    branches = [
        reader.inside(branch, inputs[1:], call.scope, f"branch {i}")
        for i, branch in enumerate(call.params["branches"])
    ]
    outputs = [_plain(value, call.why) for value in branches[0]]
    for branch in branches[1:]:
        outputs = _tie(call, outputs, [_plain(value, call.why) for value in branch])
    return outputs
