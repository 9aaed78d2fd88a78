"""How each primitive lets groups act beyond permutations.

The rules of `rules` say which units may trade places; those here say what else may be done to
them. A primitive without a rule here lets units trade places, where its own rule does, and no
more. Each rule joins the nodes of its operands and results (`Actions.join`), or limits them.
"""

from collections.abc import Callable, Iterable, Sequence

import jax.numpy as jnp
import numpy as np

from llfc_jax.symmetry.beyond.unknowns import Actions, Node, group_atoms
from llfc_jax.symmetry.reading import Reading
from llfc_jax.symmetry.terms import (
    Each,
    Sum,
    Term,
    Unknown,
    atoms,
    factors,
    find,
    is_wild,
    product,
    same,
)
from llfc_jax.symmetry.values import Record, Value

Acts = Callable[["Acting", Record], None]
ACTS: dict[str, Acts] = {}

# fmt: off
IDENTITIES = ("copy", "copy_p", "stop_gradient", "reduce_precision", "name", "pvary",
              "sharding_constraint", "optimization_barrier", "device_put", "neg", "real", "imag",
              "conj")
ODD = ("tanh", "sin", "tan", "sinh", "asinh", "asin", "atan", "atanh", "erf", "erf_inv")
EVEN = ("cos", "cosh")
# fmt: on


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

    def __init__(self, reading: Reading) -> None:
        self.actions = Actions()
        self.gains: list[tuple[Node, int]] = []
        self._zeros: set[int] = set()
        self._origin: dict[int, int] = {}  # the leaf that a value holds the numbers of
        program, values = reading.program, reading.values
        made = {id(values[n]) for n in (*program.leaves, *program.inputs, *program.constants)}
        self._origin = {id(values[n]): i for i, n in enumerate(program.leaves)}
        for number in program.leaves:
            if not jnp.issubdtype(program.avals[number].dtype, jnp.inexact):
                self.freeze(values[number], "whole numbers")
        for record in reading.records:
            for value in record.inputs:
                if id(value) not in made:
                    made.add(id(value))
                    self.freeze(value, record.why)
            made.update(map(id, record.outputs))
            ACTS.get(record.name, _nothing_more)(self, record)
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
        if self.is_zero(source):
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
        held = set(group_atoms(first, i))
        for atom in group_atoms(second, j):
            made = self.actions.node(second, j, atom)
            if atom in held:
                self.actions.linear(self.actions.node(first, i, atom), made, why)
            elif whole:
                self.actions.freeze(made, why)

    def columns(
        self, operands: Sequence[Value], made: Value, axis: int, atom: Unknown
    ) -> tuple[list[Value], list[Value]] | None:
        """Returns the operands that carry a group along an axis, and those that do not vary there.

        None where an operand carries it in a part of the axis only.
        """
        carry: list[Value] = []
        uniform: list[Value] = []
        whole = made.axes[axis]
        for value in operands:
            term = value.axes[axis] if value.axes else None
            if term is None or find(term).size != find(whole).size:
                uniform.append(value)
                continue
            found = roles(term, whole)
            if found is None or not found[atom][1]:
                return None
            (carry if found[atom][0] else uniform).append(value)
        return carry, uniform

    def added(self, operands: Sequence[Value], made: Value, axes: Sequence[int], why: str) -> None:
        """The result is a sum of operands, or one of them from place to place."""
        actions = self.actions
        for i in axes:
            for atom in group_atoms(made, i):
                node, columns = actions.node(made, i, atom), self.columns(operands, made, i, atom)
                if columns is None:
                    for value in (*operands, made):
                        self.freeze(value, why)
                    continue
                carry, uniform = columns
                for value in carry:
                    actions.linear(actions.node(value, i, atom), node, why)
                if any(not self.is_zero(value) for value in uniform):
                    actions.keep_ones(node, why)

    def beside(self, value: Value, i: int, made: Value, j: int, place: int, why: str) -> None:
        """Axis j of a result holds axis i of an operand in one place of another axis."""
        actions, whole = self.actions, find(made.axes[j])
        if isinstance(whole, Each) and len(whole.parts) > place:
            whole = whole.parts[place]
        found = roles(value.axes[i], whole)
        if found is None:
            for each in (value, made):
                self.freeze(each, why)
            return
        for atom, (in_value, _) in found.items():
            node = actions.node(made, j, atom)
            if in_value:
                actions.linear(actions.node(value, i, atom), node, why)
            elif not self.is_zero(value):
                actions.keep_ones(node, why)

    def multiplied(
        self, operands: Sequence[Value], powers: Sequence[int], made: Value, axis: int, why: str
    ) -> None:
        """The result is a product of operands, to these powers, unit by unit."""
        actions = self.actions
        for atom in group_atoms(made, axis):
            node = actions.node(made, axis, atom)
            columns = self.columns(operands, made, axis, atom)
            if columns is None:
                for value in (*operands, made):
                    self.freeze(value, why)
                continue
            held = [(v, p) for v, p in zip(operands, powers, strict=True) if v in columns[0]]
            if len(held) == 1 and held[0][1] == 1:
                self.actions.linear(actions.node(held[0][0], axis, atom), node, why)
                origin = self.origin(held[0][0])
                if origin is not None:
                    self._origin[id(made)] = origin
                continue
            squared = len(held) == 2 and held[0][0] is held[1][0] and powers == (1, 1)
            row: dict[Node, int] = {node: -1}
            for value, power in held:
                own = actions.node(value, axis, atom)
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

    def summed(self, value: Value, axis: int, atom: Unknown, why: str) -> None:
        """All units of a group along an axis are added up."""
        actions = self.actions
        node = actions.node(value, axis, atom)
        if actions.is_square(node):
            actions.limit(node, "orthogonal", why)
            actions.relate_scales({node: 1})
        else:
            actions.keep_ones(node, why)

    def contracted(self, left: Value, i: int, right: Value, j: int, why: str) -> None:
        """Two axes are summed over together."""
        actions, found = self.actions, roles(left.axes[i], right.axes[j])
        if found is None:
            for value in (left, right):
                self.freeze(value, why)
            return
        for atom, (in_left, in_right) in found.items():
            if not in_left:
                self.summed(right, j, atom, why)
            elif not in_right:
                self.summed(left, i, atom, why)
            else:
                pair = (actions.node(left, i, atom), actions.node(right, j, atom))
                if any(map(actions.is_square, pair)):
                    actions.limit(pair[0], "none", why)
                actions.join(*pair, why, dual=True)

    def batched(self, operands: Sequence[Value], axes: Sequence[int], made: Value, axis: int,
                why: str) -> None:  # fmt: skip
        """Axes stand side by side in two operands and in the result."""
        actions = self.actions
        (left, right), (i, j) = operands, axes
        found = roles(left.axes[i], right.axes[j])
        if found is None:
            for value in (left, right, made):
                self.freeze(value, why)
            return
        for atom in group_atoms(made, axis):
            node = actions.node(made, axis, atom)
            in_left, in_right = found.get(atom, (False, False))
            row: dict[Node, int] = {node: -1}
            for value, k, held in ((left, i, in_left), (right, j, in_right)):
                if held:
                    own = actions.node(value, k, atom)
                    row[own] = row.get(own, 0) + 1
            if in_left and in_right:
                for own in row:
                    actions.limit(own, "none", why)
                actions.relate_scales(row)
                actions.relate_signs(row)
            elif in_left or in_right:
                own = next(n for n in row if n != node)
                self.actions.linear(own, node, why)
            else:
                actions.freeze(node, why)


