"""The findings of an experiment: what each row of the summary says in words."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llfc_jax.io import Row
from llfc_jax.report.page import Verdict

# Error barriers up to these count as none, and as nearly none: 1 and 3 points.
BARRIER = (0.01, 0.03)
# LLFC holds, or nearly holds, where the features are this close to the mixture (1 - cosine α) and
# by this factor closer to it than the two ends are to each other.
LINEAR = ((0.05, 10.0), (0.1, 5.0))
GRADES = ("", "nearly ", "no ")


def lmc_grade(row: Mapping[str, Any]) -> int | None:
    """0 where the pair is linearly mode connected, 1 nearly, 2 not; None where not measured."""
    barrier = row.get("error_barrier", math.nan)
    if math.isnan(barrier):
        return None
    return sum(barrier > limit for limit in BARRIER)


def llfc_grade(row: Mapping[str, Any]) -> int | None:
    """0 where LLFC holds in the median layer, 1 nearly, 2 not; None where it says nothing."""
    distance, ratio = row.get("llfc_median", math.nan), row.get("llfc_ratio", math.nan)
    if math.isnan(distance) or not row.get("telling", True):
        return None
    return sum(distance > close or not ratio >= factor for close, factor in LINEAR)


def words(row: Mapping[str, Any]) -> str:
    """What a row says, in a few words."""
    if row.get("diverged"):
        return "diverged in training"
    if not row.get("telling", True):
        return "LLFC says nothing here: an end is at chance, or the ends' features are alike"
    grades = (("LMC", lmc_grade(row)), ("LLFC", llfc_grade(row)))
    return ", ".join(GRADES[grade] + what for what, grade in grades if grade is not None)


def who(row: Mapping[str, Any]) -> str:
    """The pair, and how it was aligned."""
    align = "" if row["align"] == "none" else f" aligned by {row['align']}"
    return f"`{row['pair']}`{align}"


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """A sentence per pair and alignment, and one that compares the best with the worst."""
    said = [_verdict(row) for row in rows]
    measured = [row for row in rows if llfc_grade(row) is not None]
    if len(measured) > 1:
        near, far = (choose(measured, key=lambda r: r["llfc_median"]) for choose in (min, max))
        times = far["llfc_median"] / max(near["llfc_median"], 1e-12)
        if times >= 2:
            said.append(
                Verdict(
                    f"1 - cosine α of {who(far)} is {times:,.0f} times that of {who(near)} "
                    "in the median layer."
                )
            )
    return said


def _verdict(row: Row) -> Verdict:
    if row.get("diverged"):
        return Verdict(f"{row['diverged']}.", "warning")
    if not row.get("telling", True):
        return Verdict(
            f"{who(row)}: linear features would mean nothing here, since an end is no better than "
            "chance or the two ends have the same features.",
            "warning",
        )
    joined, linear = lmc_grade(row), llfc_grade(row)
    parts = []
    if joined is not None:
        state = ("is", "is nearly", "is not")[joined]
        points = 100 * row["error_barrier"]
        parts.append(f"{state} linearly mode connected (error barrier {points:.2f} points)")
    if linear is not None:
        state = ("are", "are nearly", "are not")[linear]
        parts.append(
            f"its features {state} linear along the line (median layer: 1 - cosine α "
            f"{row['llfc_median']:.2g}, {row['llfc_ratio']:.3g} times below 1 - cosine AB)"
        )
    grades = [grade for grade in (joined, linear) if grade is not None]
    worst = max(grades, default=1)
    tone = "holds" if worst == 0 else "plain" if worst == 1 else "fails"
    return Verdict(f"{who(row)} {'; '.join(parts) or 'was measured'}.", tone)
