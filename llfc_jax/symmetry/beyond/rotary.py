"""Rotary embeddings: what may be done to queries and keys that are turned by their positions.

A rotary embedding takes the width of a head to pairs of units and turns each pair by an angle that
depends on the position (Su et al. 2021). At every position it is a linear map L along one axis.
What commutes with all of them passes through: `L M = M L`. If each L consists of blocks

    [[a, -b],
     [b,  a]]

on the same pairs, those are the scaled rotations of each pair, M. Queries take M, keys its inverse
transpose, M / (scale)², which is of the same kind.

`find_turns` finds such maps in a trace: a value from which another of the same shape is computed
by equations that are linear in it, the rest being constants. The map itself is then measured, unit
by unit; what is measured must be blocks as above at every position, and nothing else.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.graph import Graph
from llfc_jax.graph.trace import Equation, Program, is_literal
from llfc_jax.symmetry.values import Pairs, Turn

# fmt: off
LINEAR = frozenset((
    "add", "sub", "neg", "mul", "div", "convert_element_type", "reduce_precision", "copy", "slice",
    "split", "stack", "unstack", "squeeze", "expand_dims", "reshape", "transpose", "tile", "rev",
    "broadcast_in_dim", "concatenate", "gather", "dynamic_slice", "select_n", "dot_general",
    "complex", "real", "imag", "stop_gradient", "reduce_sum", "sharding_constraint", "name",
    "optimization_barrier", "pad",
))
# fmt: on
ONE_ONLY = ("mul", "dot_general")  # linear in one operand, if the other is a constant
FIRST_ONLY = ("div", "gather", "dynamic_slice")
MIXING = ("concatenate", "stack", "dot_general", "complex", "gather", "rev")
TOLERANCE, COARSE = 1e-5, 0.1  # of float32; of narrower types
_FOUND: weakref.WeakKeyDictionary[Program, tuple[Turn, ...]] = weakref.WeakKeyDictionary()


def find_turns(graph: Graph) -> tuple[Turn, ...]:
    """Returns the turns of a network, of queries and keys; each network is looked at once."""
    program = graph.program
    if program not in _FOUND:
        with jax.ensure_compile_time_eval(), jax.default_matmul_precision("highest"):
            _FOUND[program] = tuple(_Search(program).run())
    return _FOUND[program]


class _Search:
    """Looks back from each value to those of its shape that it is a linear map of."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.maker = {n: e for e in program.equations for n in e.outputs}
        self.known = set(program.constants)
        self.users: dict[int, list[Equation]] = {}
        for equation in program.equations:
            if all(is_literal(a) or a in self.known for a in equation.inputs):
                self.known.update(equation.outputs)
            for atom in equation.inputs:
                if not is_literal(atom):
                    self.users.setdefault(atom, []).append(equation)
        self._measured: dict[Any, Measured | None] = {}

    def run(self) -> Iterator[Turn]:
        """Yields what is found, the last first; of maps inside each other the outer one."""
        inside: set[int] = set()
        for equation in reversed(self.program.equations):
            for value in set(equation.outputs) - self.known - inside:
                turn = self._turn(value)
                if turn is not None:
                    inside |= turn.inside | {turn.made}
                    yield turn

    def _open(self, equation: Equation) -> list[int]:
        """The inputs of an equation that are no constants."""
        return [a for a in equation.inputs if not is_literal(a) and a not in self.known]

    def _is_linear(self, value: int) -> bool:
        """Whether a value is computed linearly from inputs that are no constants."""
        equation = self.maker.get(value)
        if equation is None or equation.name not in LINEAR:
            return False
        given = self._open(equation)
        if equation.name in ONE_ONLY:
            return len(given) == 1
        if equation.name in FIRST_ONLY:
            return given == [equation.inputs[0]]
        if equation.name == "select_n":
            return equation.inputs[0] not in given
        if equation.name == "convert_element_type":
            return jnp.issubdtype(equation.params["new_dtype"], jnp.inexact)
        return True

    def _behind(self, value: int, stop: int | None = None) -> tuple[list[int], set[int]]:
        """The values that a value comes from linearly, nearest first; and where that ends."""
        path, ends, queue = [], set(), [value]
        for one in queue:
            if one == stop or not self._is_linear(one):
                ends.add(one)
                continue
            path.append(one)
            queue += [n for n in self._open(self.maker[one]) if n not in queue]
        return path, ends

    def _turn(self, made: int) -> Turn | None:
        """The turn that a value comes out of."""
        path, ends = self._behind(made)
        shape = self.program.avals[made].shape
        for source in sorted({*path, *ends} - {made}):
            if self.program.avals[source].shape != shape:
                continue
            inside, stops = self._behind(made, source)
            if stops == {source} and self._is_closed(made, inside):
                found = self._measure(source, made, inside)
                if found is not None:
                    return Turn(source, made, *found, frozenset(inside) - {made})
        return None

    def _is_closed(self, made: int, inside: Sequence[int]) -> bool:
        """Whether what stands between source and result is used there only."""
        equations = {id(self.maker[n]) for n in inside}
        others = {n for i in inside for n in self.maker[i].outputs} - {made}
        return not others & set(self.program.outputs) and all(
            id(user) in equations for n in others for user in self.users.get(n, [])
        )

    def _measure(self, source: int, made: int, inside: Sequence[int]) -> "Measured | None":
        """What a linear map turns; None where it is of another kind."""
        if not any(self.maker[n].name in MIXING for n in inside):
            return None
        equations = self._needed(source, made)
        key = _key(self.program, equations, source, made)
        if key not in self._measured:
            aval = self.program.avals[source]
            self._measured[key] = measure(
                lambda s: _run(self.program, equations, source, made, s),
                jax.ShapeDtypeStruct(aval.shape, aval.dtype),
            )
        return self._measured[key]

    def _needed(self, source: int, made: int) -> list[Equation]:
        """The equations between two values, and those of the constants there, in order."""
        wanted, found = [made], set()
        for one in wanted:
            equation = self.maker.get(one)
            if one != source and equation is not None:
                found.add(id(equation))
                wanted += [a for a in equation.inputs if not is_literal(a) and a not in wanted]
        return [e for e in self.program.equations if id(e) in found]


