"""Activation functions, found from the equations of a trace.

An activation is a value h = f(z): z is one value that depends on the input, f is the same function
of every entry, holds no parameter and is not affine. However it was written, `z * sigmoid(z)` or
`jax.nn.silu`, its equations are those between z and h, and evaluating them on a few numbers names
it. Inside of a norm or a softmax there are such functions as well (a root of a variance, an
exponential); what statistics are made of is no activation. Maxout is found where units of linear
layers are compared.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from llfc_jax.graph.known import POINTS, is_affine, name_function
from llfc_jax.graph.maxout import find_maxouts
from llfc_jax.graph.pointwise import apply_pointwise, uniform
from llfc_jax.graph.statistics import clamps_variance, is_normalising, statistics
from llfc_jax.graph.trace import Atom, Equation, Program, is_literal

UNNAMED = "activation"
LONGEST = 24  # steps of a chain that are looked at one by one


@dataclasses.dataclass(frozen=True)
class Activation:
    """An activation function at one place of a network.

    Attributes:
        function: its name, "activation" where none fits.
        value: number of what it gives.
        inputs: numbers of what goes in.
        body: indices of the equations between the two.
    """

    function: str
    value: int
    inputs: tuple[int, ...]
    body: tuple[int, ...]


class Pointwise:
    """Each value of a program as a function of one value before it, entry by entry.

    Attributes:
        root: for values that depend on x, the number of the first value of which they are such a
            function; their own where there is none.
        numbers: what that function gives at `POINTS`.
        constants: for values alike in all entries that depend on neither x nor leaves, the number.
        maker: index of the equation that gives a value.
        users: indices of the equations that use a value.
    """

    def __init__(self, program: Program, data: frozenset[int]) -> None:
        self.program, self.data = program, data
        self.root = {number: number for number in program.inputs}
        self.numbers: dict[int, np.ndarray] = dict.fromkeys(program.inputs, POINTS)
        self.constants = {
            n: number
            for n, value in program.constants.items()
            if (number := uniform(value)) is not None
        }
        self.maker: dict[int, int] = {}
        self.users: dict[int, list[int]] = defaultdict(list)
        for i, eq in enumerate(program.equations):
            self._follow(i, eq)

    def _follow(self, i: int, eq: Equation) -> None:
        self.maker.update(dict.fromkeys(eq.outputs, i))
        for number in {a for a in eq.inputs if not is_literal(a)}:
            self.users[number].append(i)
        held = [a for a in eq.inputs if not is_literal(a) and a in self.data]
        roots = {self.root[a] for a in held}
        shapes = {self.program.avals[number].shape for number in (*held, *eq.outputs)}
        out = None
        if len(eq.outputs) == 1 and len(roots) < 2 and (not held or len(shapes) == 1):
            out = self.evaluate(eq, self.numbers)
        for number in eq.outputs:
            if not held:
                if out is not None and out.ndim == 0:
                    self.constants[number] = out
            elif out is not None:
                self.root[number] = next(iter(roots))
                self.numbers[number] = np.broadcast_to(out, POINTS.shape)
            else:
                self.root[number], self.numbers[number] = number, POINTS

    def evaluate(self, eq: Equation, numbers: Mapping[int, np.ndarray]) -> np.ndarray | None:
        """Evaluates an equation on numbers; None where it is not elementwise or holds others."""
        return apply_pointwise(eq, [self._read(a, numbers) for a in eq.inputs])

    def _read(self, atom: Atom, numbers: Mapping[int, np.ndarray]) -> np.ndarray | None:
        if isinstance(atom, core.Literal):
            return uniform(atom.val)
        return self.constants.get(atom, numbers.get(atom) if atom in self.data else None)

    def leaves_chain(self, number: int) -> bool:
        """Returns whether a value is used by other than elementwise functions of its root."""
        outside = any(
            self.root.get(out) != self.root[number]
            for i in self.users[number]
            for out in self.program.equations[i].outputs
        )
        return outside or number in self.program.outputs

    def cone(self, start: int, end: int) -> tuple[int, ...]:
        """Returns the indices of the equations between two values, with those of constants."""
        found, queue = set[int](), [end]
        while queue:
            number = queue.pop()
            i = self.maker.get(number)
            if number == start or i is None or i in found:
                continue
            found.add(i)
            queue += [a for a in self.program.equations[i].inputs if not is_literal(a)]
        return tuple(sorted(found))

    def narrows(self, start: int, end: int, body: tuple[int, ...]) -> list[int]:
        """Returns the values between two through which all of the second passes, both included."""
        inside = {start, *(n for i in body for n in self.program.equations[i].outputs)} & self.data
        within = set(body)
        last = {n: max(within.intersection(self.users[n]), default=-1) for n in inside}
        chain, reach = [start], last[start]
        for i in body:
            number = self.program.equations[i].outputs[0]
            if number not in inside:  # a constant
                continue
            if reach <= i:
                chain.append(number)
            reach = max(reach, last[number])
        return chain

    def between(self, start: int, body: tuple[int, ...]) -> dict[int, np.ndarray]:
        """Returns what the values of a body are as functions of its first one, at `POINTS`."""
        numbers = {start: POINTS}
        for i in body:
            eq = self.program.equations[i]
            if (out := self.evaluate(eq, numbers)) is not None:
                numbers[eq.outputs[0]] = out
        return numbers


def find_activations(
    program: Program,
    data: frozenset[int],
    parametric: frozenset[int],
    above: Mapping[int, int],
    weights: Mapping[int, int],
) -> tuple[Activation, ...]:
    """Finds the activation functions of a network, in the order in which they are computed.

    Args:
        program: the flat trace.
        data: numbers of the values that depend on x.
        parametric: numbers of the values that depend on leaves.
        above: for each value, the index of the latest linear equation that it depends on.
        weights: which input is the weight, for each linear equation.
    """
    points = Pointwise(program, data)
    found: dict[int, Activation] = {}
    for value in points.numbers:
        if points.root[value] == value or is_affine(points.numbers[value]):
            continue
        if points.leaves_chain(value):
            for one in _along(points, points.root[value], value):
                found.setdefault(one.value, one)
    made_of = statistics(program, data)
    kept = [
        one for one in found.values() if _is_activation(points, one, parametric, made_of, above)
    ]
    kept += [
        Activation("maxout", *m) for m in find_maxouts(program, points.root, points.users, weights)
    ]
    return tuple(sorted(kept, key=lambda one: points.maker[one.value]))


def _is_activation(
    points: Pointwise,
    one: Activation,
    parametric: frozenset[int],
    made_of: frozenset[int],
    above: Mapping[int, int],
) -> bool:
    program, (source,) = points.program, one.inputs
    if not all(jnp.issubdtype(program.avals[n].dtype, jnp.floating) for n in (source, one.value)):
        return False
    if one.function == "relu":
        return not clamps_variance(program, points.users, one.value)
    if source not in parametric:
        return False
    if one.function != UNNAMED:
        return True
    if source in made_of:
        return False
    given = points.between(source, one.body)[one.value]
    with np.errstate(all="ignore"):
        exponential = is_affine(np.log(given))
    through = (source, one.value)
    return not is_normalising(program, points.users, through, made_of, above, exponential)


def _along(points: Pointwise, root: int, value: int) -> Iterator[Activation]:
    """Yields the activations on the way from a root to a value that is a function of it."""
    chain = points.narrows(root, value, points.cone(root, value))[-LONGEST:]
    yield from _split(points, chain)


def _split(points: Pointwise, chain: list[int]) -> Iterator[Activation]:
    """Names a chain of values as one activation, or as several one after the other."""
    spans = _Spans(points, chain)
    last = len(chain) - 1
    if last < 1 or spans.affine(0, last):
        return
    starts = [i for i in range(last) if spans.affine(0, i)]
    ends = [j for j in range(1, last + 1) if spans.affine(j, last)]
    widest = sorted(((i, j) for i in starts for j in ends if i < j), key=lambda s: s[0] - s[1])
    for i, j in widest:
        if spans.name(i, j):
            yield spans.activation(*_tighten(spans, i, j))
            return
    core = (starts[-1], ends[0])
    for j in range(core[0] + 1, core[1]):  # a ReLU on the way, or what is used beside
        relu = next((i for i in range(j - 1, -1, -1) if spans.name(i, j) == "relu"), None)
        if relu is not None or (points.leaves_chain(chain[j]) and not spans.affine(0, j)):
            at = j - 1 if relu is None else relu
            if relu is not None:
                yield from _split(points, chain[: at + 1])
                yield spans.activation(at, j)
            else:
                yield from _split(points, chain[: j + 1])
            yield from _split(points, chain[j:])
            return
    yield spans.activation(*core)


def _tighten(spans: "_Spans", i: int, j: int) -> tuple[int, int]:
    """Returns the shortest part of a span that has the same name."""
    name, last = spans.name(i, j), j
    inner = [(p, q) for p in range(i, last) for q in range(p + 1, last + 1)]
    return min((s for s in inner if spans.name(*s) == name), key=lambda s: s[1] - s[0])


class _Spans:
    """The parts of a chain of values, each as a function of its first value."""

    def __init__(self, points: Pointwise, chain: list[int]) -> None:
        self.points, self.chain = points, chain
        whole = points.cone(chain[0], chain[-1])
        self.numbers = [points.between(start, whole) for start in chain]
        dtypes = [points.program.avals[number].dtype for number in self.numbers[0]]
        self.eps = max((float(jnp.finfo(d).eps) for d in dtypes
                        if jnp.issubdtype(d, jnp.floating)), default=0.0)  # fmt: skip
        self.names: dict[tuple[int, int], str | None] = {}

    def affine(self, i: int, j: int) -> bool:
        return i == j or is_affine(self.numbers[i][self.chain[j]])

    def name(self, i: int, j: int) -> str | None:
        if (i, j) not in self.names:
            values = np.broadcast_to(self.numbers[i][self.chain[j]], POINTS.shape)
            self.names[i, j] = name_function(values, self.eps)
        return self.names[i, j]

    def activation(self, i: int, j: int) -> Activation:
        start, end = self.chain[i], self.chain[j]
        name = self.name(i, j) or UNNAMED
        return Activation(name, end, (start,), self.points.cone(start, end))
