"""Reads a network's equations, one rule after the other, and keeps the terms of every value."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.graph.trace import Equation, Program, body, is_literal
from llfc_jax.symmetry.control import RULES
from llfc_jax.symmetry.rules import NUMBERED, STACKED, fresh_pinned, pin_all, settle, unknown
from llfc_jax.symmetry.terms import (
    Pinned,
    Sum,
    Term,
    Wild,
    atoms,
    each,
    find,
    fresh,
    parts_of,
    pin,
    pinned,
)
from llfc_jax.symmetry.ties import is_chosen
from llfc_jax.symmetry.tying import collapse_where
from llfc_jax.symmetry.values import Axes, Call, Record, Turn, Value

Key = tuple[Any, ...]
"""An axis of a leaf, or of what a reshape gives, by its place in the program."""
TURN = "rotary embedding"
MOST_APART = 128
"""Places of an axis up to which what stands beside it may differ from place to place."""


@dataclasses.dataclass(frozen=True)
class Flat:
    """An equation of the flat program together with the shapes of its outputs."""

    primitive: Any
    params: dict[str, Any]
    avals: tuple[Any, ...]


class Reading:
    """What reading all equations gives.

    Attributes:
        program: the network.
        values: each value of the flat program, by number.
        seen: the axes of every value, those inside loops and derivative rules included.
        mixed: (axes that stay, axes whose places are mixed) of an operand.
        sums: for each product: (axes summed over, axes that stand beside them in both operands).
        records: every equation, those inside loops included, in the order in which they were read.
    """

    def __init__(
        self,
        program: Program,
        split_at: frozenset[Key],
        uniform: frozenset[int] = frozenset(),
        turns: Sequence[Turn] = (),
        same: Mapping[int, int] = {},
    ) -> None:
        self.program = program
        self.records: list[Record] = []
        self._uniform = uniform
        self._same = same
        self._turned = {turn.made: turn for turn in turns}
        self._inside = {number for turn in turns for number in turn.inside}
        self.values: dict[int, Value] = {}
        self.seen: list[Axes] = []
        self.sums: list[tuple[Sequence[Term], Sequence[Term]]] = []
        self.mixed: list[tuple[Sequence[Term], Sequence[Term]]] = []
        self.position: Key = ()
        self._split_at = split_at
        self._cut: list[tuple[Key, Axes]] = []

    # -- what rules ask --------------------------------------------------------------------------

    def contracted(self, terms: Sequence[Term], beside: Sequence[Term]) -> None:
        """Remembers what a product sums over."""
        self.sums.append((terms, beside))

    def lost(self, kept: Sequence[Term], gone: Sequence[Term]) -> None:
        """Remembers which axes stay of an operand some of whose axes are mixed."""
        if kept and gone:
            self.mixed.append((kept, gone))

    def reshaped(self, axes: Axes) -> None:
        """Remembers the axes that this equation's reshape gives."""
        self._cut.append((("reshape", *self.position), axes))

    def apart(self) -> Iterable[int]:
        """Returns the axes of this equation's reshape whose places hold different axes."""
        here = ("reshape", *self.position)
        return [key[-1] for key in self._split_at if key[:-1] == here]

    def link(self, old: Value, new: Value, why: str, place: int | None = None) -> Value:
        """Remembers that a value is another one, or a slice or stack of it; returns it."""
        params = {} if place is None else {"place": place}
        self.records.append(Record("link", params, (old,), (new,), why))
        return new

    def opaque(self, given: Sequence[Value], made: Sequence[Value], why: str) -> None:
        """Remembers that values are made of others in a way of which nothing is known."""
        self.records.append(Record("opaque", {}, tuple(given), tuple(made), why))

    def inside(self, jaxpr: Any, inputs: Sequence[Value], scope: str, step: Any) -> list[Value]:
        """Reads a nested jaxpr and returns the values of its outputs."""
        consts, jaxpr = getattr(jaxpr, "consts", ()), getattr(jaxpr, "jaxpr", jaxpr)
        env = dict(zip(jaxpr.invars, inputs, strict=True))
        env |= {v: constant(c) for v, c in zip(jaxpr.constvars, consts, strict=True)}
        above = self.position

        def value(atom: Any) -> Value:
            return constant(atom.val) if is_literal(atom) else env[atom]

        for number, eqn in enumerate(jaxpr.eqns):
            self.position = (*above, step, number)
            found = self.equation(eqn, [value(a) for a in eqn.invars], scope)
            env |= dict(zip(eqn.outvars, found, strict=True))
        self.position = above
        return [value(a) for a in jaxpr.outvars]

    # -- equations -------------------------------------------------------------------------------

    def equation(self, eq: Any, inputs: list[Value], scope: str) -> list[Value]:
        """Returns the values of an equation's outputs."""
        inner = body(eq)
        if inner is not None:
            return self.inside(inner, inputs, scope, "call")
        avals = eq.avals if isinstance(eq, Flat) else [v.aval for v in eq.outvars]
        shapes = tuple(tuple(getattr(aval, "shape", ())) for aval in avals)
        call = Call(eq.primitive.name, eq.params, shapes, scope)
        prepared = _prepared(call, inputs)
        if call.name == "scan":
            for value, copy in zip(inputs, prepared, strict=True):
                self.link(value, copy, call.why)
        raw = RULES.get(call.name, unknown)(call, prepared, self)
        known, data = (all(v.known for v in inputs), any(v.data for v in inputs))
        chosen = is_chosen(call, inputs)
        found = [
            dataclasses.replace(
                value,
                chosen=value.chosen or chosen,
                axes=settle(value.axes, call.why),
                distinct=value.distinct and _is_fine(aval),
                data=data,
                known=known,
            )
            for value, aval in zip(raw, avals, strict=True)
        ]
        for value, shape in zip(found, shapes, strict=True):
            assert tuple(find(t).size for t in value.axes) == shape, (call.why, value, shape)
            self.seen.append(value.axes)
        if call.name == "scan":  # its steps are recorded one by one
            for made, value in zip(raw, found, strict=True):
                self.link(made, value, call.why)
        else:
            self.records.append(
                Record(call.name, call.params, tuple(inputs), tuple(found), call.why)
            )
        return found

    def leaf(self, number: int) -> Value:
        """Returns a parameter's value: unknown axes, or the same number everywhere."""
        shape = self.program.avals[number].shape
        if number in self._uniform:
            return Value(tuple(map(Wild, shape)), nonzero=True)
        split_at = sorted(
            k[-1] for k in self._split_at if k[:-1] == ("leaf", number) and shape[k[-1]] > 1
        )
        over = {k: Pinned(shape[k], "each place is used by itself", apart=True) for k in split_at}

        def axis(n: int, outer: list[Pinned]) -> Term:
            if not outer:
                return fresh(n)
            return each(outer[0], [axis(n, outer[1:]) for _ in range(outer[0].size)])

        axes = (over.get(i) or axis(n, list(over.values())) for i, n in enumerate(shape))
        distinct = _is_fine(self.program.avals[number])
        return Value(tuple(axes), distinct=distinct, nonzero=True)

    def run(self) -> None:
        """Reads all equations of the program."""
        program, values = self.program, self.values
        values |= {number: self.leaf(number) for number in program.leaves}
        for number in program.inputs:
            given = program.avals[number]
            values[number] = Value(
                fresh_pinned(given.shape, "the input"),
                distinct=_is_fine(given),
                nonzero=True,
                data=True,
            )
        values |= {n: constant(value) for n, value in program.constants.items()}
        self.seen += [value.axes for value in values.values()]
        used = set(program.outputs)
        for number, eq in enumerate(program.equations):
            if self._turn(eq):
                continue
            if eq.outputs[0] in self._same:
                self._copy(self._same[eq.outputs[0]], eq.outputs[0], "a number is added")
                used.update(a for a in eq.inputs if not is_literal(a))
                continue
            given = [constant(a.val) if is_literal(a) else values[a] for a in eq.inputs]
            used.update(a for a in eq.inputs if not is_literal(a))
            flat = Flat(eq.primitive, eq.params, tuple(program.avals[n] for n in eq.outputs))
            self.position = (number,)
            values.update(zip(eq.outputs, self.equation(flat, given, eq.scope), strict=True))
        for output in (values[number] for number in program.outputs):
            pin_all([output], "the output")
            if output.points is not None:
                pin(output.points, "the output")
        pin_all((values[n] for n in program.leaves if n not in used), "never used")
        self.settle_all()
        self._pin_unreached()

    def _turn(self, eq: Equation) -> bool:
        """Passes over an equation of a turn: units stay where they are."""
        (number, *_), values = eq.outputs, self.values
        if number in self._turned:
            turn = self._turned[number]
            for i in turn.places:
                pin(values[turn.source].axes[i], TURN)
            self._copy(turn.source, number, TURN)
            return True
        if number not in self._inside:
            return False
        for n in eq.outputs:  # nothing else looks at them
            values[n] = Value(fresh_pinned(self.program.avals[n].shape, TURN), data=True)
        return True

    def _copy(self, source: int, number: int, why: str) -> None:
        """Reads a value as another one."""
        value = self.values[source]
        made = self.values[number] = dataclasses.replace(value)
        self.seen.append(made.axes)
        self.records.append(Record("copy", {}, (value,), (made,), why))

    def _pin_unreached(self) -> None:
        """Fixes the places of parameters that are cut off unused: rows beyond a text's length, say.

        They could be permuted freely, but nothing would come of it.
        """
        leaves = [self.values[number].axes for number in self.program.leaves]
        held = {id(axes) for axes in leaves}
        computed = [axes for axes in self.seen if id(axes) not in held]
        summed = [terms for pair in (*self.sums, *self.mixed) for terms in pair]
        reached = {a for axes in (*computed, *summed) for term in axes for a in atoms(term)}
        for axes in leaves:
            for term in axes:
                for atom in [a for a in atoms(term) if a not in reached]:
                    pin(atom, "never used")

    def settle_all(self) -> None:
        """Ties what differs in each place of an axis that a value does not have."""
        for value in self.values.values():
            settle(value.axes, "")
        for axes in self.seen:
            settle(axes, "")

    @property
    def apart_keys(self) -> frozenset[Key]:
        """Axes found to stand apart: each of their places is looked at by itself."""
        leaves = [(("leaf", n), self.values[n].axes) for n in self.program.leaves]
        return frozenset(
            (*key, i)
            for key, axes in [*leaves, *self._cut]
            for i, axis in enumerate(axes)
            if len(axes) > 1 and 1 < find(axis).size <= MOST_APART and stands_apart(axis)
        )

    def notes(self) -> tuple[str, ...]:
        """Returns a line for each equation that fixes what another writing would leave free."""
        places: dict[str, list[str]] = {}
        lines = []
        for path, number in zip(self.program.paths, self.program.leaves, strict=True):
            for i, axis in enumerate(self.values[number].axes):
                if find(axis).size > MOST_APART and stands_apart(axis):
                    lines.append(
                        f"{path} axis {i} has more than {MOST_APART} places that are used one by "
                        "one; what stands beside it has one order in all of them"
                    )
                for term in _given_up(axis):
                    places.setdefault(term.reason, []).append(f"{path} axis {i}")
        for reason, held in places.items():
            held = list(dict.fromkeys(held))
            more = f" and {len(held) - 3} more" if len(held) > 3 else ""
            lines.append(f"{reason}; so these axes are fixed: {', '.join(held[:3])}{more}")
        return tuple(lines)


