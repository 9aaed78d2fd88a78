"""Gather the runs of a sweep: tables, means with intervals, figures and a page."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from llfc_jax.experiments.config import SEED, Config
from llfc_jax.experiments.provenance import provenance
from llfc_jax.experiments.sweep.grid import axes, done, expand, word
from llfc_jax.experiments.sweep.show import (
    DRAWN,
    LLFC_COLUMNS,
    columns,
    findings,
    sections,
    spread,
)
from llfc_jax.io import Row, aside, nan_for_none, read_sealed, write_csv, write_sealed
from llfc_jax.report import stored
from llfc_jax.report.page import Report, Table, Verdict
from llfc_jax.training import parse_pair_name

CONFIDENCE = 0.95
OWN_COLUMNS = ("pairs", "align")  # swept fields that are columns of every row anyway


def gather(config: Config, workdir: Path) -> tuple[list[Row], list[str]]:
    """Writes tables, figures and page of all runs that are done.

    Writes `sweep.csv` (a row per run, pair and alignment), `sweep_mean.csv` (mean and interval
    over seeds), the same as Parquet where pyarrow is installed, and the report, whose sections
    hold every run beside the mean of its group.
    """
    found: dict[str, Row] = {}
    runs = expand(config)
    missing = [run.name for run in runs if not done(workdir, run)]
    for run in runs:
        if run.name in missing:
            continue
        summary = read_sealed(workdir / "runs" / run.name / "summary.json")
        point = {
            field: _shown(value) for field, value in run.point.items() if field not in OWN_COLUMNS
        }
        for row in summary["summary"]:
            fork = _shared_epochs(run.config, row["pair"])
            full = point | {"k": math.nan if fork is None else fork} | nan_for_none(row)
            # Runs that differ in their pairs may have one in common: it counts once.
            found.setdefault(repr([*point.values(), row["pair"], row["align"]]), full)
    rows = list(found.values())
    means = over_seeds(rows, _fields(config))
    for name, table in (("sweep", rows), ("sweep_mean", means)):
        write_csv(workdir / f"{name}.csv", table)
        _parquet(workdir / f"{name}.parquet", table)
    if rows:
        done_runs = [run.name for run in runs if run.name not in missing]
        _report(config, workdir, rows, means, done_runs, missing)
    return means, missing


def _shared_epochs(config: Config, pair: str) -> int | None:
    """Returns for how many epochs the modes of a pair were one network, where that is known."""
    if pair in config.checkpoints:
        return None
    return parse_pair_name(pair, config.train.epochs).shared_epochs


def _fields(config: Config) -> list[str]:
    """Returns the swept fields that are columns of the means."""
    fields = (field for axis in axes(config.sweep) for field in axis.fields)
    return [field for field in fields if field not in (SEED, *OWN_COLUMNS)]


def _shown(value: Any) -> Any:
    return value if isinstance(value, (int, float, str)) else word(value)


def over_seeds(rows: Sequence[Row], fields: Iterable[str]) -> list[Row]:
    """Returns mean and 95 % interval (Student's t) of every number, over the seeds.

    A row per combination of the other swept fields, pair and alignment: `NAME` is the mean,
    `NAME_half` half the interval's width (NaN below two seeds), `NAME_n` over how many seeds it was
    taken where that is less than `seeds`, the number of runs. Runs that diverged do not enter, and
    those whose LLFC is uninformative do not enter the means of LLFC's columns.
    """
    keys = [*fields, "pair", "align", "k"]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if not row.get("diverged"):
            groups.setdefault(tuple(repr(row[key]) for key in keys), []).append(row)
    return [_mean(group, keys) for group in groups.values()]


def _mean(group: Sequence[Row], keys: Sequence[str]) -> Row:
    mean: Row = {key: group[0][key] for key in keys} | {"seeds": len(group)}
    for name, value in group[0].items():
        if name in keys or name == SEED or isinstance(value, (bool, str)):
            continue
        counted = [
            row
            for row in group
            if not name.startswith(LLFC_COLUMNS) or row.get("informative", True)
        ]
        values = np.array([row[name] for row in counted], float)
        values = values[np.isfinite(values)]
        mean[name], mean[f"{name}_half"] = _interval(values)
        if len(values) < len(group):
            mean[f"{name}_n"] = len(values)
    return mean


def _interval(values: np.ndarray) -> tuple[float, float]:
    if len(values) == 0:
        return math.nan, math.nan
    if len(values) == 1:
        return float(values[0]), math.nan
    from scipy.stats import t as student

    t = student.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)
    return float(values.mean()), float(t * values.std(ddof=1) / math.sqrt(len(values)))


def _parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return
    with aside(path) as place:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), place)


def _report(
    config: Config,
    workdir: Path,
    rows: Sequence[Row],
    means: Sequence[Row],
    names: Sequence[str],
    missing: Sequence[str],
) -> None:
    """Writes `sweep.json`, and the report of a sweep, which can be made again from its files."""
    fields = _fields(config)
    all_runs = len(names) + len(missing)
    details = {
        "config": config.to_dict(),
        "runs": {"done": len(names), "not done": list(missing)},
        **provenance(),
    }
    write_sealed(workdir / "sweep.json", {"means": means, **details})
    said = [f"{len(missing)} of {all_runs} runs are not done yet."] if missing else []
    diverged = sum(bool(row.get("diverged")) for row in rows)
    if diverged:
        said.append(f"{diverged} of {len(rows)} pairs diverged in training; no mean counts them.")
    drawn = sections(rows, means, fields)
    for _, of_kind in drawn:
        counted = [row for row in of_kind if any(f"{name}_mean" in row for name in DRAWN)]
        said += findings(over_seeds(counted, fields), fields)
    caption = "Means over the seeds ± 95 % intervals: one row per setting, pair and alignment"
    report = Report(
        title=f"Sweep: {config.network['name']} on {config.data.name}",
        lead=_lead(config),
        tables=[Table(means, columns(means), caption, spread(means))],
        verdicts=[Verdict(sentence) for sentence in said],
        sections=drawn,
        details=details,
        links={name: f"runs/{quote(name)}/{stored.PAGE}" for name in names},
    )
    stored.write(report, workdir)


def _lead(config: Config) -> str:
    """Returns what was swept over, in a sentence."""
    parts = []
    for fields, values in axes(config.sweep):
        steps = [step[0] if len(fields) == 1 else step for step in values]
        parts.append(f"{', '.join(f'`{f}`' for f in fields)} in {', '.join(map(str, steps))}")
    return f"Every combination of {'; '.join(parts)}."
