"""What all runs together say: does LLFC predict the barrier, and which condition breaks first.

    python benchmarks/findings.py                       # of what is kept in benchmarks/measured
    python benchmarks/findings.py out/mlp_k out/mlp_width   # of runs' or sweeps' directories
    python benchmarks/findings.py --figures docs/images # writes the figures as well
    python benchmarks/findings.py --write               # writes the tables into docs/results.md

The first table has Spearman's rank correlation of the barrier with each quantity of the summary,
over one point per setting, pair and alignment: means over seeds, without runs at chance. Points of
one sweep are no independent evidence, so the 95 % intervals are over resampled sweeps, not points.
"within" is the mean of the correlations inside each sweep.

The second table follows both conditions of Theorem 1 along whatever a sweep varies: the distance of
their two sides over that between the two ends, median layer. A condition is said to break where
this exceeds 0.1, the share at which LLFC itself is said to fail (`llfc_jax.experiments.verdicts`).
"""

import argparse
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pages import write_table
from scipy.stats import rankdata
from summaries import Row, Summary, load_all, read

from llfc_jax.experiments.verdicts import LINEARITY
from llfc_jax.report import style
from llfc_jax.report.charts import Chart
from llfc_jax.report.figures import save
from llfc_jax.report.vega import build_spec

PAGE = Path(__file__).resolve().parent.parent / "docs" / "results.md"
BROKEN = 1 / LINEARITY[0][1]
RESAMPLES = 2_000
ENOUGH = 4  # points from which a correlation inside one sweep counts
FLOOR = 0.01  # percentage points: what a logarithmic axis shows of smaller barriers
Quantity = Callable[[Row], float]


def column(name: str) -> Quantity:
    """Returns the quantity that stands in a column."""
    return lambda row: row.get(name, math.nan)


def ends_distance(row: Row) -> float:
    """Returns 1 - cosine_AB, median layer; where layers were not kept, distance times ratio."""
    known = column("llfc_ends")(row)
    product = column("llfc_median")(row) * column("llfc_ratio")(row)
    return product if math.isnan(known) else known


PREDICTORS: Mapping[str, Sequence[Quantity]] = {
    "1 - cosine_α, median layer": [column("llfc_median")],
    "1 - cosine_α, worst layer": [column("llfc_worst")],
    "1 - cosine_AB, the ends' distance": [ends_distance],
    "1 - cosine_α, given 1 - cosine_AB": [column("llfc_median"), ends_distance],
    "1 - cosine_AB, given 1 - cosine_α": [ends_distance, column("llfc_median")],
    "1 - cosine_α / (1 - cosine_AB)": [lambda row: 1 / column("llfc_ratio")(row)],
    "Dist_com ratio": [column("com_ratio")],
    "weak additivity, dist": [column("weak_median")],
}
TITLES = {
    "mlp_k": "MLP",
    "lenet_k": "LeNet-5",
    "s4_small": "ResNet-20, small",
    "s4_middle": "ResNet-20",
    "s1_full": "MLP, full",
    "s2_full": "LeNet-5, full",
    "mlp_rate": "MLP",
    "lenet_rate": "LeNet-5",
    "mlp_width": "MLP",
}
AXES = {
    "k": "k: shared epochs",
    "train.learning_rate": "learning rate",
    "network.widths": "width",
    "network.width": "width",
}
Groups = Mapping[str, Sequence[Row]]


def barrier(row: Row) -> float:
    """Returns the error barrier as a share, or that of the loss where there is no error rate."""
    values = [row.get(name, math.nan) for name in ("error_barrier", "barrier_share")]
    return next((v for v in values if not math.isnan(v)), math.nan)


