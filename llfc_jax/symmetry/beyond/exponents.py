"""Exact linear algebra on small systems: over the rationals, and over the numbers 0 and 1."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

Row = Mapping[int, Fraction | int]
"""An equation: the coefficients of the unknowns, by number; their sum is zero."""


def null_space(
    rows: Sequence[Row], unknowns: int, modulus: int | None = None
) -> list[dict[int, Fraction]]:
    """Returns a basis of all solutions of a homogeneous linear system.

    Args:
        rows: the equations.
        unknowns: how many there are.
        modulus: 2 to count modulo 2; None for the rationals.

    Returns:
        Basis vectors, each as its nonzero entries by unknown: one for each unknown that may be
        chosen freely, which is 1 there and 0 at the others that may be.
    """
    leading: dict[int, dict[int, Fraction]] = {}
    for row in rows:
        reduced = _reduce(_clean(row, modulus), leading, modulus)
        if not reduced:
            continue
        # The last unknown leads, so that what is computed first is what may be chosen.
        pivot = max(reduced)
        factor = reduced[pivot]
        own = _clean({k: v / factor for k, v in reduced.items()}, modulus)
        for other, held in leading.items():
            if pivot in held:
                leading[other] = _minus(held, own, held[pivot], modulus)
        leading[pivot] = own
    free = [k for k in range(unknowns) if k not in leading]
    basis = []
    for k in free:
        vector = {k: Fraction(1)}
        vector |= {p: -row[k] for p, row in leading.items() if k in row}
        basis.append(_clean(vector, modulus))
    return basis


def _reduce(
    row: dict[int, Fraction], leading: Mapping[int, dict[int, Fraction]], modulus: int | None
) -> dict[int, Fraction]:
    for pivot in [k for k in row if k in leading]:
        if pivot in row:
            row = _minus(row, leading[pivot], row[pivot], modulus)
    return row


def _minus(
    row: Mapping[int, Fraction], other: Row, factor: Fraction, modulus: int | None
) -> dict[int, Fraction]:
    keys = dict.fromkeys((*row, *other))
    return _clean({k: row.get(k, 0) - factor * other.get(k, 0) for k in keys}, modulus)


def _clean(row: Row, modulus: int | None) -> dict[int, Fraction]:
    numbers = {k: Fraction(v) % modulus if modulus else Fraction(v) for k, v in row.items()}
    return {k: v for k, v in numbers.items() if v}


def independent(vectors: Sequence[Row], modulus: int | None = None) -> list[int]:
    """Returns the numbers of the vectors that are no combination of those before them."""
    leading: dict[int, dict[int, Fraction]] = {}
    chosen = []
    for number, vector in enumerate(vectors):
        reduced = _clean(vector, modulus)
        while reduced and (pivot := max(reduced)) in leading:
            reduced = _minus(reduced, leading[pivot], reduced[pivot], modulus)
        if reduced:
            pivot = max(reduced)
            factor = reduced[pivot]
            leading[pivot] = _clean({k: v / factor for k, v in reduced.items()}, modulus)
            chosen.append(number)
    return chosen