def read(
    program: Program,
    split_at: frozenset[Key],
    uniform: frozenset[int] = frozenset(),
    turns: Sequence[Turn] = (),
    same: Mapping[int, int] = {},
) -> Reading:
    """Reads a program.

    Args:
        program: the network.
        split_at: axes whose places may each hold other axes (`Reading.apart_keys` of the reading
            before).
        uniform: numbers of the leaves that hold one and the same number everywhere.
        turns: where units are turned in pairs; they are read as if nothing were done there.
        same: numbers of values that are read as if they were others, by number.
    """
    reading = Reading(program, split_at, uniform, turns, same)
    reading.run()
    return reading


def _prepared(call: Call, inputs: list[Value]) -> list[Value]:
    """The inputs as the rule understands them; what it does not is tied or pinned."""
    prepared = []
    for value in inputs:
        axes = settle(value.axes, call.why)
        if call.name not in STACKED:
            axes = tuple(collapse_where(t, None, call.why) for t in axes)
        value = dataclasses.replace(value, axes=axes)
        if value.points is not None and call.name not in NUMBERED:
            pin(value.points, f"{call.why} computes with the numbers of places")
            value = dataclasses.replace(value, points=None, wrapped=False)
        prepared.append(value)
    return prepared


def _is_fine(aval: Any) -> bool:
    """Whether numbers of this type are fine enough not to be equal by rounding."""
    dtype = getattr(aval, "dtype", np.float32)
    return jnp.issubdtype(dtype, jnp.inexact) and np.dtype(dtype).itemsize >= 4


