"""The findings of an experiment: one row per pair and alignment, and what they say in words."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llfc_jax.report.page import Verdict
from llfc_jax.results import Row

# An error barrier of at most a point counts as none, as in the plots of the literature.
BARRIER = 0.01
# LLFC counts as holding in a layer that is this close to the mixture, and closer to it by this
# factor than the ends are to each other.
DISTANCE, RATIO = 0.05, 10.0


def connected(row: Mapping[str, Any]) -> bool | None:
    """Whether the pair is linearly mode connected; None where that was not measured."""
    barrier = row.get("error_barrier")
    return None if barrier is None or math.isnan(barrier) else barrier <= BARRIER


def linear_features(row: Mapping[str, Any]) -> bool | None:
    """Whether LLFC holds in the median layer; None where it was not measured or says nothing."""
    ratio = row.get("llfc_ratio")
    if ratio is None or not row.get("telling", True) or math.isnan(ratio):
        return None
    return ratio >= RATIO and row["llfc_median"] <= DISTANCE


def words(row: Mapping[str, Any]) -> str:
    """What a row says, in a few words."""
    if row.get("diverged"):
        return "diverged in training"
    if not row.get("telling", True):
        return "LLFC says nothing here: an end is at chance, or the ends' features are alike"
    said = []
    if (joined := connected(row)) is not None:
        said.append("LMC" if joined else "no LMC")
    if (linear := linear_features(row)) is not None:
        said.append("LLFC" if linear else "no LLFC")
    return ", ".join(said)


def who(row: Mapping[str, Any]) -> str:
    """The pair, and how it was aligned."""
    align = "" if row["align"] == "none" else f" aligned by {row['align']}"
    return f"`{row['pair']}`{align}"


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """A sentence per pair and alignment, and one that compares the best with the worst."""
    said = [_verdict(row) for row in rows]
    measured = [
        r for r in rows if r.get("telling") and math.isfinite(r.get("llfc_median", math.nan))
    ]
    if len(measured) > 1:
        near, far = (f(measured, key=lambda r: r["llfc_median"]) for f in (min, max))
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
        return Verdict(f"{who(row)}: {row['diverged']}.", "warning")
    if not row.get("telling", True):
        return Verdict(
            f"{who(row)}: linear features would mean nothing here, since an end is no better than "
            "chance or the two ends have the same features.",
            "warning",
        )
    joined, linear = connected(row), linear_features(row)
    parts = []
    if joined is not None:
        state = "is" if joined else "is not"
        parts.append(
            f"{state} linearly mode connected (error barrier {100 * row['error_barrier']:.2f} "
            "points)"
        )
    if linear is not None:
        parts.append(
            f"its features {'are' if linear else 'are not'} linear along the line (median layer: "
            f"1 - cosine α {row['llfc_median']:.2g}, {row['llfc_ratio']:.3g} times below "
            "1 - cosine AB)"
        )
    good = [x for x in (joined, linear) if x is not None]
    tone = "plain" if not good else "holds" if all(good) else "fails"
    return Verdict(f"{who(row)} {'; '.join(parts)}.", tone)