def roles(s: Term, t: Term) -> dict[Unknown, tuple[bool, bool]] | None:
    """Returns for each group along two axes of the same places whether each of the two varies.

    None where they are laid out differently.
    """
    s, t = find(s), find(t)
    if is_wild(s) or is_wild(t):
        held = (not is_wild(s), not is_wild(t))
        return dict.fromkeys((*atoms(s), *atoms(t)), held)
    if same(s, t):
        return dict.fromkeys(atoms(s), (True, True))
    if isinstance(s, Sum) and isinstance(t, Sum):
        alike = np.array_equal(s.labels, t.labels)
        return _together(zip(s.parts, t.parts, strict=True)) if alike else None
    if isinstance(s, Each) and isinstance(t, Each):
        alike = find(s.over) is find(t.over)
        return _together(zip(s.parts, t.parts, strict=True)) if alike else None
    pieces = _matched(factors(s), factors(t))
    return None if pieces is None else _together(pieces)


def _together(pieces: Iterable[tuple[Term, Term]]) -> dict[Unknown, tuple[bool, bool]] | None:
    """The roles in all pieces, where they agree."""
    whole: dict[Unknown, tuple[bool, bool]] = {}
    for s, t in pieces:
        found = roles(s, t)
        if found is None or any(whole.get(atom, role) != role for atom, role in found.items()):
            return None
        whole |= found
    return whole


