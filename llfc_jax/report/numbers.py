"""Cells of rows: what counts as a number, and how a number is written."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

Row = Mapping[str, Any]
Rows = Sequence[Row]

ROUNDING = 1e-12  # of a value; less than that is no spread

KEYS = {
    "run": "run",
    "pair": "pair",
    "align": "aligned by",
    "split": "split",
    "renormalise": "renormalised",
}
"""Columns that say what a row is of -> the words that head them."""

ADVERBS = {"align": "aligned by", "renormalise": "renormalised by"}
"""Columns whose value `none` says that something was not done -> the words before another one."""

# What neither HTML nor an SVG file may hold, and characters that a terminal would obey.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def clean(text: object) -> str:
    """Returns the text with control characters and lone surrogates replaced by a mark."""
    return _CONTROL.sub("�", str(text))


def name_of(column: str | None) -> str:
    """Returns the words for a column, where its name alone would not do."""
    return (KEYS | {"alpha": "α"}).get(column or "", column or "")


def describe(column: str, value: object) -> str:
    """Returns what a column's value says of a row: `pair = spawn_k1`, `not aligned`."""
    if column in ADVERBS and value == "none":
        return f"not {ADVERBS[column].split()[0]}"
    if column in ADVERBS:
        return f"{ADVERBS[column]} {value}"
    return f"{name_of(column)} = {format_value(value)}"


def is_number(value: object) -> bool:
    """Returns whether a cell is a number; a truth value is none."""
    kind = type(value)  # most cells are decided by it, in a tenth of the time
    if kind in (float, int, str, bool):
        return kind is float or kind is int
    return isinstance(value, Real)


def finite(value: Any) -> float:
    """Returns a cell as a finite float, NaN where it is none."""
    if not is_number(value):
        return math.nan
    value = float(value)
    return value if math.isfinite(value) else math.nan


def distinct(values: Iterable[Any]) -> list[Any]:
    """Returns the different values in order of appearance."""
    return list(dict.fromkeys(values))


def is_numeric(rows: Rows, column: str) -> bool:
    """Returns whether a column holds numbers and nothing else."""
    cells = [row[column] for row in rows if row.get(column) is not None]
    return bool(cells) and all(map(is_number, cells))


def plain(cell: object) -> str | int | float | bool | None:
    """Returns a cell as JSON holds it: numbers to six digits, None where there is no finite one."""
    if cell is None or isinstance(cell, bool):
        return cell
    if not is_number(cell):
        return clean(cell)
    number = finite(cell)
    if math.isnan(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 1e15 else float(f"{number:.6g}")


def format_number(value: float, digits: int = 4) -> str:
    """Returns a number to `digits` significant digits; whole numbers below 10 million in full.

    Examples:
        >>> format_number(0.123456), format_number(1.5e-7), format_number(60000)
        ('0.1235', '1.5e-7', '60000')
    """
    value = float(value)
    if math.isnan(value):
        return "–"
    if value.is_integer() and abs(value) < 1e7:
        return str(int(value))
    return re.sub(r"e([+-])0+", r"e\1", f"{value:.{digits}g}")


def format_spread(value: float, spread: float) -> str:
    """Returns `value ± spread`, both to the digits that the spread supports.

    The spread has one significant digit, two if the first is a 1.

    Examples:
        >>> format_spread(0.123456, 0.0034), format_spread(1234.5, 120)
        ('0.123 ± 0.003', '1230 ± 120')
    """
    if not math.isfinite(value) or not spread > ROUNDING * abs(value) or spread == math.inf:
        return format_number(value)
    lead = f"{spread:e}"
    place = int(lead.partition("e")[2]) - (lead[0] == "1")  # power of ten of the last digit
    exponent = math.floor(math.log10(max(abs(value), spread)))
    if not -4 <= max(exponent, place) < 7:  # one common power of ten
        power = max(exponent, place, -300)
        scaled = format_spread(value / 10.0**power, spread / 10.0**power)
        return f"({scaled})e{power}"
    texts = (f"{round(x, -place):.{max(0, -place)}f}" for x in (value, spread))
    return " ± ".join(texts)


def format_value(value: Any) -> str:
    """Returns any cell in words; a dash where there is nothing."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple, set, frozenset)):
        return "; ".join(map(format_value, value)) or "–"
    return format_number(value) if is_number(value) else str(value) or "–"
