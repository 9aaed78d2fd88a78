"""Where a network normalises by running statistics, found from its equations.

A normaliser is a value v that becomes y = A v + B, unit by unit, where A and B are made of leaves:
a variance enters through a root, A ∝ (variance + ε)^-½, and a mean is a leaf that is subtracted
from v, ∂B/∂mean = -k A with k > 0 at every variance. A trainable scale or shift is neither. The
equations are evaluated on single numbers, so the order of the algebra and the names of the leaves
do not matter: (v - mean) * rsqrt(var + ε) * scale + bias, v * s + (bias - mean * s), statistics
divided by a counter's correction, and others.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from llfc_jax.graph.origins import origins
from llfc_jax.graph.pointwise import apply_pointwise, uniform
from llfc_jax.graph.statistics import SHAPING, statistics
from llfc_jax.graph.trace import Equation, Program, is_literal

ROOTS = ("rsqrt", "sqrt", "pow")
FACTORS = ("mul", "div")
TERMS = ("add", "add_any", "sub", "mul", "div", "convert_element_type")
STEPS = 5  # affine equations that may stand on either side of the factor


@dataclasses.dataclass(frozen=True)
class Normaliser:
    """A value that running statistics normalise.

    Attributes:
        name: path of the leaf that holds the running mean; later uses of it end in `#2`.
        mean: path of that leaf.
        var: path of the leaf that holds the running variance.
        value: number of the value that is normalised.
        axes: its axes of units; the others are averaged over.
        variances: numbers of the values under the roots: variance + ε.
        body: indices of the affine equations between the value and what they make of it.
        end: number of what they make of it.
    """

    name: str
    mean: str
    var: str
    value: int
    axes: tuple[int, ...]
    variances: tuple[int, ...]
    body: tuple[int, ...]
    end: int


class _Numbers:
    """The values of a program as functions of single numbers in the place of its leaves."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.origins = origins(program)
        rng = np.random.default_rng(0)
        self.leaves = {
            number: np.asarray(
                rng.uniform(0.5, 1.5)
                if jnp.issubdtype(program.avals[number].dtype, jnp.floating)
                else 7
            )
            for number in program.leaves
        }
        self.maker = {n: i for i, eq in enumerate(program.equations) for n in eq.outputs}
        self.constants = {n: uniform(value) for n, value in program.constants.items()}

    def evaluate(self, number: int, known: dict[int, Any]) -> Any:
        """Evaluate one value; `known` holds those that are given, and keeps what is computed."""
        if number not in known:
            known[number] = self._evaluate(number, known)
        return known[number]

    def _evaluate(self, number: int, known: dict[int, Any]) -> Any:
        if number in self.leaves:
            return self.leaves[number]
        if number not in self.maker:
            return self.constants.get(number)
        eq = self.program.equations[self.maker[number]]
        values = [uniform(a.val) if is_literal(a) else self.evaluate(a, known) for a in eq.inputs]
        return apply_pointwise(eq, values) if len(eq.outputs) == 1 else None

    def line(self, value: int, end: int, given: Mapping[int, Any]) -> tuple[float, float] | None:
        """Returns (A, B) where `end` is A · `value` + B; None where it is no straight line."""
        y = [self.evaluate(end, {**given, value: np.asarray(float(v))}) for v in (0, 1, 3)]
        if any(v is None or not np.isfinite(v) for v in y):
            return None
        slope = float(y[1] - y[0])
        straight = np.isclose(y[2] - y[0], 3 * slope, 1e-9, 1e-12)
        return (slope, float(y[0])) if straight and slope else None


