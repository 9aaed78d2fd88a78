"""What is known of a value while a trace is read, and how a rule sees an equation."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from llfc_jax.symmetry.terms import Term

Axes = tuple[Term, ...]
Pairs = tuple[tuple[int, int], ...]
"""Units of an axis, two by two."""


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """What is known of a value.

    Attributes:
        axes: a term for each axis.
        points: the axis whose places its numbers are, as those of `argmax` or `iota`.
        wrapped: `points` are counted from the axis' end.
        distinct: no two of its numbers along an axis are equal by construction, as after a ReLU;
            of numbers in float32 or wider, thought of as exact.
        nonzero: none of its numbers is zero by construction, as after a ReLU.
        data: it depends on the network's input.
        chosen: its numbers are those of another value at some places, as those of a maximum: the
            two may cancel.
        number: the number that it is, for a literal.
        known: it is made of constants alone.
    """

    axes: Axes
    points: Term | None = None
    wrapped: bool = False
    distinct: bool = False
    nonzero: bool = False
    data: bool = False
    chosen: bool = False
    number: float | int | None = None
    known: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """An equation that was read: what went in and what came out.

    Attributes:
        name: of the primitive; "link" where two values are one and the same, a leading axis
            aside; "opaque" where nothing is known of how one comes from the other.
        params: its parameters; "place" of a slice for a link.
        inputs: its operands.
        outputs: its results.
        why: the equation in words, for reasons.
    """

    name: str
    params: dict[str, Any]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    why: str


@dataclasses.dataclass(frozen=True)
class Turn:
    """A value that is another one, with pairs of units turned by their positions.

    Attributes:
        source: number of the value that is turned.
        made: number of what comes out.
        axis: of both, along which units are turned.
        pairs: those units.
        places: the other axes, along which they are turned differently from place to place.
        inside: numbers of the values between them.
    """

    source: int
    made: int
    axis: int
    pairs: Pairs
    places: tuple[int, ...]
    inside: frozenset[int]


class Reader(Protocol):
    """What rules may ask of whoever reads the equations."""

    position: tuple[Any, ...]

    def link(self, old: Value, new: Value, why: str, place: int | None = None) -> Value:
        """Remember that a value is another one, or a slice or stack of it; returns it.

        `place`: the place along the first axis of which it is the slice.
        """
        ...

    def opaque(self, given: Sequence[Value], made: Sequence[Value], why: str) -> None:
        """Remember that values are made of others in a way of which nothing is known."""
        ...

    def contracted(self, terms: Sequence[Term], beside: Sequence[Term]) -> None:
        """`terms` are summed over in pairs of operands, with `beside` the same in both."""
        ...

    def lost(self, kept: Sequence[Term], gone: Sequence[Term]) -> None:
        """Places along `gone` are mixed, while the same operand's axes `kept` stay."""
        ...

    def inside(self, jaxpr: Any, inputs: Sequence[Value], scope: str, step: Any) -> list[Value]:
        """Values of the outputs of a nested jaxpr."""
        ...

    def reshaped(self, axes: Axes) -> None:
        """Remember the axes that this equation's reshape gives."""
        ...

    def apart(self) -> Iterable[int]:
        """Numbers of the axes of this equation's reshape whose places hold different axes."""
        ...


@dataclasses.dataclass(frozen=True)
class Call:
    """An equation, as its rule sees it.

    Attributes:
        name: of the primitive.
        params: its parameters.
        shapes: shapes of its outputs.
        scope: module path in which it stands.
    """

    name: str
    params: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    scope: str

    @property
    def why(self) -> str:
        """The equation, for reasons."""
        return f"{self.name} in {self.scope}" if self.scope else self.name