def _matched(ours: list[Term], theirs: list[Term]) -> list[tuple[Term, Term]] | None:
    """Factors of the same sizes side by side; one that does not vary may stand beside several."""
    if len(ours) == len(theirs) == 1:
        return None
    pieces: list[tuple[Term, Term]] = []
    while ours and theirs:
        (s, *ours), (t, *theirs) = ours, theirs
        while s.size != t.size:
            small, rest = (s, ours) if s.size < t.size else (t, theirs)
            large = t if small is s else s
            if not is_wild(large) or not rest:
                return None
            grown = product([small, rest.pop(0)])
            s, t = (grown, t) if small is s else (s, grown)
        pieces.append((s, t))
    return None if ours or theirs else pieces


def _nothing_more(acting: Acting, record: Record) -> None:
    for value in (*record.inputs, *record.outputs):
        acting.freeze(value, record.why)


# -- numbers that stay where they are ------------------------------------------------------------


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
    (_identity if fine else _nothing_more)(acting, record)


@acts("link")
def _link(acting: Acting, record: Record) -> None:
    (value,), (made,) = record.inputs, record.outputs
    shift = len(made.axes) - len(value.axes)
    for i in range(len(value.axes)):
        if 0 <= i + shift < len(made.axes):
            acting.along(value, i, made, i + shift, record.why, whole=False)
    if shift == 0:
        acting.handed_on(record)


# -- arithmetic ----------------------------------------------------------------------------------


@acts("add", "sub", "add_any")
def _add(acting: Acting, record: Record) -> None:
    (made,) = record.outputs
    acting.added(record.inputs, made, range(len(made.axes)), record.why)


@acts("select_n")
def _select(acting: Acting, record: Record) -> None:
    (which, *cases), (made,) = record.inputs, record.outputs
    _add(acting, Record("add", {}, tuple(cases), (made,), record.why))
    for node in acting.actions.nodes(which):
        acting.actions.freeze(node, record.why)
    for i in range(len(which.axes)):
        for atom in group_atoms(which, i):
            acting.actions.limit(acting.actions.node(made, i, atom), "none", record.why)


@acts("mul", "div")
def _multiply(acting: Acting, record: Record) -> None:
    (made,) = record.outputs
    powers = (1, 1 if record.name == "mul" else -1)
    for i in range(len(made.axes)):
        acting.multiplied(record.inputs, powers, made, i, record.why)