def find_normalisers(program: Program) -> tuple[Normaliser, ...]:
    """Find where a network normalises by running statistics, in the order of its equations."""
    numbers = _Numbers(program)
    roots = dict(_roots(numbers))
    found: list[Normaliser] = []
    if not roots:
        return ()
    under: dict[int, set[int]] = {}  # value made of leaves -> variances that it depends on
    for i, eq in enumerate(program.equations):
        inputs = [a for a in eq.inputs if not is_literal(a)]
        of_leaves = [a for a in inputs if a not in numbers.origins.data]
        depends = set().union(*(under.get(a, set()) for a in of_leaves))
        if len(of_leaves) == len(inputs):
            depends |= {roots[i]} if i in roots else set()
            under |= dict.fromkeys(eq.outputs, depends)
        elif eq.name in FACTORS and len(depends) == 1 and len(inputs) == 2:
            (var,) = depends
            held = inputs[1] if inputs[0] in of_leaves else inputs[0]
            one = _recognise(numbers, i, held, var, roots)
            if one is not None and all(one.value != other.value for other in found):
                again = sum(other.mean == one.mean for other in found)
                name = f"{one.mean}#{again + 1}" if again else one.mean
                found.append(dataclasses.replace(one, name=name))
    return tuple(found)


def _roots(numbers: _Numbers) -> Iterator[tuple[int, int]]:
    """(index, leaf) of each root of a leaf, plus a number, that is no function of x."""
    program = numbers.program
    for i, eq in enumerate(program.equations):
        if eq.name not in ROOTS or is_literal(eq.inputs[0]):
            continue
        number = eq.inputs[0]
        held = numbers.origins.leaves.get(number, ())
        leaves = [program.leaves[j] for j in held]
        floats = [n for n in leaves if jnp.issubdtype(program.avals[n].dtype, jnp.floating)]
        if len(floats) != 1 or (eq.name == "pow" and not _is_half(eq)):
            continue
        line = numbers.line(floats[0], number, {})
        if line is not None and line[0] > 0 and line[1] >= 0:
            yield i, floats[0]


def _is_half(eq: Equation) -> bool:
    power = eq.inputs[1]
    value = uniform(power.val) if is_literal(power) else None
    return value is not None and abs(float(value)) == 0.5


def _recognise(
    numbers: _Numbers, factor: int, held: int, var: int, roots: Mapping[int, int]
) -> Normaliser | None:
    """The normaliser around a factor that a variance enters."""
    program = numbers.program
    paths = dict(zip(program.leaves, program.paths, strict=True))
    under = tuple(program.equations[i].inputs[0] for i, leaf in roots.items() if leaf == var)
    for value, end in _places(numbers, factor, held):
        mean = _mean(numbers, value, end, under, var)
        if mean is None:
            continue
        axes = _axes(numbers, factor, held)
        body = _between(program, value, end)
        return Normaliser("", paths[mean], paths[var], value, axes, under, body, end)
    return None


def _places(numbers: _Numbers, factor: int, held: int) -> Iterator[tuple[int, int]]:
    """Pairs of a value before and a value behind a factor, the nearest first."""
    program = numbers.program
    before, behind = [held], [program.equations[factor].outputs[0]]
    while len(before) <= STEPS and (number := _step_back(numbers, before[-1])) is not None:
        before.append(number)
    while len(behind) <= STEPS and (number := _step_on(numbers, behind[-1])) is not None:
        behind.append(number)
    pairs = [(i, j) for i in range(len(before)) for j in range(len(behind))]
    for i, j in sorted(pairs, key=sum):
        yield before[i], behind[j]


def _step_back(numbers: _Numbers, number: int) -> int | None:
    eq = numbers.program.equations[numbers.maker[number]] if number in numbers.maker else None
    return _carried(numbers, eq) if eq is not None and eq.name in TERMS else None


def _step_on(numbers: _Numbers, number: int) -> int | None:
    users = [eq for eq in numbers.program.equations if number in eq.inputs]
    if len(users) != 1 or users[0].name not in TERMS or _carried(numbers, users[0]) != number:
        return None
    return users[0].outputs[0]


def _carried(numbers: _Numbers, eq: Equation) -> int | None:
    """The one input that depends on x, where it has the shape of the output."""
    held = [a for a in eq.inputs if not is_literal(a) and a in numbers.origins.data]
    avals = numbers.program.avals
    alike = len(held) == 1 and avals[held[0]].shape == avals[eq.outputs[0]].shape
    return held[0] if alike else None


