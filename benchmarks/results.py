"""The table of RESULTS.md out of the directories of finished sweeps and runs.

    python benchmarks/results.py out/lenet5_mnist_spawn-small out/resnet20_cifar10_spawn-small

A row per pair and alignment: means over seeds, ± half the 95 % interval (Student's t), from each
directory's `sweep_mean.csv`; what they are of, from its `sweep.json`. A single run has one seed and
no interval.
"""

import argparse
import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llfc_jax.experiments.merges import Merges
from llfc_jax.experiments.study_result import Study

Row = dict[str, str]


def number(row: Row, name: str) -> float:
    """A mean; NaN where it was not measured."""
    return float(row.get(name) or "nan")


def points(name: str) -> Callable[[Row], str]:
    """A rate as percentage, with its interval."""

    def cell(row: Row) -> str:
        mean, half = (100 * number(row, n) for n in (name, f"{name}_half"))
        if math.isnan(mean):
            return ""
        return f"{mean:.2f}" if math.isnan(half) else f"{mean:.2f} ± {half:.2f}"

    return cell


def figure(name: str, form: str = ".2g") -> Callable[[Row], str]:
    """A plain number."""
    return lambda row: "" if math.isnan(number(row, name)) else format(number(row, name), form)


def ends(of: str, form: str, factor: float = 1) -> Callable[[Row], str]:
    """Error or loss of both modes, where the task has it."""

    def cell(row: Row) -> str:
        values = [factor * number(row, f"{of}_{which}") for which in "ab"]
        return "" if any(map(math.isnan, values)) else " / ".join(format(v, form) for v in values)

    return cell


def stitched(row: Row) -> str:
    """Least and largest error of a network stitched at any layer."""
    low, high = (100 * number(row, f"stitch_{which}") for which in ("best", "worst"))
    known = not math.isnan(high) and not math.isnan(number(row, "error_a"))
    return f"{low:.2f} to {high:.2f}" if known else ""


COLUMNS: dict[str, Callable[[Row], str]] = {
    "pair": lambda row: row["pair"],
    "aligned": lambda row: row["align"],
    "seeds": lambda row: row["seeds"],
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


def read(directory: Path) -> tuple[list[Row], dict[str, Any]]:
    """Rows and config of a sweep, or of one run."""
    if (directory / "sweep_mean.csv").exists():
        with (directory / "sweep_mean.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return rows, json.loads((directory / "sweep.json").read_text(encoding="utf-8"))["config"]
    found = json.loads((directory / "summary.json").read_text(encoding="utf-8"))["summary"]
    rows = [{"seeds": "1"} | {name: str(value) for name, value in row.items()} for row in found]
    return rows, json.loads((directory / "config.json").read_text(encoding="utf-8"))


def table(directory: Path) -> str:
    """The rows of one directory, under a line that says what they are of."""
    rows, config = read(directory)
    varied = [name for name in rows[0] if name not in ("pair", "align", "k")]
    varied = varied[: varied.index("seeds")]
    merged = {name: f"{name.removeprefix(MERGE)}: loss" for row in rows for name in row
              if name.startswith(MERGE) and not name.endswith(("_half", "_n"))}  # fmt: skip
    every = COLUMNS | {words: figure(name, ".3f") for name, words in merged.items()}
    measured = {name: cell for name, cell in every.items() if any(map(cell, rows))}
    columns = {name: (lambda row, name=name: row[name]) for name in varied} | measured
    data = {k: v for k, v in config["data"].items() if v is not None}
    fixed = {k: v for k, v in config["network"].items() if f"network.{k}" not in varied}
    network = ", ".join(f"{k}={v}" for k, v in fixed.items())
    recipe = ("epochs", "batch_size", "optimizer", "learning_rate", "schedule")
    lines = [
        f"{network}; {', '.join(f'{k}={v}' for k, v in data.items())}; "
        + ", ".join(f"{name}={config['train'][name]}" for name in recipe),
        "",
        "| " + " | ".join(columns) + " |",
        "|---" * len(columns) + "|",
    ]
    lines += ["| " + " | ".join(cell(row) for cell in columns.values()) + " |" for row in rows]
    return "\n".join([*lines, *correlate(directory)])


def correlate(directory: Path) -> list[str]:
    """A line on whether the distance of merges predicts their loss, over all runs; none if none."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directories", nargs="+", type=Path)
    for directory in parser.parse_args().directories:
        if not any((directory / name).exists() for name in ("sweep_mean.csv", "summary.json")):
            parser.error(f"{directory} holds no finished sweep or run; give a run's directory")
        print(table(directory), end="\n\n")


if __name__ == "__main__":
    main()
