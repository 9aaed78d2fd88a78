"""How a sweep's page shows its means: the horizontal axis, the figures, and sentences."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from llfc_jax.io import Row
from llfc_jax.report.charts import Chart
from llfc_jax.report.numbers import format_value

POWERS = 8  # from this ratio of largest to least on, a swept field is drawn by its powers
SENTENCES = 8  # more lines than that are read in the figures


class Directions(NamedTuple):
    """Along which columns the means are shown.

    Attributes:
        x: the horizontal axis: k, or the first field swept over.
        lines: the column with a line per value, or None.
        panels: the columns with a panel per value.
    """

    x: str
    lines: str | None
    panels: tuple[str, ...]


def directions(means: Sequence[Row], fields: Sequence[str]) -> Directions:
    """Returns the directions: along k if it varies, else along the first field; then the lines."""
    varied = [axis for axis in (*fields, "align") if len({repr(row[axis]) for row in means}) > 1]
    forks = {row["k"] for row in means if not math.isnan(row["k"])}
    first = next((axis for axis in varied if axis != "align"), "pair")
    x = "k" if len(forks) > 1 else first
    lines = next((axis for axis in varied if axis != x), None)
    apart = ("align",) if x in ("k", "pair") else ("pair", "align")  # k says which pair it is
    return Directions(x, lines, tuple(axis for axis in apart if axis != lines))


def charts(means: Sequence[Row], fields: Sequence[str]) -> tuple[Chart, ...]:
    """Returns charts of barrier, LLFC and commutativity, as far as they were measured."""
    x, lines, panels = directions(means, fields)
    values = [row[x] for row in means]
    powers = all(isinstance(v, (int, float)) and v > 0 for v in values)
    powers = powers and max(values) >= POWERS * min(values)
    measured = {name for row in means for name in row}
    drawn = (
        ("error_barrier", "Error barrier", "error barrier", False),
        ("llfc_median", "1 - cosine α, median layer", "1 - cosine α", True),
        ("llfc_ratio", "How much closer to the mixture than a to b", "ratio", True),
        ("com_ratio", "Commutativity: dist com / least of dist W, dist H", "ratio", True),
    )
    return tuple(
        Chart(
            name=f"sweep_{name}",
            title=title,
            caption="Mean over seeds; band: 95 % interval.",
            x=x,
            y={name: label},
            x_label="k, epochs shared" if x == "k" else x,
            y_label=label,
            lines=lines,
            band={name: f"{name}_half"},
            panels=panels,
            log=log,
            log_x=powers,
        )
        for name, title, label, log in drawn
        if name in measured
    )


def findings(means: Sequence[Row], fields: Sequence[str]) -> list[str]:
    """Returns a sentence per line of the figures: barrier and LLFC at its first and last value.

    None where the horizontal axis has no order.
    """
    x, lines, panels = directions(means, fields)
    if not all(isinstance(row[x], (int, float)) for row in means):
        return []
    apart = [n for n in (*panels, lines) if n and len({repr(row[n]) for row in means}) > 1]
    groups: dict[str, list[Row]] = {}
    for row in sorted(means, key=lambda row: row[x]):
        who = ", ".join(f"`{row[n]}`" if n in panels else f"{n} `{row[n]}`" for n in apart)
        groups.setdefault(who, []).append(row)
    said = [_sentence(who, x, rows[0], rows[-1]) for who, rows in groups.items()]
    return [sentence for sentence in said if sentence][:SENTENCES]


def _sentence(who: str, x: str, first: Row, last: Row) -> str:
    def both(name: str, form: str, times: float = 1) -> tuple[str, str] | None:
        pair = [times * row.get(name, math.nan) for row in (first, last)]
        return None if any(map(math.isnan, pair)) else (f"{pair[0]:{form}}", f"{pair[1]:{form}}")

    parts = []
    if barrier := both("error_barrier", ".2f", 100):
        parts.append(f"the error barrier goes from {barrier[0]} to {barrier[1]} points")
    if ratio := both("llfc_ratio", ".3g"):
        parts.append(
            f"features stand {ratio[0]}, then {ratio[1]} times closer to the mixture than a's to "
            "b's (median layer)"
        )
    if first is last or not parts:
        return ""
    begin = f"from {x} = {format_value(first[x])} to {format_value(last[x])} {'; '.join(parts)}."
    return f"{who}: {begin}" if who else begin[0].upper() + begin[1:]


def columns(means: Sequence[Row]) -> dict[str, str]:
    """Returns the columns of the means that fit a table: column -> heading."""
    words = {
        "pair": "pair",
        "align": "aligned",
        "seeds": "seeds",
        "error_barrier": "error barrier",
        "error_barrier_half": "±",
        "llfc_median": "1 - cos α, median layer",
        "llfc_median_half": "±",
        "llfc_ratio": "baseline / distance",
    }
    first = means[0] if means else {}
    fields = itertools.takewhile(lambda name: name != "pair", first)
    return {name: name for name in fields} | {k: v for k, v in words.items() if k in first}