@acts("square", "integer_pow", "pow", "sqrt", "rsqrt", "cbrt", "abs", "sign")
def _power(acting: Acting, record: Record) -> None:
    actions, value, (made,) = acting.actions, record.inputs[0], record.outputs
    exponent = {"square": 2, "sqrt": 0.5, "rsqrt": -0.5, "abs": 1, "sign": 0}.get(record.name)
    if record.name == "integer_pow":
        exponent = record.params["y"]
    if exponent is None:  # a cube root's exponent is no exact number; pow has one of its own
        return _nothing_more(acting, record)
    for i in range(len(made.axes)):
        for atom in group_atoms(made, i):
            node, own = actions.node(made, i, atom), actions.node(value, i, atom)
            if exponent == 2 and not actions.is_square(own):
                actions.square(node)
            else:
                actions.limit(own, "none", record.why)
            actions.relate_scales({node: -2, own: int(2 * exponent)})
            if record.name in ("sqrt", "rsqrt"):
                actions.relate_signs({own: 1})
            odd = record.name == "sign" or (record.name == "integer_pow" and exponent % 2 == 1)
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
    for i in range(len(made.axes)):
        for atom in group_atoms(made, i):
            columns = acting.columns(record.inputs, made, i, atom)
            if columns is None or not all(map(acting.is_zero, columns[1])):
                return _nothing_more(acting, record)
            held = [actions.node(value, i, atom) for value in columns[0]]
            for other in held:
                actions.limit(other, "none", record.why)
                actions.relate_signs({other: 1})
                if other != held[0]:
                    actions.relate_scales({other: 1, held[0]: -1})
    acting.freeze(made, record.why)


@acts(*ODD, *EVEN)
def _odd_or_even(acting: Acting, record: Record) -> None:
    """A change of sign goes through, or vanishes."""
    actions, (value,), (made,) = acting.actions, record.inputs, record.outputs
    for i in range(len(made.axes)):
        for atom in group_atoms(made, i):
            node, own = actions.node(made, i, atom), actions.node(value, i, atom)
            for each in (node, own):
                actions.limit(each, "none", record.why)
                actions.relate_scales({each: 1})
            actions.relate_signs({node: 1, own: 1} if record.name in ODD else {node: 1})


# -- products and sums ---------------------------------------------------------------------------


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
    if record.params["feature_group_count"] != 1 or record.params["batch_group_count"] != 1:
        return _nothing_more(acting, record)
    acting.contracted(given, numbers.lhs_spec[1], kernel, numbers.rhs_spec[1], record.why)
    acting.along(given, numbers.lhs_spec[0], made, numbers.out_spec[0], record.why)
    acting.along(kernel, numbers.rhs_spec[0], made, numbers.out_spec[1], record.why)


@acts("reduce_sum", "reduce_max", "reduce_min")
def _reduce(acting: Acting, record: Record) -> None:
    (value,), (made,) = record.inputs, record.outputs
    gone = record.params["axes"]
    kept = [i for i in range(len(value.axes)) if i not in gone]
    for place, i in enumerate(kept):
        acting.along(value, i, made, place, record.why)
    if record.name == "reduce_sum":
        for i in gone:
            for atom in group_atoms(value, i):
                acting.summed(value, i, atom, record.why)
        return
    for node in acting.actions.nodes(value):
        acting.actions.limit(node, "none", record.why)
        acting.actions.relate_signs({node: 1})
    for i in gone:
        for atom in group_atoms(value, i):
            acting.actions.freeze(acting.actions.node(value, i, atom), record.why)


@acts("cumsum", "reduce_window_sum")
def _running_sum(acting: Acting, record: Record) -> None:
    """Sums along axes that hold no group: those that do stay as they are."""
    _identity(acting, record)


# -- layouts -------------------------------------------------------------------------------------


@acts("transpose")
def _transpose(acting: Acting, record: Record) -> None:
    (value,), (made,) = record.inputs, record.outputs
    for place, i in enumerate(record.params["permutation"]):
        acting.along(value, i, made, place, record.why)
    acting.handed_on(record)


@acts("broadcast_in_dim")
def _broadcast(acting: Acting, record: Record) -> None:
    value, (made,) = record.inputs[0], record.outputs
    for i, place in enumerate(record.params["broadcast_dimensions"]):
        acting.along(value, i, made, place, record.why)
    acting.handed_on(record)


