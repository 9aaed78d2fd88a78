"""Sweeps: one config, many values; every run resumable, one tidy table at the end.

    python -m llfc_jax.main --config configs/sweep_spawn_mlp.py --workdir out/spawn

`config.sweep` maps fields to the values they take, in groups as the config has them:
`{"seed": (0, 1, 2), "network": {"width": (1, 2, 4)}}`. All combinations are run. Those that differ
in nothing but the seed are trained side by side, as one batch of replicas. Each run has a
directory of its own below `runs/`, complete with its report, so a sweep that was stopped goes on
from what is done, and `--shard i/n` lets n processes on any machines that share the directory do a
part each without talking to each other; each gathers the tables of whatever is done then, and
`--shard 0/0` does nothing else.
"""

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from llfc_jax import experiment
from llfc_jax.config import Config, check
from llfc_jax.errors import ConfigError, TrainingError, WorkdirError
from llfc_jax.progress import Reporter
from llfc_jax.report import figures
from llfc_jax.report.page import write_page
from llfc_jax.results import Chart, Row, Section, write_csv, write_json
from llfc_jax.studies import provenance
from llfc_jax.training import parse_pair
from llfc_jax.workdir import claim, nan_for_none

CONFIDENCE = 0.95
SEED = "seed"


@dataclasses.dataclass(frozen=True)
class Run:
    """One combination of values.

    Attributes:
        name: of its directory, from its values.
        point: field -> value, for the fields swept over.
        config: the config of this run alone.
    """

    name: str
    point: dict[str, Any]
    config: Config


def expand(config: Config) -> list[Run]:
    """All runs of a sweep: axes by name, the last changing fastest, and the seed last of all.

    Raises:
        ConfigError: no axis, an axis without values or with a value twice, a field that does not
            exist, or a combination that is no valid config.
    """
    swept = dict(sorted(axes(config.sweep), key=lambda axis: (axis[0] == SEED, axis[0])))
    if not swept:
        raise ConfigError("config.sweep is empty; map a field to its values: {'seed': (0, 1, 2)}")
    for field, values in swept.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise ConfigError(f"config.sweep[{field!r}] must be a tuple of values, not {values!r}")
        if len({repr(value) for value in values}) != len(values):
            raise ConfigError(f"config.sweep[{field!r}] holds a value twice: {values!r}")
    runs = []
    for values in itertools.product(*swept.values()):
        point = dict(zip(swept, values, strict=True))
        fields = config.to_dict() | {"sweep": {}}
        for field, value in point.items():
            _set(fields, field, value)
        name = ",".join(f"{field.split('.')[-1]}={_word(value)}" for field, value in point.items())
        runs.append(Run(name, point, check(fields)))
    return runs


