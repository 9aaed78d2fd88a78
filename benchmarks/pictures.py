"""Draws figures of docs/results.md again, from what is kept in benchmarks/measured.

    python benchmarks/pictures.py docs/images

Of sweeps of which single runs were kept, each run is a dot; of the others only the means are left.
Other figures: `benchmarks/findings.py --figures docs/images`, `benchmarks/gallery.py`, and
`benchmarks/matching_study.py --figure docs/images/matching_study.svg`.
"""

import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from summaries import Row, Summary, load_all

from llfc_jax.experiments.sweep import show
from llfc_jax.report import style
from llfc_jax.report.charts import Chart
from llfc_jax.report.figures import save
from llfc_jax.report.vega import build_spec

# Stored sweep -> name of its figures.
SWEEPS = {
    "s1_sweep_small": "mlp_k",
    "s2_sweep_small": "lenet_k",
    "s4_small": "s4_k",
    "p3_sweep_small": "p3_width",
}
FIGURES = {"error_barrier": "barrier", "llfc_ratio": "ratio"}
MATCHED = {"p1_small": "P1", "p2_small": "P2"}  # rows with every matching method


def charts(summary: Summary) -> Iterator[tuple[Chart, list[Row]]]:
    """Yields the charts of a sweep's page, with their rows."""
    unknown = {f"{name}_half": math.nan for name in show.DRAWN}
    means = [{**unknown, **mean} for mean in summary.means]
    runs = summary.rows if summary.source == "runs" else means
    for section, rows in show.sections(runs, means, summary.fields):
        for chart in section.charts:
            yield dataclasses.replace(chart, dots=chart.dots if runs is not means else {}), rows


def methods(stored: Mapping[str, Summary]) -> Iterator[tuple[Chart, list[Row]]]:
    """Yields the charts of every matching method, a line for each row of the paper."""
    rows = [{**mean, "row": row} for name, row in MATCHED.items() for mean in stored[name].means]
    for column, name in FIGURES.items():
        title, label, _ = show.DRAWN[column]
        chart = Chart(
            name=f"methods_{name}",
            title=title,
            caption="Means over three seeds with 95 % intervals, where those were kept.",
            x="align",
            y={column: label},
            x_label="aligned by",
            y_label=label,
            lines="row",
            band={column: f"{column}_half"},
            spread="bars",
            mark="dots",
            panels=(),
            log=column == "error_barrier",
        )
        yield chart, rows


def main() -> None:
    folder, stored = Path(sys.argv[1]), load_all()
    for sweep, name in SWEEPS.items():
        for chart, rows in charts(stored[sweep]):
            column = chart.name.removeprefix("sweep_")
            if column in FIGURES:
                spec = build_spec(chart, rows, style.SCREEN)
                save(spec, folder / f"{name}_{FIGURES[column]}.svg")
    for chart, rows in methods(stored):
        save(build_spec(chart, rows, style.SCREEN), folder / f"{chart.name}.svg")


if __name__ == "__main__":
    main()