def constant(value: Any) -> Value:
    """Returns a known array's value: only along an axis that it varies on do places count.

    Those of an identity matrix may be permuted, in rows and columns alike.
    """
    if jnp.issubdtype(getattr(value, "dtype", np.result_type(value)), jax.dtypes.extended):
        return Value(fresh_pinned(np.shape(value), "a random key"))
    array = np.asarray(value)
    if not array.ndim:
        number = array.item() if array.dtype.kind in "biuf" else None
        return Value((), nonzero=bool(array != 0), number=number, known=True)
    if _has_plain_diagonal(array):
        own = fresh(len(array))
        return Value((own, own), known=True)
    axes = []
    for i, n in enumerate(array.shape):
        varies = array.size and n > 1 and bool((array != np.take(array, [0], i)).any())
        axes.append(pinned(n, "a constant") if varies else Wild(n))
    return Value(tuple(axes), nonzero=bool((array != 0).all()), known=True)


def _has_plain_diagonal(array: np.ndarray) -> bool:
    """Whether a matrix is a multiple of the identity plus a constant."""
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.shape[0] < 2:
        return False
    diagonal = np.eye(len(array), dtype=bool)
    return bool((array[diagonal] == array[0, 0]).all() and (array[~diagonal] == array[0, 1]).all()
                and array[0, 0] != array[0, 1])  # fmt: skip


def stands_apart(axis: Term) -> bool:
    """Whether each place of an axis is looked at by itself."""
    axis = find(axis)
    if isinstance(axis, Pinned):
        return axis.apart
    return isinstance(axis, Sum) and all(p.size == 1 or stands_apart(p) for p in axis.parts)


def _given_up(term: Term) -> Iterator[Pinned]:
    term = find(term)
    if isinstance(term, Pinned) and term.given_up:
        yield term
    for part in parts_of(term):
        yield from _given_up(part)