def axes(sweep: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """(field, values) of every axis, a field's group before a dot: `train.learning_rate`."""
    for name, values in sweep.items():
        if isinstance(values, Mapping):
            yield from axes(values, f"{before}{name}.")
        else:
            yield f"{before}{name}", values


def _set(fields: dict[str, Any], field: str, value: Any) -> None:
    *groups, last = field.split(".")
    for group in groups:
        if not isinstance(fields.get(group), dict):
            raise ConfigError(f"config.sweep: there is no group {group!r} in the config")
        fields[group] = dict(fields[group])
        fields = fields[group]
    fields[last] = value


def _word(value: Any) -> str:
    """A value as part of a directory's name."""
    if isinstance(value, (list, tuple)):
        return "x".join(map(_word, value))
    return re.sub(r"[^A-Za-z0-9.+-]", "_", str(value))


def together(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs in groups that differ in the seed alone: these train side by side."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        rest = {field: value for field, value in run.point.items() if field != SEED}
        groups.setdefault(repr(rest), []).append(run)
    return list(groups.values())


def shard(groups: Sequence[list[Run]], which: str) -> list[list[Run]]:
    """Part i of n, for which = "i/n", i from 0; "0/0" is no part.

    Raises:
        ConfigError: `which` says no part.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", which)
    i, n = (int(match[1]), int(match[2])) if match else (-1, 0)
    if (i, n) == (0, 0):
        return []
    if not 0 <= i < n:
        raise ConfigError(f"--shard must be i/n with i from 0 to n - 1, not {which!r}")
    return list(groups[i::n])


def run(
    config: Config, workdir: Path, reporter: Reporter, which: str = "0/1"
) -> tuple[list[Row], list[str]]:
    """Run a sweep, or a part of it, and gather what is done.

    Args:
        config: with `sweep` filled in; every combination is checked before the first starts.
        workdir: directory of the sweep.
        reporter: shows progress.
        which: part "i/n".

    Returns:
        The means over seeds, and the names of runs that are not done yet.

    Raises:
        ConfigError: see `expand` and `shard`.
        WorkdirError: a run's directory holds something else, or another process has it.
    """
    runs = expand(config)
    groups = shard(together(runs), which)
    for number, group in enumerate(groups):
        reporter.say(f"[{number + 1}/{len(groups)}] {', '.join(run.name for run in group)}")
        _run_group(group, workdir, reporter)
    return gather(config, workdir)


def _run_group(group: Sequence[Run], workdir: Path, reporter: Reporter) -> None:
    missing = [run for run in group if not done(workdir, run)]
    if not missing:
        return
    seeds = tuple(run.config.seed for run in group)
    trained = experiment.train(
        group[0].config, seeds, workdir / "trained" / _shared(group), reporter
    )
    for run in missing:
        path = workdir / "runs" / run.name
        with claim(path, run.config.to_dict()) as held:
            try:
                experiment.run(run.config, held, reporter, trained[run.config.seed])
            except TrainingError as error:  # said in its summary; the other runs go on
                reporter.say(f"{run.name}: {error}")


def _shared(group: Sequence[Run]) -> str:
    """Directory of the checkpoints that a group shares."""
    words = [part for part in group[0].name.split(",") if not part.startswith(f"{SEED}=")]
    return ",".join(words) or "all"


def done(workdir: Path, run: Run) -> bool:
    """Whether a run has its summary, for this very config."""
    file = workdir / "runs" / run.name / "summary.json"
    try:
        made = json.loads(file.read_text(encoding="utf-8"))["config"]
    except FileNotFoundError:
        return False
    except (ValueError, KeyError) as error:
        raise WorkdirError(f"{file} is damaged; delete it and run again") from error
    return made == json.loads(json.dumps(run.config.to_dict()))


def gather(config: Config, workdir: Path) -> tuple[list[Row], list[str]]:
    """Tables, figures and page of all runs that are done.

    Writes `sweep.csv` (a row per run, pair and alignment), `sweep_mean.csv` (mean and interval
    over seeds), the same as Parquet where pyarrow is installed, figures and `report.html`.
    """
    rows: list[Row] = []
    missing = []
    for run in expand(config):
        if not done(workdir, run):
            missing.append(run.name)
            continue
        summary = json.loads((workdir / "runs" / run.name / "summary.json").read_text("utf-8"))
        for row in summary["summary"]:
            point = {field: _shown(value) for field, value in run.point.items()}
            fork = parse_pair(row["pair"], run.config.train.epochs)
            rows.append(point | {"k": math.nan if fork is None else fork} | nan_for_none(row))
    means = over_seeds(rows, [field for field, _ in axes(config.sweep) if field != SEED])
    for name, table in (("sweep", rows), ("sweep_mean", means)):
        write_csv(workdir / f"{name}.csv", table)
        _parquet(workdir / f"{name}.parquet", table)
    if means:
        _report(config, workdir, rows, means, missing)
    return means, missing


def _shown(value: Any) -> Any:
    return value if isinstance(value, (int, float, str)) else _word(value)


def over_seeds(rows: Sequence[Row], fields: Iterable[str]) -> list[Row]:
    """Mean and 95 % interval (Student's t) of every number, over the seeds.

    A row per combination of the other axes, pair and alignment: `NAME` is the mean, `NAME_half`
    half the interval's width (NaN below two seeds), `seeds` how many there were. Runs that
    diverged do not enter.
    """
    keys = [*fields, "pair", "align", "k"]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if not row.get("diverged"):
            groups.setdefault(tuple(repr(row[key]) for key in keys), []).append(row)
    means = []
    for group in groups.values():
        mean: Row = {key: group[0][key] for key in keys} | {"seeds": len(group)}
        for name, value in group[0].items():
            if name in keys or name == SEED or isinstance(value, (bool, str)):
                continue
            values = np.array([row[name] for row in group], float)
            mean[name], mean[f"{name}_half"] = _interval(values[np.isfinite(values)])
        means.append(mean)
    return means


def _interval(values: np.ndarray) -> tuple[float, float]:
    if len(values) == 0:
        return math.nan, math.nan
    if len(values) == 1:
        return float(values[0]), math.nan
    t = scipy.stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)
    return float(values.mean()), float(t * values.std(ddof=1) / math.sqrt(len(values)))


def _parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return
    aside = path.with_name(f".{path.name}")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), aside)
    aside.replace(path)


def charts(means: Sequence[Row], fields: Sequence[str]) -> tuple[Chart, ...]:
    """Barrier and LLFC against the axis that varies most: k, or the first field swept over."""
    varied = [axis for axis in fields if len({repr(row[axis]) for row in means}) > 1]
    forks = {row["k"] for row in means if not math.isnan(row["k"])}
    x = varied[0] if varied and len(forks) < 2 else "k" if len(forks) > 1 else "pair"
    lines = next((axis for axis in varied if axis != x), None)
    measured = {name for row in means for name in row}
    drawn = (
        ("error_barrier", "Error barrier", "error barrier", False),
        ("llfc_median", "1 - cosine α, median layer", "1 - cosine α", True),
        ("llfc_ratio", "How much closer to the mixture than a to b", "ratio", True),
        ("com_ratio", "Commutativity: dist com / least of dist W, dist H", "ratio", True),
    )
    return tuple(
        Chart(
            name=f"sweep_{name}",
            title=title,
            caption="Mean over seeds; band: 95 % interval.",
            x=x,
            y={name: label},
            x_label="k, epochs shared" if x == "k" else x,
            y_label=label,
            lines=lines,
            band={name: f"{name}_half"},
            panels=("align",) if x in ("k", "pair") else ("pair", "align"),
            log=log,
        )
        for name, title, label, log in drawn
        if name in measured
    )


def columns(means: Sequence[Row]) -> dict[str, str]:
    """The columns of the means that fit a table: column -> heading."""
    words = {
        "pair": "pair",
        "align": "aligned",
        "seeds": "seeds",
        "error_barrier": "error barrier",
        "error_barrier_half": "±",
        "llfc_median": "1 - cos α, median layer",
        "llfc_median_half": "±",
        "llfc_ratio": "baseline / distance",
    }
    first = means[0] if means else {}
    fields = itertools.takewhile(lambda name: name != "pair", first)
    return {name: name for name in fields} | {k: v for k, v in words.items() if k in first}


def _report(
    config: Config,
    workdir: Path,
    rows: Sequence[Row],
    means: Sequence[Row],
    missing: Sequence[str],
) -> None:
    swept = dict(axes(config.sweep))
    fields = [field for field in swept if field != SEED]
    shown = [row for row in means if not math.isnan(row["k"])] or list(means)
    section = Section(
        name="sweep",
        title="Over all runs",
        text="Means over seeds with 95 % intervals (Student's t). Every run has its own report in "
        "`runs/`.",
        charts=charts(shown, fields),
        columns={name: name for name in means[0]},
    )
    details = {
        "config": config.to_dict(),
        "runs": {"done": len({repr([r[f] for f in swept]) for r in rows}),
                 "not done": list(missing)},
        **provenance(),
    }  # fmt: skip
    write_json(workdir / "sweep.json", {"means": means, **details})
    write_page(
        workdir / "report.html",
        title=f"Sweep: {config.network['name']} on {config.data.name}",
        lead="Every combination of "
        + "; ".join(f"`{field}` in {values}" for field, values in swept.items()),
        summary_rows=means,
        summary_columns=columns(means),
        verdicts=[f"{len(missing)} runs are not done yet."] if missing else [],
        sections=[(section, shown, figures.save_all(section, shown, workdir / "figures"))],
        details=details,
    )
