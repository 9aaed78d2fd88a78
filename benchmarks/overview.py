"""The table on top of RESULTS.md: each row of the paper, what was run of it, and whether it is met.

Met or not is decided at the thresholds of the verdicts (`llfc_jax.experiments.verdicts`), on the
means over the seeds: the barrier at its highest point, and the distance from LLFC of the median
layer with its ratio to the distance between the ends.
"""

import dataclasses
import math
from collections.abc import Mapping

from summaries import Row, Summary

from llfc_jax.experiments.verdicts import llfc_grade, lmc_grade

WORDS = ("met", "nearly", "not met")


@dataclasses.dataclass(frozen=True)
class Claim:
    """A row of the paper beside the mean that stands for it here.

    Attributes:
        row: its name, and the network.
        size: what was run.
        name: the stored summary.
        pair: the pair that should be connected.
        align: how it is aligned.
        paper: what the paper reports.
        where: swept field -> value, where there are several.
    """

    row: str
    size: str
    name: str
    pair: str
    align: str
    paper: str
    where: Mapping[str, object] = dataclasses.field(default_factory=dict)


CONNECTED = "connected, LLFC (figures)"
CLAIMS = (
    Claim("S1, MLP", "full recipe, 8,000 MNIST digits", "s1_mnist", "spawn_k1", "none", CONNECTED),
    Claim("S1, MLP", "full, on Fashion-MNIST", "s1_full", "spawn_k1", "none", CONNECTED),
    Claim("S1, MLP", "small", "s1_sweep_small", "spawn_k1", "none", CONNECTED),
    Claim("S2, LeNet-5", "small", "s2_small", "spawn_k1", "none", CONNECTED),
    Claim(
        "S3, VGG with BatchNorm", "small: VGG-11, 1/8 of the width", "s3_small", "spawn_k2", "none",
        "connected, LLFC; ends 6.87 / 7.10, stitched 6.88 to 11.84 %",
    ),
    Claim(
        "S3, VGG without", "small: VGG-11, 1/8 of the width", "s3_plain_small", "spawn_k2", "none",
        CONNECTED,
    ),
    Claim(
        "S4, ResNet-20", "full width and data, 20 epochs", "s4_middle", "spawn_k2", "none",
        "connected, LLFC; ends 8.69 / 8.58, stitched 8.99 to 13.35 %",
    ),
    Claim("S4, ResNet-20", "small", "s4_small", "spawn_k2", "none", "the same"),
    Claim("S5, ResNet-50", "small: 1/4 of the width", "s5_small", "spawn_k4", "none", CONNECTED),
    Claim("P1, MLP", "full recipe, 8,000 MNIST digits", "p1_mnist", "independent", "weight",
          CONNECTED),
    Claim("P1, MLP", "the same", "p1_mnist", "independent", "activation", CONNECTED),
    Claim("P1, MLP", "the same", "p1_mnist", "independent", "ste", CONNECTED),
    Claim("P1, MLP", "full, on Fashion-MNIST", "p1_full", "independent", "weight", CONNECTED),
    Claim("P1, MLP", "the same", "p1_full", "independent", "activation", CONNECTED),
    Claim("P1, MLP", "the same", "p1_full", "independent", "ste", CONNECTED),
    Claim("P1, MLP", "small: 12 of 100 epochs", "p1_small", "independent", "weight", CONNECTED),
    Claim("P1, MLP", "the same", "p1_small", "independent", "activation", CONNECTED),
    Claim("P1, MLP", "the same", "p1_small", "independent", "ste", CONNECTED),
    Claim("P2, MLP", "small", "p2_small", "independent", "weight", CONNECTED),
    Claim("P2, MLP", "the same", "p2_small", "independent", "activation", CONNECTED),
    Claim("P2, MLP", "the same", "p2_small", "independent", "ste", CONNECTED),
    Claim(
        "P3, ResNet-20", "small: width 4 of 32", "p3_sweep_small", "independent", "weight",
        CONNECTED, {"network.width": 4.0},
    ),
    Claim(
        "P3, ResNet-20", "the same", "p3_sweep_small", "independent", "activation",
        CONNECTED, {"network.width": 4.0},
    ),
)  # fmt: skip
HEADINGS = (
    "row", "size run", "pair", "LMC", "LLFC", "barrier, points", "1 - cosine_α, median layer",
    "times below the ends'", "ends' error %", "stitched, error %", "paper",
)  # fmt: skip


def overview(summaries: Mapping[str, Summary]) -> str:
    """Returns the table."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
    lines += ["| " + " | ".join(_cells(claim, summaries[claim.name])) + " |" for claim in CLAIMS]
    return "\n".join(lines)


def _cells(claim: Claim, summary: Summary) -> list[str]:
    row = _find(claim, summary)
    pair = claim.pair if claim.align == "none" else f"{claim.pair}, {claim.align}"
    stitched = [100 * row.get(f"stitch_{which}", math.nan) for which in ("best", "worst")]
    barrier, half = (100 * row.get(f"error_barrier{end}", math.nan) for end in ("", "_half"))
    lmc = lmc_grade({"midpoint_barrier": row["error_barrier"]})
    llfc = llfc_grade(row)
    return [
        claim.row,
        f"{claim.size}; {row['seeds']} seed{'s' if row['seeds'] > 1 else ''}",
        pair,
        "" if lmc is None else WORDS[lmc],
        "" if llfc is None else WORDS[llfc],
        f"{barrier:.2f}" + ("" if math.isnan(half) else f" ± {half:.2f}"),
        f"{row['llfc_median']:.2g}",
        f"{row['llfc_ratio']:.3g}",
        f"{100 * row['error_a']:.2f} / {100 * row['error_b']:.2f}",
        "" if math.isnan(stitched[0]) else f"{stitched[0]:.2f} to {stitched[1]:.2f}",
        claim.paper,
    ]


def _find(claim: Claim, summary: Summary) -> Row:
    """Returns the mean that a claim is about."""
    wanted = {"pair": claim.pair, "align": claim.align, **claim.where}
    (row,) = [r for r in summary.means if all(r[k] == v for k, v in wanted.items())]
    return row
