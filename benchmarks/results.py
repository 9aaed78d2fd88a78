"""The tables of RESULTS.md out of the directories of finished runs, and whether they still agree.

    python benchmarks/results.py out/lenet5_mnist_spawn-small       # the table of a directory
    python benchmarks/results.py --store s2_small out/lenet5_mnist_spawn-small
    python benchmarks/results.py --check                            # exit status 1 at a difference
    python benchmarks/results.py --write                            # writes every table again

A row per pair and alignment: means over seeds, ± half the 95 % interval (Student's t). `--store`
keeps what the table needs in benchmarks/measured/NAME.json; in RESULTS.md a line
`<!-- measured/NAME.json -->` stands above the table that is made from it, and `<!-- overview -->`
above the one on top (`overview.py`).
"""

import argparse
import difflib
import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from overview import overview
from summaries import MEASURED, Row, Summary, load_all, read, store

from llfc_jax.experiments.merges import Merges
from llfc_jax.experiments.study_result import Study

PAGE = Path(__file__).resolve().parent.parent / "RESULTS.md"
MARK = re.compile(r"<!-- (?:measured/(?P<name>\w+)\.json|overview) -->")


def number(row: Row, name: str) -> float:
    """Returns a mean; NaN where it was not measured."""
    value = row.get(name, math.nan)
    return math.nan if isinstance(value, str) or value is None else float(value)


def points(name: str) -> Callable[[Row], str]:
    """Returns the column of a rate as percentage, with its interval."""

    def cell(row: Row) -> str:
        mean, half = (100 * number(row, n) for n in (name, f"{name}_half"))
        if math.isnan(mean):
            return ""
        return f"{mean:.2f}" if math.isnan(half) else f"{mean:.2f} ± {half:.2f}"

    return cell


def figure(name: str, form: str = ".2g") -> Callable[[Row], str]:
    """Returns the column of a plain number."""
    return lambda row: "" if math.isnan(number(row, name)) else format(number(row, name), form)


def ends(of: str, form: str, factor: float = 1) -> Callable[[Row], str]:
    """Returns the column of both modes' error or loss, where the task has it."""

    def cell(row: Row) -> str:
        values = [factor * number(row, f"{of}_{which}") for which in "ab"]
        return "" if any(map(math.isnan, values)) else " / ".join(format(v, form) for v in values)

    return cell


def stitched(row: Row) -> str:
    """Returns least and largest error of a network stitched at any layer."""
    low, high = (100 * number(row, f"stitch_{which}") for which in ("best", "worst"))
    known = not math.isnan(high) and not math.isnan(number(row, "error_a"))
    return f"{low:.2f} to {high:.2f}" if known else ""


COLUMNS: Mapping[str, Callable[[Row], str]] = {
    "pair": lambda row: row["pair"],
    "aligned": lambda row: row["align"],
    "seeds": lambda row: str(row["seeds"]),
    "error %": points("error"),
    "loss": figure("loss", ".3f"),
    "with REPAIR, error %": points("repaired_error"),
    "with REPAIR, loss": figure("repaired_loss", ".3f"),
    "CPU seconds to place": figure("seconds", ".2g"),
    "features to the models' mean, 1 - cosine": figure("mixture_distance"),
    "ends' error %": ends("error", ".2f", 100),
    "ends' loss": ends("loss", ".3f"),
    "error barrier, points": points("error_barrier"),
    "loss barrier": figure("loss_barrier", ".3f"),
    "at ½, % of the way to the trivial predictor": points("barrier_share"),
    "1 - cosine_α, worst layer": figure("llfc_worst"),
    "median layer": figure("llfc_median"),
    "baseline / distance": figure("llfc_ratio", ".3g"),
    "Dist_com ratio": figure("com_ratio"),
    "stitching, error %": stitched,
    "CTL: 1 - cosine, worst layer": figure("ctl_worst"),
    "CTL, median layer": figure("ctl_median"),
    "CTL: baseline / distance": figure("ctl_ratio", ".3g"),
    "task addition, median layer": figure("ctl_addition"),
}
MERGE = "merge_"  # columns of the loss of a merge, the mean over its tasks