def _mean(
    numbers: _Numbers, value: int, end: int, variances: tuple[int, ...], var: int
) -> int | None:
    """The leaf that enters as -k A at two variances; None where there is none."""
    program = numbers.program
    under = {number: numbers.evaluate(number, {}) for number in variances}
    scaled = [{number: v * f for number, v in under.items()} for f in (1, 4)]
    lines = [line for given in scaled if (line := numbers.line(value, end, given)) is not None]
    if len(lines) != 2 or not np.isclose(lines[0][0], 2 * lines[1][0], 1e-3):
        return None
    for leaf in _leaves_between(numbers, value, end):
        if leaf == var or not jnp.issubdtype(program.avals[leaf].dtype, jnp.floating):
            continue
        ratios = []
        for line, given in zip(lines, scaled, strict=True):
            moved = {**given, leaf: numbers.leaves[leaf] + 0.25}
            other = numbers.line(value, end, moved)
            if other is None or not np.isclose(other[0], line[0], 1e-9):
                break
            ratios.append((other[1] - line[1]) / line[0])
        if len(ratios) == 2 and ratios[0] < -1e-9 and np.isclose(ratios[0], ratios[1], 1e-6):
            return leaf
    return None


def _leaves_between(numbers: _Numbers, value: int, end: int) -> list[int]:
    """The leaves that enter between two values."""
    program = numbers.program
    found: set[int] = set()
    for i in _between(program, value, end):
        for atom in program.equations[i].inputs:
            if not is_literal(atom) and atom not in numbers.origins.data:
                found |= {program.leaves[j] for j in numbers.origins.leaves.get(atom, ())}
    return sorted(found)


def _between(program: Program, value: int, end: int) -> tuple[int, ...]:
    """Indices of the equations of a chain from one value to another."""
    found, reached = [], {value}
    for i, eq in enumerate(program.equations):
        if end in reached:
            break
        if any(not is_literal(a) and a in reached for a in eq.inputs) and eq.name in TERMS:
            found.append(i)
            reached.update(eq.outputs)
    needed, kept = {end}, []
    for i in reversed(found):
        if not needed.isdisjoint(program.equations[i].outputs):
            kept.append(i)
            needed.update(a for a in program.equations[i].inputs if not is_literal(a))
    return tuple(reversed(kept))


def _axes(numbers: _Numbers, factor: int, held: int) -> tuple[int, ...]:
    """The axes of a factor's data along which the factor may vary."""
    program = numbers.program
    eq = program.equations[factor]
    other = next(a for a in eq.inputs if not is_literal(a) and a != held)
    return tuple(sorted(_varying(numbers, other)))


def _varying(numbers: _Numbers, number: int) -> set[int]:
    """The axes of a value made of leaves along which its entries may differ."""
    program = numbers.program
    shape = program.avals[number].shape
    eq = program.equations[numbers.maker[number]] if number in numbers.maker else None
    if eq is None or number in numbers.leaves:
        return {i for i, n in enumerate(shape) if n > 1}
    inputs = [a for a in eq.inputs if not is_literal(a)]
    if eq.name == "broadcast_in_dim" and inputs:
        before = _varying(numbers, inputs[0])
        return {int(j) for i, j in enumerate(eq.params["broadcast_dimensions"]) if i in before}
    if all(program.avals[a].shape in (shape, ()) for a in inputs) and eq.name not in SHAPING[:2]:
        return set().union(*(_varying(numbers, a) for a in inputs)) if inputs else set()
    return {i for i, n in enumerate(shape) if n > 1}


def normalises_samples(program: Program) -> bool:
    """Whether a network normalises each sample by its own statistics, as LayerNorm does."""
    data = origins(program).data
    made_of = statistics(program, data)
    return any(
        eq.name in ROOTS and not is_literal(eq.inputs[0]) and eq.inputs[0] in made_of
        for eq in program.equations
    )
