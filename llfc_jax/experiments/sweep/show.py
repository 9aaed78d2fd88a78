"""How a sweep's page shows its means: the horizontal axis, the figures, and sentences."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from llfc_jax.experiments.config import SEED
from llfc_jax.experiments.settings import UNALIGNED
from llfc_jax.io import Row
from llfc_jax.report.charts import Chart, Section
from llfc_jax.report.numbers import format_value, is_number

POWERS = 8  # from this ratio of largest to least on, a swept field is drawn by its powers
SENTENCES = 8  # more lines than that are read in the figures
LLFC_COLUMNS = "llfc_"  # columns that mean nothing where LLFC is uninformative
# Column -> the figure's title, the words of its axis, whether that is logarithmic.
DRAWN = {
    "error_barrier": ("Error barrier on the line", "error barrier (share of samples)", False),
    "barrier_share": (
        "Loss barrier at α = ½, as a share of the way to a predictor that ignores the input",
        "loss barrier, share",
        False,
    ),
    "llfc_median": ("Distance of the features from LLFC, median layer", "1 - cosine_α", True),
    "llfc_ratio": (
        "How many times closer the features are to the mixture than a's are to b's",
        "(1 - cosine_AB) / (1 - cosine_α)",
        True,
    ),
    "com_ratio": (
        "Commutativity: distance of the products W H over that of W or of H, whichever is less",
        "Dist_com / min(Dist_W, Dist_H)",
        True,
    ),
}
KINDS = {
    "spawned": ("Pairs that share their first epochs", lambda row: not math.isnan(row["k"])),
    "apart": ("Pairs that share no training", lambda row: math.isnan(row["k"])),
}


class Directions(NamedTuple):
    """Along which columns the means are shown.

    Attributes:
        x: the horizontal axis: k, or a field that was swept over.
        lines: the column with a line per value, or None.
        panels: the columns with a panel per value.
    """

    x: str
    lines: str | None
    panels: tuple[str, ...]


def directions(rows: Sequence[Row], fields: Sequence[str]) -> Directions:
    """Returns the directions: along k if it varies, else along a field, numbers first.

    The next column that varies has the lines, all others have panels, but for those that the
    horizontal axis decides, as it does where fields move together.
    """
    varied = [c for c in (*fields, "align", "pair") if len({repr(row[c]) for row in rows}) > 1]
    swept = [c for c in varied if c in fields]
    ordered = [c for c in swept if all(is_number(row[c]) for row in rows)]
    forks = {row["k"] for row in rows}
    x = next(iter([*(["k"] if len(forks) > 1 else []), *ordered, *swept]), "pair")
    free = [c for c in varied if c != x and not _follows(rows, x, c)]
    lines = next((c for c in free if c != "pair"), None)
    named = [c for c in ("pair", "align") if c not in varied and x not in (c, "k")]
    named += ["align"] if x == "k" and "align" not in varied else []
    order = [c for c in (*fields, "pair", "align") if c in (*free, *named) and c != lines]
    return Directions(x, lines, tuple(order))


def _follows(rows: Sequence[Row], x: str, column: str) -> bool:
    """Returns whether a column has one value for each value of x."""
    pairs = {(repr(row[x]), repr(row[column])) for row in rows}
    return len(pairs) == len({value for value, _ in pairs})


def sections(
    rows: Sequence[Row], means: Sequence[Row], fields: Sequence[str]
) -> list[tuple[Section, list[Row]]]:
    """Returns the sections of the page with a row per run, pair and alignment.

    Pairs that were spawned are drawn along k, and have a section of their own where others are
    beside them.
    """
    kinds = {name: [row for row in rows if test(row)] for name, (_, test) in KINDS.items()}
    several = all(kinds.values())
    found = []
    for kind, title in ((kind, KINDS[kind][0]) for kind, of_kind in kinds.items() if of_kind):
        joined = _join(kinds[kind], means, fields)
        section = Section(
            name=f"means_{kind}" if several else "means",
            title=title if several else "Over all runs",
            text="A line joins the means over the seeds, bars are their 95 % intervals (Student's "
            "t), and each dot is a single run. Runs that diverged have no dot, and neither have "
            "those whose LLFC is uninformative in the figures on LLFC. The table lists every run.",
            charts=charts(joined, fields, f"_{kind}" if several else ""),
            columns=_run_columns(joined, fields),
        )
        found.append((section, joined))
    return found


def _join(rows: Sequence[Row], means: Sequence[Row], fields: Sequence[str]) -> list[Row]:
    """Returns single runs, each with the means and intervals of its group."""
    keys = (*fields, "pair", "align", "k")
    groups = {repr([mean[key] for key in keys]): mean for mean in means}
    joined = []
    for row in rows:
        mean = {} if row.get("diverged") else groups.get(repr([row[key] for key in keys]), {})
        silent = [n for n in DRAWN if n.startswith(LLFC_COLUMNS) and not row.get("informative", 1)]
        of_group = {
            f"{name}_{part}": mean[column]
            for name in DRAWN
            if name in mean
            for part, column in (("mean", name), ("half", f"{name}_half"))
        }
        joined.append({**row, **dict.fromkeys(silent, math.nan), **of_group})
    return joined


def charts(rows: Sequence[Row], fields: Sequence[str], suffix: str = "") -> tuple[Chart, ...]:
    """Returns charts of barrier, LLFC and commutativity, as far as they were measured."""
    x, lines, panels = directions(rows, fields)
    values = [row[x] for row in rows]
    numbers = all(map(is_number, values))
    powers = numbers and min(values) > 0 and max(values) >= POWERS * min(values)
    return tuple(
        Chart(
            name=f"sweep_{name}{suffix}",
            title=title,
            caption="Means over the seeds with 95 % intervals; dots: single runs.",
            x=x,
            y={f"{name}_mean": label},
            x_label="k, epochs that both networks share" if x == "k" else _words(x),
            y_label=label,
            lines=lines,
            band={f"{name}_mean": f"{name}_half"},
            dots={f"{name}_mean": name},
            spread="bars",
            mark="line" if numbers else "dots",
            panels=panels,
            log=log,
            log_x=powers,
        )
        for name, (title, label, log) in DRAWN.items()
        if any(not math.isnan(row.get(f"{name}_mean", math.nan)) for row in rows)
    )


def _words(field: str) -> str:
    """Returns a field's name in words, without its group."""
    return field.split(".")[-1].replace("_", " ")