def table(summary: Summary) -> str:
    """Returns the rows of a summary, under a line that says what they are of."""
    rows = summary.means
    merged = {name: f"{name.removeprefix(MERGE)}: loss" for row in rows for name in row
              if name.startswith(MERGE) and not name.endswith(("_half", "_n"))}  # fmt: skip
    every = dict(COLUMNS) | {words: figure(name, ".3f") for name, words in merged.items()}
    measured = {name: cell for name, cell in every.items() if any(map(cell, rows))}
    columns = {f: (lambda row, f=f: str(row[f])) for f in summary.fields} | measured
    groups = [
        {k: v for k, v in group.items() if f"{name}.{k}" not in summary.fields}
        for name, group in summary.config.items()
    ]
    lines = [
        "; ".join(", ".join(f"{k}={v}" for k, v in group.items()) for group in groups if group),
        "",
        "| " + " | ".join(columns) + " |",
        "|---" * len(columns) + "|",
    ]
    lines += ["| " + " | ".join(cell(row) for cell in columns.values()) + " |" for row in rows]
    return "\n".join(lines)


def correlate(directory: Path) -> list[str]:
    """Says whether the distance of merges predicts their loss, over all runs; nothing if none."""
    runs = sorted(path.parent for path in directory.glob("runs/*/merge.json"))
    if not runs and (directory / "merge.json").exists():
        runs = [directory]
    merges = Merges()
    for run in runs:  # the same pair of another seed is another pair
        found = Study.read(run, ()).merges
        table, layers = ([row | {"pair": f"{run.name} {row['pair']}"} for row in rows]
                         for rows in (found.table, found.layers))  # fmt: skip
        merges += Merges(table, layers)
    words = merges.correlation()
    return ["", words] if words else []


def rebuild(text: str, summaries: Mapping[str, Summary]) -> str:
    """Returns the page with every table made again from the stored summaries.

    Raises:
        SystemExit: a table stands there without a mark, or a mark without a summary.
    """
    lines, made, taken = text.split("\n"), [], 0
    for at, line in enumerate(lines):
        if at < taken:
            continue
        mark = MARK.fullmatch(line)
        if not mark and line.startswith("| "):
            sys.exit(f"line {at + 1}: a table without <!-- measured/NAME.json --> above it")
        made.append(line)
        if mark:
            name = mark["name"]
            if name is not None and name not in summaries:
                sys.exit(f"line {at + 1}: there is no benchmarks/measured/{name}.json")
            content = overview(summaries) if name is None else table(summaries[name])
            made += ["", *content.split("\n")]
            taken = _end_of_table(lines, at + 1)
    return "\n".join(made)


def _end_of_table(lines: list[str], start: int) -> int:
    """Returns the line after the table that begins within the few lines from `start` on."""
    at = next((i for i in range(start, min(start + 5, len(lines))) if lines[i][:1] == "|"), start)
    while at < len(lines) and lines[at].startswith("|"):
        at += 1
    return at


def differences(text: str, summaries: Mapping[str, Summary]) -> list[str]:
    """Returns the lines by which the page differs from the stored summaries; none if it agrees."""
    again = rebuild(text, summaries)
    pages = (text.split("\n"), again.split("\n"))
    return list(difflib.unified_diff(*pages, "RESULTS.md", "stored", n=0, lineterm=""))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directories", nargs="*", type=Path)
    parser.add_argument("--store", metavar="NAME", help="keep the directory's rows under a name")
    parser.add_argument("--check", action="store_true", help="compare RESULTS.md with what is kept")
    parser.add_argument("--write", action="store_true", help="write its tables again")
    given = parser.parse_args()
    if not (given.directories or given.check or given.write):
        parser.error("give a directory, --check or --write")
    if given.store and len(given.directories) != 1:
        parser.error("--store NAME takes one directory")
    for directory in given.directories:
        if not any((directory / name).exists() for name in ("sweep.json", "summary.json")):
            parser.error(f"{directory} holds no finished sweep or run; give a run's directory")
        summary = read(directory)
        print("\n".join([table(summary), *correlate(directory)]), end="\n\n")
        if given.store:
            store(summary, MEASURED / f"{given.store}.json")
    if given.check and (lines := differences(PAGE.read_text("utf-8"), load_all())):
        sys.exit("\n".join(lines))
    if given.write:
        PAGE.write_text(rebuild(PAGE.read_text("utf-8"), load_all()), encoding="utf-8")


if __name__ == "__main__":
    main()