def _run(
    program: Program, equations: Sequence[Equation], source: int, made: int, value: jax.Array
) -> jax.Array:
    values: dict[int, Any] = {**program.constants, source: value}
    for equation in equations:
        given = [a.val if is_literal(a) else values[a] for a in equation.inputs]
        values.update(zip(equation.outputs, equation.bind(*given), strict=True))
    return values[made]


def _key(program: Program, equations: Sequence[Equation], source: int, made: int) -> Any:
    """What two stretches of a program have in common if they compute the same."""
    number = {source: 0}
    lines = []
    for equation in equations:
        given = []
        for atom in equation.inputs:
            if is_literal(atom):
                given.append(f"={atom.val}")
            elif atom in program.constants:
                given.append(np.asarray(program.constants[atom]).tobytes())
            else:
                given.append(number.setdefault(atom, len(number)))
        for output in equation.outputs:
            number.setdefault(output, len(number))
        lines.append((equation.name, str(equation.params), tuple(given)))
    aval = program.avals[source]
    return tuple(lines), number[made], aval.shape, str(aval.dtype)


class Measured(NamedTuple):
    """What a linear map turns.

    Attributes:
        axis: along which units are turned.
        pairs: those units.
        places: the other axes, along which it differs.
    """

    axis: int
    pairs: Pairs
    places: tuple[int, ...]


def measure(call: Callable[[jax.Array], jax.Array], aval: jax.ShapeDtypeStruct) -> Measured | None:
    """Returns what a linear map turns, in pairs of units of one axis.

    Args:
        call: the map; of the shape of `aval` to the same.
        aval: shape and type.

    Returns:
        None where it does anything else, along each axis.
    """
    if not jnp.issubdtype(aval.dtype, jnp.floating):
        return None
    found = (_along(call, aval, k) for k, n in reversed([*enumerate(aval.shape)]) if n > 1)
    return next(filter(None, found), None)


def _along(
    call: Callable[[jax.Array], jax.Array], aval: jax.ShapeDtypeStruct, axis: int
) -> Measured | None:
    """What a map turns along one axis."""
    n, shape = aval.shape[axis], aval.shape
    others = [k for k in range(len(shape)) if k != axis]
    drawn = jnp.asarray(np.random.default_rng(0).normal(size=shape), aval.dtype)

    def column(i: jax.Array) -> jax.Array:
        """What becomes of unit i, at every place; its axis is the last."""
        one = jax.nn.one_hot(i, n, dtype=aval.dtype)
        rows = one.reshape([-1 if k == axis else 1 for k in range(len(shape))])
        return jnp.moveaxis(call(jnp.broadcast_to(rows, shape)), axis, -1)

    def probe(total: jax.Array, i: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        made = column(i)
        total += made * jnp.take(drawn, i, axis)[..., None]
        varies = [jnp.abs(made - made.take(np.array([0]), k)).max() for k in range(len(others))]
        return total, (jnp.abs(made).max(range(len(others))), jnp.stack(varies))

    def look() -> Any:
        start = jnp.zeros_like(jnp.moveaxis(drawn, axis, -1))
        total, (reached, varies) = jax.lax.scan(probe, start, jnp.arange(n))
        gap = jnp.abs(jnp.moveaxis(call(drawn), axis, -1) - total).max()
        return reached, varies.max(0), gap, jnp.abs(call(jnp.zeros(shape, aval.dtype))).max()

    reached, varies, gap, of_nothing = (np.asarray(part) for part in jax.jit(look)())
    size = max(float(reached.max(initial=0)), 1e-30)
    fine = np.dtype(aval.dtype).itemsize >= 4
    pairs = _pair((reached > 0) | (reached > 0).T)
    if of_nothing or not pairs or not gap <= (TOLERANCE * n if fine else COARSE) * size:
        return None

    def odd(pair: jax.Array) -> jax.Array:
        """How far two units are from being turned."""
        (i, j), (of_i, of_j) = pair, (column(k) for k in pair)
        equal, opposite = of_i[..., i] - of_j[..., j], of_i[..., j] + of_j[..., i]
        return jnp.maximum(jnp.abs(equal).max(), jnp.abs(opposite).max())

    found = jax.jit(lambda: jax.lax.map(odd, jnp.asarray(pairs, jnp.int32)).max())()
    if not float(found) <= TOLERANCE * size:
        return None
    return Measured(axis, pairs, tuple(k for k, own in zip(others, varies, strict=True) if own))


def _pair(beside: np.ndarray) -> Pairs:
    """The units two by two, by which units are mixed with which; none where three are."""
    mixed = beside & ~np.eye(len(beside), dtype=bool)
    if (mixed.sum(1) > 1).any():
        return ()
    return tuple((int(i), int(j)) for i, j in zip(*np.nonzero(np.triu(mixed)), strict=True))