def _run_columns(rows: Sequence[Row], fields: Sequence[str]) -> Mapping[str, str]:
    """Returns the columns of the table of single runs: column -> heading."""
    measured = {name for row in rows for name in row}
    words = {name: name for name in fields} | {"k": "k"} | {SEED: "seed"}
    words |= {name: label for name, (_, label, _) in DRAWN.items()} | {"verdict": "verdict"}
    return {name: label for name, label in words.items() if name in measured}


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
        who = ", ".join(_name(n, row[n]) for n in apart)
        groups.setdefault(who, []).append(row)
    said = [_sentence(who, x, rows[0], rows[-1]) for who, rows in groups.items()]
    return [sentence for sentence in said if sentence][:SENTENCES]


def _name(column: str, value: object) -> str:
    """Returns a group's value of a column in words."""
    if column == "pair":
        return f"`{value}`"
    if column == "align":
        return "not aligned" if value == UNALIGNED else f"aligned by `{value}`"
    return f"{_words(column)} `{format_value(value)}`"


def _sentence(who: str, x: str, first: Row, last: Row) -> str:
    def both(name: str, times: float = 1) -> tuple[str, str] | None:
        a, b = (times * row.get(name, math.nan) for row in (first, last))
        form = ".2f" if times > 1 else ",.0f" if min(a, b) >= 100 else ".3g"
        return None if math.isnan(a + b) else (f"{a:{form}}", f"{b:{form}}")

    parts = []
    if barrier := both("error_barrier", 100):
        parts.append(f"the error barrier goes from {barrier[0]} to {barrier[1]} percentage points")
    if barrier := both("barrier_share", 100):
        parts.append(f"the loss barrier goes from {barrier[0]} to {barrier[1]} %")
    if ratio := both("llfc_ratio"):
        parts.append(
            f"in the median layer, 1 - cosine_α goes from {ratio[0]} to {ratio[1]} times below "
            "1 - cosine_AB"
        )
    if first is last or not parts:
        return ""
    ends = f"{format_value(first[x])} to {format_value(last[x])}"
    begin = f"from {_words(x)} = {ends} {'; '.join(parts)}."
    said = f"{who}: {begin}" if who else begin
    return said[0].upper() + said[1:]


def columns(means: Sequence[Row]) -> dict[str, str]:
    """Returns the columns of the means that fit a table: column -> heading."""
    words = {
        "pair": "pair",
        "align": "aligned by",
        "seeds": "seeds",
        "error_barrier": "error barrier (share)",
        "barrier_share": "loss barrier at ½, share",
        "llfc_median": "1 - cosine_α, median layer",
        "llfc_ratio": "times below 1 - cosine_AB",
    }
    first = means[0] if means else {}
    fields = itertools.takewhile(lambda name: name != "pair", first)
    return {name: name for name in fields} | {k: v for k, v in words.items() if k in first}


def spread(means: Sequence[Row]) -> dict[str, str]:
    """Returns the columns that have an interval: column -> column of half its width."""
    return {c: f"{c}_half" for c in columns(means) if means and f"{c}_half" in means[0]}