@acts("reshape", "squeeze", "expand_dims")
def _reshape(acting: Acting, record: Record) -> None:
    """Groups follow each other in the same order before and after."""
    value, (made,) = record.inputs[0], record.outputs
    acting.handed_on(record)
    before, after = (
        [(i, atom) for i in range(len(v.axes)) for atom in group_atoms(v, i)] for v in (value, made)
    )
    pairs = [(p, q) for p in before for q in after if p[1] is q[1]]
    if [atom for _, atom in before] == [atom for _, atom in after]:
        pairs = list(zip(before, after, strict=True))
    for (i, atom), (j, _) in pairs:
        node, own = acting.actions.node(made, j, atom), acting.actions.node(value, i, atom)
        acting.actions.linear(own, node, record.why)


@acts("slice", "split", "rev")
def _slice(acting: Acting, record: Record) -> None:
    for made in record.outputs:
        for i in range(len(made.axes)):
            acting.along(record.inputs[0], i, made, i, record.why)
    acting.handed_on(record)


@acts("dynamic_slice")
def _dynamic_slice(acting: Acting, record: Record) -> None:
    _slice(acting, record)
    for value in record.inputs[1:]:
        acting.freeze(value, record.why)


@acts("unstack")
def _unstack(acting: Acting, record: Record) -> None:
    (value,) = record.inputs
    gone = record.params["axis"] % len(value.axes)
    for made in record.outputs:
        kept = [i for i in range(len(value.axes)) if i != gone]
        for place, i in enumerate(kept):
            acting.along(value, i, made, place, record.why)


@acts("concatenate")
def _concatenate(acting: Acting, record: Record) -> None:
    (made,), along = record.outputs, record.params["dimension"]
    others = [i for i in range(len(made.axes)) if i != along]
    _side_by_side(acting, record, others, others)
    for value in record.inputs:
        acting.along(value, along, made, along, record.why, whole=False)


@acts("stack")
def _stack(acting: Acting, record: Record) -> None:
    (made,), along = record.outputs, record.params["axis"] % len(record.outputs[0].axes)
    others = [i for i in range(len(made.axes)) if i != along]
    _side_by_side(acting, record, range(len(others)), others)


def _side_by_side(
    acting: Acting, record: Record, before: Sequence[int], after: Sequence[int]
) -> None:
    """Operands laid side by side along another axis take the same action along this one."""
    (made,) = record.outputs
    for i, j in zip(before, after, strict=True):
        for place, value in enumerate(record.inputs):
            acting.beside(value, i, made, j, place, record.why)


@acts("pad")
def _pad(acting: Acting, record: Record) -> None:
    value, padding = record.inputs
    if not acting.is_zero(padding):
        return _nothing_more(acting, record)
    for i in range(len(value.axes)):
        acting.along(value, i, record.outputs[0], i, record.why)


@acts("gather")
def _gather(acting: Acting, record: Record) -> None:
    """Whole slices of a table stay as they are."""
    (table, index), (made,) = record.inputs, record.outputs
    filled = record.params.get("fill_value")  # stands for what is looked up beyond the end
    if filled and not np.isnan(filled):
        return _nothing_more(acting, record)
    numbers = record.params["dimension_numbers"]
    batched = tuple(getattr(numbers, "operand_batching_dims", ()))
    acting.freeze(index, record.why)
    kept = [i for i in range(len(table.axes)) if i not in (*numbers.collapsed_slice_dims, *batched)]
    for i in set(range(len(table.axes))) - set(kept):
        for atom in group_atoms(table, i):
            acting.actions.freeze(acting.actions.node(table, i, atom), record.why)
    offsets = dict(zip(numbers.offset_dims, kept, strict=True))
    for place in range(len(made.axes)):
        if place in offsets:
            acting.along(table, offsets[place], made, place, record.why)
        else:
            for atom in group_atoms(made, place):
                acting.actions.freeze(acting.actions.node(made, place, atom), record.why)
