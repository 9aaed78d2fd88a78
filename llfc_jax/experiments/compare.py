"""Runs read back from their directories and shown side by side on one page.

    python -m llfc_jax.main --compare out/narrow out/wide

Each is the directory of a run of `llfc_jax.main` or of `llfc_jax.study`; what they share is drawn
in the same charts, a line per run.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from llfc_jax.errors import WorkdirError
from llfc_jax.experiments.study_result import Study
from llfc_jax.experiments.verdicts import label, llfc_grade, lmc_grade
from llfc_jax.io import Row
from llfc_jax.measures import MEASURES
from llfc_jax.report.comparison import RUN, Run, make_comparison
from llfc_jax.report.numbers import format_number
from llfc_jax.report.page import Verdict, write_page

PAGE = "comparison.html"
COMPARED = (
    (lmc_grade, "midpoint_barrier", "the barrier at α = ½"),
    (llfc_grade, "llfc_median", "1 - cosine_α of the median layer"),
)


def compare(paths: Sequence[str | os.PathLike[str]], page: str | os.PathLike[str]) -> list[Row]:
    """Writes one page that shows several runs side by side.

    Args:
        paths: directories of runs, in the order in which they are shown.
        page: the HTML file.

    Returns:
        The summary's rows of all runs; the column "run" names the run.

    Raises:
        WorkdirError: fewer than two runs, or a directory that holds none.
    """
    if len(paths) < 2:
        raise WorkdirError("name two or more directories of runs to compare")
    studies = [Study.read(path) for path in paths]
    runs = [
        Run(
            name,
            study.summary,
            [(MEASURES[measure].section, rows) for measure, rows in study.rows.items()],
            {k: v for k, v in study.details.items() if k != "written"},  # never the same
        )
        for name, study in zip(_names(paths), studies, strict=True)
    ]
    columns = {k: v for study in studies for k, v in study.columns.items()}
    rows = [{RUN: run.name, **row} for run in runs for row in run.summary]
    write_page(page, make_comparison(runs, columns, [Verdict(said) for said in spreads(rows)]))
    return rows


def spreads(rows: Sequence[Row]) -> list[str]:
    """Returns how far the runs lie apart: a sentence per pair and alignment that two have."""
    sentences = []
    for name in dict.fromkeys(map(label, rows)):
        parts = []
        for grade, column, words in COMPARED:
            measured = [row for row in rows if label(row) == name and grade(row) is not None]
            if len(measured) > 1:
                ends = [choose(measured, key=lambda row: row[column]) for choose in (min, max)]
                low, high = (format_number(end[column], 3) for end in ends)
                several = f"lies between {low} (`{ends[0][RUN]}`) and {high} (`{ends[1][RUN]}`)"
                parts.append(f"{words} {f'is {low} in all runs' if low == high else several}")
        if parts:
            sentences.append(f"{name}: {'; '.join(parts)}.")
    return sentences


def _names(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Returns the names of directories, or their paths where two have the same name."""
    names = [Path(path).resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(Path(path)) for path in paths]