def correlate(groups: Groups, columns: Sequence[Quantity], rng: np.random.Generator) -> list[str]:
    """Returns the cells of one row: points, correlation over all of them, and within the sweeps.

    Args:
        groups: sweep -> its means.
        columns: the quantity; a second one is held fixed (partial correlation).
        rng: draws the sweeps.
    """
    every = (*columns, barrier)
    pairs = [np.array([[of(row) for of in every] for row in rows]) for rows in groups.values()]
    pairs = [p[np.isfinite(p).all(1)] for p in pairs]
    pairs = [p for p in pairs if len(p)]
    if not pairs:
        return ["0", "0", "", ""]
    within = [_rank_correlation(p) for p in pairs if len(p) >= ENOUGH]
    within = np.array([r for r in within if math.isfinite(r)])
    everywhere, inside = [], []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(pairs), size=len(pairs))
        everywhere.append(_rank_correlation(np.concatenate([pairs[i] for i in drawn])))
        if len(within):
            inside.append(within[rng.integers(len(within), size=len(within))].mean())
    whole = _rank_correlation(np.concatenate(pairs))
    mean = within.mean() if len(within) else math.nan
    return [
        str(sum(map(len, pairs))),
        str(len(pairs)),
        _interval(whole, everywhere),
        _interval(mean, inside),
    ]


def _rank_correlation(points: np.ndarray) -> float:
    if len(points) < ENOUGH or any(np.ptp(column) == 0 for column in points.T):
        return math.nan
    ranks = rankdata(points, axis=0)
    if points.shape[1] == 3:
        others = np.column_stack([np.ones(len(ranks)), ranks[:, 1]])
        ranks = ranks - others @ np.linalg.lstsq(others, ranks, rcond=None)[0]
    first, last = ranks[:, 0], ranks[:, -1]
    return (
        float(np.corrcoef(first, last)[0, 1]) if min(first.std(), last.std()) > 1e-9 else math.nan
    )


def _interval(value: float, resampled: Sequence[float]) -> str:
    finite = [v for v in resampled if math.isfinite(v)]
    if math.isnan(value) or not finite:
        return ""
    low, high = np.percentile(finite, (2.5, 97.5))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def informative_means(summary: Summary) -> list[Row]:
    """Returns the means over the runs whose features say something: no end is at chance."""
    rows = [row for row in summary.rows if row.get("informative", True)]
    return dataclasses.replace(summary, rows=rows).means


def axis_of(summary: Summary) -> str | None:
    """Returns what a sweep varies: the one swept field, else k where there are several."""
    known = [field for field in summary.fields if field in AXES]
    if known:
        return known[0]
    shared = {row["k"] for row in summary.rows if not math.isnan(row["k"])}
    return "k" if len(shared) > 2 else None


def follow_conditions(name: str, summary: Summary) -> list[Row]:
    """Returns a row per point of a sweep: its place on the axis, and both conditions' ratios."""
    axis = axis_of(summary)
    if axis is None:
        return []
    rows = []
    for mean in informative_means(summary):
        if math.isnan(mean.get("weak_ratio", math.nan)) or math.isnan(mean["com_ratio"]):
            continue
        aligned = "" if mean["align"] == "none" else f", {mean['align']} matching"
        unmatched = ", not matched" if mean["pair"] == "independent" and not aligned else ""
        row: Row = {"sweep": f"{TITLES.get(name, name)}{aligned or unmatched}", "axis": axis}
        place = mean[axis]
        row["x"] = float(str(place).partition("x")[0])
        names = ("weak_ratio", "com_ratio", "llfc_ratio", "error_barrier")
        columns = [f"{name}{end}" for name in names for end in ("", "_half")]
        rows.append(row | {column: mean.get(column, math.nan) for column in columns})
    return rows


def table_of_conditions(rows: Sequence[Row]) -> list[str]:
    """Returns a line per sweep: both ratios at its ends, and which breaks first."""
    lines = [
        "| along | network | from, to | weak additivity | commutativity | breaks |",
        "|---" * 6 + "|",
    ]
    for key in dict.fromkeys((row["axis"], row["sweep"]) for row in rows):
        chosen = [row for row in rows if (row["axis"], row["sweep"]) == key]
        chosen.sort(key=lambda row: row["x"], reverse=key[0] != "train.learning_rate")
        ends = chosen[0], chosen[-1]
        moves = [" → ".join(f"{row[n]:.2g}" for row in ends) for n in ("weak_ratio", "com_ratio")]
        span = f"{ends[0]['x']:g} → {ends[1]['x']:g}"
        cells = (AXES[key[0]].partition(":")[0], key[1], span, *moves, _breaks(chosen))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _breaks(rows: Sequence[Row]) -> str:
    """Returns which condition passes the threshold first, in the order of the rows, and where."""
    words = []
    for name, label in (("weak_ratio", "weak additivity"), ("com_ratio", "commutativity")):
        at = next((i for i, row in enumerate(rows) if row[name] > BROKEN), None)
        if at is not None:
            where = "from the start" if at == 0 else f"at {rows[at]['x']:g}"
            words.append((at, f"{label} {where}"))
    return ", ".join(text for _, text in sorted(words)) or "neither"


