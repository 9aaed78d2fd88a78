"""Verdicts: what a row of the summary says in words, decided at thresholds that stand here.

Both verdicts are taken at α = ½, which is always measured, so they do not depend on the grid of α:

- *LMC* holds where the error at ½ is at most 1 point above the mean of the ends' errors, and
  nearly holds up to 3 points.
- *LLFC* holds where, in the median layer, 1 - cosine_α is at most 0.05 and at least 10 times below
  1 - cosine_AB, and nearly holds up to 0.1 and from 5 times on.
- *CTL*, of fine-tuned networks, is LLFC on the data of each of their tasks, at the same thresholds;
  that task counts on which it holds less.

Where the task has no error rate, the barrier at ½ is that of the loss, as a share of the way from
the ends' mean loss to that of a predictor that ignores the input; the thresholds are the same.

Both are *uninformative* where an end is no better than chance (than that predictor), and LLFC also
where the ends have the same features (`measures.llfc`); then no verdict is given.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from llfc_jax.io import Row
from llfc_jax.report.numbers import format_number
from llfc_jax.report.page import Verdict

# Barrier at ½, as a share, up to which LMC holds, and nearly holds.
BARRIER = (0.01, 0.03)
# Distance up to which, and ratio of baseline to distance from which, LLFC holds, and nearly holds.
LINEARITY = ((0.05, 10.0), (0.1, 5.0))

AT_CHANCE = (
    "an end is no better than chance, so neither a flat line nor linear features would mean "
    "anything."
)
UNINFORMATIVE = (
    "LLFC says nothing here, since an end is no better than chance or the ends have the same "
    "features."
)
SAME = "LLFC says nothing here, since the two ends have nearly the same features."

UNSEEN = "the way to the loss of a predictor that ignores the input"

Grade = Literal[0, 1, 2]
"""0 where a property holds, 1 where it nearly holds, 2 where it does not."""


def lmc_grade(row: Mapping[str, Any]) -> Grade | None:
    """Returns whether the pair is linearly mode connected; None where that was not measured."""
    barrier = row.get("barrier_share", row.get("midpoint_barrier", math.nan))
    if math.isnan(barrier) or not row.get("above_chance", True):
        return None
    return _grade(sum(barrier > limit for limit in BARRIER))


def llfc_grade(row: Mapping[str, Any]) -> Grade | None:
    """Returns whether LLFC holds in the median layer; None where it says nothing."""
    return _linearity_grade(row, "llfc") if row.get("informative", True) else None


def ctl_grade(row: Mapping[str, Any]) -> Grade | None:
    """Returns whether CTL holds in the median layer; None where it says nothing."""
    return _linearity_grade(row, "ctl")


def _linearity_grade(row: Mapping[str, Any], measure: str) -> Grade | None:
    distance, ratio = (row.get(f"{measure}_{name}", math.nan) for name in ("median", "ratio"))
    if math.isnan(distance):
        return None
    return _grade(sum(distance > close or not ratio >= factor for close, factor in LINEARITY))


def _grade(failed: int) -> Grade:
    return 0 if failed == 0 else 1 if failed == 1 else 2


def in_short(row: Mapping[str, Any]) -> str:
    """Returns a row's verdict in a few words, for a column of a table."""
    if row.get("diverged"):
        return "diverged in training"
    words = [
        f"{prefix}{name}"
        for name, grade in (
            ("LMC", lmc_grade(row)),
            ("LLFC", llfc_grade(row)),
            ("CTL", ctl_grade(row)),
        )
        if grade is not None
        for prefix in [("", "nearly ", "no ")[grade]]
    ]
    if not row.get("above_chance", True) and ctl_grade(row) is None:
        return "uninformative: an end is at chance"
    if not row.get("informative", True):
        words.append("LLFC uninformative")
    return ", ".join(words)


def label(row: Mapping[str, Any]) -> str:
    """Returns the name of a row's pair, and how it was aligned."""
    align = "" if row["align"] == "none" else f" aligned by {row['align']}"
    return f"`{row['pair']}`{align}"


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Returns a sentence for each pair and alignment, and one that compares best with worst."""
    found = [_verdict(row) for row in rows]
    measured = [row for row in rows if llfc_grade(row) is not None]
    if len(measured) > 1:
        near, far = (choose(measured, key=lambda r: r["llfc_median"]) for choose in (min, max))
        times = far["llfc_median"] / max(near["llfc_median"], 1e-12)
        if times >= 2:
            sentence = (
                f"In the median layer, 1 - cosine_α of {label(far)} is {times:,.0f} times that of "
                f"{label(near)}."
            )
            found.append(Verdict(sentence))
    return found


def _verdict(row: Row) -> Verdict:
    if row.get("diverged"):
        return Verdict(f"{row['diverged']}.", "warning")
    lmc, llfc, ctl = lmc_grade(row), llfc_grade(row), ctl_grade(row)
    if not row.get("above_chance", True) and ctl is None:
        return Verdict(f"{label(row)}: {AT_CHANCE}", "warning")
    parts = [f"{label(row)} {_lmc_words(row, lmc)}"] if lmc is not None else []
    if llfc is not None:
        whose = "Its features" if parts else f"The features of {label(row)}"
        parts.append(f"{whose} {_linearity_words(row, llfc, 'llfc')}")
    if ctl is not None:
        whose = "its features" if parts else f"the features of {label(row)}"
        parts.append(f"On the data of each task, {whose} {_linearity_words(row, ctl, 'ctl')}")
    sentence = f"{'. '.join(parts)}." if parts else f"{label(row)} was measured."
    if not row.get("informative", True):
        beginning = sentence + " " if parts else f"{label(row)}: "
        reason = SAME if row.get("above_chance") else UNINFORMATIVE  # unknown without `lmc`
        return Verdict(f"{beginning}{reason}", "warning")
    tones: tuple[Literal["holds", "plain", "fails"], ...] = ("holds", "plain", "fails")
    grades = [grade for grade in (lmc, llfc, ctl) if grade is not None]
    return Verdict(sentence, tones[max(grades, default=1)])


def _lmc_words(row: Row, grade: Grade) -> str:
    barrier, share = row["midpoint_barrier"], row.get("barrier_share")
    what, height = "error", f"{abs(100 * barrier):.2f} percentage points"
    if share is not None:
        what, height = "loss", format_number(abs(barrier))
    state, side = ("is", "is nearly", "is not")[grade], "below" if barrier < 0 else "above"
    how = "equals" if height.startswith(("0 ", "0.00 ")) else f"is {height} {side}"
    words = f"{state} linearly mode connected: at α = ½ the {what} {how} the mean of the two ends"
    if share is None or barrier < 0:
        return words
    whole = "the ends' loss" if math.isnan(row["loss_trivial"]) else UNSEEN
    return f"{words}, {format_number(100 * share, 3)} % of {whole}"


def _linearity_words(row: Row, grade: Grade, measure: str) -> str:
    state = ("are", "are nearly", "are not")[grade]
    ratio = row[f"{measure}_ratio"]
    side = "below" if ratio >= 1 else "above"
    ratio = ratio if ratio >= 1 else 1 / max(ratio, 1e-300)
    times = f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"
    return (
        f"{state} linear along the line: in the median layer, 1 - cosine_α is "
        f"{format_number(row[f'{measure}_median'], 2)}, {times} times {side} 1 - cosine_AB"
    )
