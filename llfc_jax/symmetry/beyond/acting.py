"""Reads how each equation lets groups act beyond permutations: what the rules share.

The rules of `rules` say which units may trade places; those of `equations` say what else may be
done to them. A primitive without a rule there lets units trade places, where its own rule does,
and no more. Each rule joins the nodes of its operands and results (`Actions.join`), or limits them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import jax.numpy as jnp

from llfc_jax.symmetry.beyond.mentions import align, follow, mentions
from llfc_jax.symmetry.beyond.unknowns import Actions, Node
from llfc_jax.symmetry.reading import Reading
from llfc_jax.symmetry.terms import Each, Term, find
from llfc_jax.symmetry.values import Record, Value

Acts = Callable[["Acting", Record], None]
ACTS: dict[str, Acts] = {}


def acts(*names: str) -> Callable[[Acts], Acts]:
    """Registers how groups act through some primitives."""

    def register(function: Acts) -> Acts:
        ACTS.update(dict.fromkeys(names, function))
        return function

    return register


class Acting:
    """Reads what equations allow groups, one after the other.

    Attributes:
        actions: what was found.
        gains: leaves by which a value is multiplied along a group's axis: (node of the product's
            factor, number of the leaf).
    """

    def __init__(self, reading: Reading, rules: Mapping[str, Acts]) -> None:
        self.actions = Actions()
        self.gains: list[tuple[Node, int]] = []
        self._zeros: set[int] = set()
        self._origin: dict[int, int] = {}  # the leaf that a value holds the numbers of
        program, values = reading.program, reading.values
        self._steady = _steady(reading.records)
        self._made = {id(values[n]) for n in (*program.leaves, *program.inputs, *program.constants)}
        self._origin = {id(values[n]): i for i, n in enumerate(program.leaves)}
        for number in program.leaves:
            if not jnp.issubdtype(program.avals[number].dtype, jnp.inexact):
                self.freeze(values[number], "whole numbers")
        for record in reading.records:
            for value in record.inputs:
                if id(value) not in self._made:
                    self._made.add(id(value))
                    self.freeze(value, record.why)
            rules.get(record.name, nothing_more)(self, record)
            self._made.update(map(id, record.outputs))
        for number in program.constants:
            self.freeze(values[number], "a constant")

    # -- what rules share ------------------------------------------------------------------------

    def freeze(self, value: Value, why: str) -> None:
        """Lets nothing but permutations act on a value."""
        for node in self.actions.nodes(value):
            self.actions.freeze(node, why)

    def is_zero(self, value: Value) -> bool:
        """Whether a value is zero everywhere."""
        return id(value) in self._zeros or (value.number is not None and value.number == 0)

    def handed_on(self, record: Record) -> None:
        """The result holds the numbers of the first operand, laid out anew."""
        source, (made, *_) = record.inputs[0], record.outputs
        if id(made) in self._made:
            return
        if self.is_zero(source) and id(made) not in self._steady:
            self._zeros.add(id(made))
        if id(source) in self._origin:
            self._origin[id(made)] = self._origin[id(source)]

    def origin(self, value: Value) -> int | None:
        """Returns the leaf whose numbers a value holds along its groups."""
        return self._origin.get(id(value))

    def along(
        self, first: Value, i: int, second: Value, j: int, why: str, *, whole: bool = True
    ) -> None:
        """Axis j of a result holds what axis i of an operand does, or a part of it.

        `whole`: the result holds nothing else there.
        """
        before, after = mentions(first.axes[i]), mentions(second.axes[j])
        alike = before == after
        for mention in after:
            made = self.actions.node(second, j, mention)
            sources = [mention] if alike else [m for m in before if m[0] is mention[0]]
            for source in sources:
                self.actions.linear(self.actions.node(first, i, source), made, why)
            if whole and not sources:
                self.actions.freeze(made, why)

    def laid_out(self, record: Record, lay_out: Callable[[list[Value]], Sequence[Value]]) -> None:
        """The results hold the operands' numbers, laid out anew."""
        actions, found = self.actions, follow(record, lay_out)
        if found is None:  # all mentions of a group are one then
            before, after = (
                [
                    (number, i, mention)
                    for number, value in enumerate(values)
                    for i, term in enumerate(value.axes)
                    for mention in mentions(term)
                ]
                for values in (record.inputs, record.outputs)
            )
            found = [(p, q) for p in before for q in after if p[2][0] is q[2][0]]
        for (number, i, mention), (place, j, now) in found:
            own = actions.node(record.inputs[number], i, mention)
            actions.linear(own, actions.node(record.outputs[place], j, now), record.why)

    def aligned(
        self, operand: Value, axis: int, made: Value
    ) -> list[tuple[Node | None, Node]] | None:
        """Returns, for each mention along an axis of a result, the operand's node beside it.

        None beside a mention: the operand does not vary there. None for all: the operand and the
        result are laid out differently, and nothing but permutations acts on both.
        """
        actions, whole = self.actions, made.axes[axis]
        if not operand.axes or find(operand.axes[axis]).size != find(whole).size:
            return [(None, node) for node in actions.along(made, axis)]
        pairs = align(operand.axes[axis], whole)
        if pairs is None or any(theirs is None for _, theirs in pairs):
            return None
        return [
            (ours and actions.node(operand, axis, ours), actions.node(made, axis, theirs))
            for ours, theirs in pairs
            if theirs is not None
        ]

    def freeze_all(self, values: Iterable[Value], why: str) -> None:
        """Lets nothing but permutations act on several values."""
        for value in values:
            self.freeze(value, why)

    def added(self, operands: Sequence[Value], made: Value, axes: Sequence[int], why: str) -> None:
        """The result is a sum of operands, or one of them from place to place."""
        actions = self.actions
        for i in axes:
            for value in operands:
                pairs = self.aligned(value, i, made)
                if pairs is None:
                    self.freeze_all((value, made), why)
                    continue
                for own, node in pairs:
                    if own is not None:
                        actions.linear(own, node, why)
                    elif not self.is_zero(value):
                        actions.keep_ones(node, why)

    def beside(self, value: Value, i: int, made: Value, j: int, over: Term, why: str) -> None:
        """Axis j of a result holds axis i of an operand in some places of another axis."""
        whole = find(made.axes[j])
        if isinstance(whole, Each) and find(whole.over) is find(over):
            return  # what is in the other operands' places does not act here
        pairs = align(value.axes[i], whole)
        if pairs is None:
            self.freeze_all((value, made), why)
            return
        for own, mention in pairs:
            if own is None and mention is not None and not self.is_zero(value):
                self.actions.keep_ones(self.actions.node(made, j, mention), why)

    def multiplied(
        self, operands: Sequence[Value], powers: Sequence[int], made: Value, axis: int, why: str
    ) -> None:
        """The result is a product of operands, to these powers, unit by unit."""
        held: dict[Node, list[tuple[Value, int, Node]]] = {
            node: [] for node in self.actions.along(made, axis)
        }
        for value, power in zip(operands, powers, strict=True):
            pairs = self.aligned(value, axis, made)
            if pairs is None:
                self.freeze_all((*operands, made), why)
                return
            for own, node in pairs:
                if own is not None:
                    held[node].append((value, power, own))
        for node, factors in held.items():
            self._multiplied(node, factors, made, why)

    def _multiplied(
        self, node: Node, held: list[tuple[Value, int, Node]], made: Value, why: str
    ) -> None:
        actions = self.actions
        if len(held) == 1 and held[0][1] == 1:
            actions.linear(held[0][2], node, why)
            origin = self.origin(held[0][0])
            if origin is not None:
                self._origin[id(made)] = origin
            return
        squared = len(held) == 2 and held[0] == held[1] and held[0][1] == 1
        row: dict[Node, int] = {node: -1}
        for value, power, own in held:
            row[own] = row.get(own, 0) + power
            if not squared or actions.is_square(own):
                actions.limit(own, "none", why)
            origin = self.origin(value)
            if origin is not None and power == 1 and len(held) == 2:
                self.gains.append((own, origin))
        if squared:
            actions.square(node)
        actions.relate_scales(row)
        actions.relate_signs(row)

    def summed(self, node: Node, why: str) -> None:
        """All units of a group along an axis are added up."""
        actions = self.actions
        if actions.is_square(node):
            actions.limit(node, "orthogonal", why)
            actions.relate_scales({node: 1})
        else:
            actions.keep_ones(node, why)

    def contracted(self, left: Value, i: int, right: Value, j: int, why: str) -> None:
        """Two axes are summed over together."""
        actions, pairs = self.actions, align(left.axes[i], right.axes[j])
        if pairs is None:
            self.freeze_all((left, right), why)
            return
        for ours, theirs in pairs:
            first = ours and actions.node(left, i, ours)
            second = theirs and actions.node(right, j, theirs)
            if first is None or second is None:
                for node in (first, second):
                    if node is not None:
                        self.summed(node, why)
                continue
            self.contract(first, second, why)

    def contract(self, first: Node, second: Node, why: str) -> None:
        """Two operands' units are summed over together."""
        if self.actions.is_square(first) or self.actions.is_square(second):
            self.actions.limit(first, "none", why)
        self.actions.join(first, second, why, dual=True)

    def batched(self, operands: Sequence[Value], axes: Sequence[int], made: Value, axis: int,
                why: str) -> None:  # fmt: skip
        """Axes stand side by side in two operands and in the result."""
        actions, held = self.actions, {node: [] for node in self.actions.along(made, axis)}
        for value, i in zip(operands, axes, strict=True):
            pairs = align(value.axes[i], made.axes[axis])
            if pairs is None or any(theirs is None for _, theirs in pairs):
                self.freeze_all((*operands, made), why)
                return
            for ours, theirs in pairs:
                if ours is not None and theirs is not None:
                    node = actions.node(made, axis, theirs)
                    held[node].append((value, 1, actions.node(value, i, ours)))
        for node, factors in held.items():
            if len(factors) == 1:
                actions.linear(factors[0][2], node, why)
                continue
            row: dict[Node, int] = {node: -1}
            for _, _, own in factors:
                row[own] = row.get(own, 0) + 1
            for own in row:
                actions.limit(own, "none", why)
            actions.relate_scales(row)
            actions.relate_signs(row)


def _steady(records: Iterable[Record]) -> set[int]:
    """What a scan carries into a step that stands for all further ones: zero there at first only.

    The identities of values; a link to a value that is known already says so.
    """
    made: set[int] = set()
    steady: set[int] = set()
    for record in records:
        if record.name == "link" and id(record.outputs[0]) in made:
            steady.add(id(record.inputs[0]))
        made.update(map(id, record.outputs))
    return steady


def nothing_more(acting: Acting, record: Record) -> None:
    """Lets nothing but permutations act on what an equation touches."""
    acting.freeze_all((*record.inputs, *record.outputs), record.why)