def scatter(groups: Groups) -> tuple[Chart, list[Row]]:
    """Returns the figure of barriers against distances, with its rows."""
    rows = []
    for of_sweep in groups.values():
        for row in of_sweep:
            distance, height = row.get("llfc_median", math.nan), 100 * barrier(row)
            if distance > 0 and not math.isnan(height):
                kinds = {"spawn": "spawned", "finetune": "fine-tuned"}
                kind = kinds.get(row["pair"].partition("_")[0], "independent")
                kind = kind if row["align"] == "none" else "independent, matched"
                rows.append(
                    {"x": math.log10(distance), "barrier": max(height, FLOOR), "pairs": kind}
                )
    chart = Chart(
        name="findings_barrier",
        title="Barrier against the distance from LLFC",
        caption="One dot per setting, pair and alignment, means over seeds.",
        x="x",
        y={"barrier": "barrier"},
        x_label="log10 of 1 - cosine_α at α = ½, median layer",
        y_label="barrier, percentage points",
        lines="pairs",
        panels=(),
        log=True,
        mark="dots",
    )
    return chart, rows


def condition_chart(axis: str) -> Chart:
    """Returns the figure of both conditions along an axis."""
    return Chart(
        name=f"findings_{AXES[axis].partition(':')[0].replace('learning ', '')}",
        title=f"Both conditions of LLFC along {AXES[axis].partition(':')[0]}",
        caption="Distance of a condition's two sides over that of the ends, median layer.",
        x="x",
        y={"weak_ratio": "weak additivity", "com_ratio": "commutativity"},
        x_label=AXES[axis],
        y_label="distance / that of the ends",
        band={"weak_ratio": "weak_ratio_half", "com_ratio": "com_ratio_half"},
        spread="bars",
        panels=("sweep",),
        log=True,
        log_x=axis != "k",
    )


def tables(summaries: Mapping[str, Summary]) -> str:
    """Returns both tables in Markdown."""
    groups = {name: informative_means(summary) for name, summary in summaries.items()}
    lines = ["| quantity at α = ½ | points | sweeps | over all points | within a sweep |"]
    lines.append("|---|---|---|---|---|")
    for name, columns in PREDICTORS.items():
        cells = correlate(groups, columns, np.random.default_rng(0))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *table_of_conditions(conditions(summaries))])


def conditions(summaries: Mapping[str, Summary]) -> list[Row]:
    """Returns both conditions along whatever each sweep varies."""
    return [row for name, summary in summaries.items() for row in follow_conditions(name, summary)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directories", nargs="*", type=Path)
    parser.add_argument("--figures", type=Path, help="folder for the figures, as SVG")
    parser.add_argument("--write", action="store_true", help="write the tables of docs/results.md")
    given = parser.parse_args()
    summaries = {d.name: read(d) for d in given.directories} or load_all()
    found = tables(summaries)
    print(found)
    if given.write:
        write_table(PAGE, "findings", found)
    if given.figures:
        groups = {name: informative_means(summary) for name, summary in summaries.items()}
        charts, rows = [scatter(groups)], conditions(summaries)
        for axis in dict.fromkeys(row["axis"] for row in rows):
            charts.append((condition_chart(axis), [row for row in rows if row["axis"] == axis]))
        for chart, drawn in charts:
            save(build_spec(chart, drawn, style.SCREEN), given.figures / f"{chart.name}.svg")


if __name__ == "__main__":
    main()
