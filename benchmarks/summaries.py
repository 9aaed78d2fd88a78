"""What is kept of finished runs: JSON files in benchmarks/measured, one a table of RESULTS.md.

A file holds a row per run, pair and alignment; means and intervals over the seeds are computed from
them when it is read. Where the runs' directories were gone before this was kept, it holds the means
alone, as they stood in the table (`"source": "table"`), rounded as they were printed there.
"""

import csv
import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from llfc_jax.experiments.sweep import over_seeds
from llfc_jax.training import parse_pair_name

MEASURED = Path(__file__).resolve().parent / "measured"
RECIPE = ("epochs", "batch_size", "optimizer", "learning_rate", "schedule")
MIDDLE = 0.5
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Summary:
    """What is known of the runs behind one table.

    Attributes:
        config: network, data set and recipe: group -> field -> value.
        fields: swept fields other than the seed.
        environment: device and versions; empty where they were not kept.
        source: "runs", or "table" where only the printed means are left.
        rows: a row per run, pair and alignment; of a table, the means.
    """

    config: Mapping[str, Mapping[str, Any]]
    fields: Sequence[str]
    environment: Mapping[str, Any]
    source: Literal["runs", "table"]
    rows: list[Row]

    @property
    def means(self) -> list[Row]:
        """A row per setting, pair and alignment: means over the seeds and their 95 % intervals."""
        return self.rows if self.source == "table" else over_seeds(self.rows, self.fields)


def load(path: Path) -> Summary:
    """Returns a stored summary."""
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = [{k: math.nan if v is None else v for k, v in row.items()} for row in content["rows"]]
    return Summary(**(content | {"rows": rows}))


def load_all() -> dict[str, Summary]:
    """Returns every stored summary by its name."""
    return {path.stem: load(path) for path in sorted(MEASURED.glob("*.json"))}


def store(summary: Summary, path: Path) -> None:
    """Writes a summary, a line per row so that changes can be read."""
    content = dataclasses.asdict(summary)
    rows = content.pop("rows")
    head = json.dumps(content, indent=1, ensure_ascii=False)[:-2]
    lines = ",\n  ".join(json.dumps(_nulls(row), ensure_ascii=False) for row in rows)
    path.write_text(f'{head},\n "rows": [\n  {lines}\n ]\n}}\n', encoding="utf-8")


def read(directory: Path) -> Summary:
    """Returns the summary of a finished sweep's directory, or of a single run's.

    Raises:
        SystemExit: no run of the sweep is done.
    """
    if not (directory / "sweep.json").exists():
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        details = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
        rows = _rows_of_run(directory, {"seed": config.get("seed", 0)}, config)
        return Summary(_shorten(config), [], shorten_environment(details), "runs", rows)
    sweep = json.loads((directory / "sweep.json").read_text(encoding="utf-8"))
    with (directory / "sweep.csv").open(encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    if not listed:
        sys.exit(f"{directory}: no run of this sweep is done yet")
    names = list(listed[0])
    swept = names[: names.index("k")]
    order = list(dict.fromkeys(tuple(row[name] for name in swept) for row in listed))
    points = {run: _point(run, swept) for run in (directory / "runs").glob("*/")}
    runs = sorted(
        (run for run in points if tuple(map(str, points[run].values())) in order),
        key=lambda run: order.index(tuple(map(str, points[run].values()))),
    )
    rows = [r for run in runs for r in _rows_of_run(run, points[run], sweep["config"])]
    fields = [name for name in swept if name != "seed"]
    return Summary(_shorten(sweep["config"]), fields, shorten_environment(sweep), "runs", rows)


def _rows_of_run(run: Path, point: Row, config: Mapping[str, Any]) -> list[Row]:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))["summary"]
    medians = layer_medians(run)
    rows = []
    for row in summary:
        fork = parse_pair_name(row["pair"], config["train"]["epochs"]).shared_epochs
        kept = {name: value for name, value in row.items() if name != "verdict"}
        kept |= medians.get((row["pair"], row["align"]), {})
        rows.append(point | {"k": math.nan if fork is None else fork} | kept)
    return rows


def layer_medians(run: Path) -> dict[tuple[str, str], Row]:
    """Returns what a run's summary lacks, of each pair and alignment: medians over layers at ½.

    `weak_ratio` is dist of both sides of weak additivity over that of the ends: it is to this
    condition what Dist_com / min(Dist_W, Dist_H) is to the other. `llfc_ends` is 1 - cosine_AB.
    """
    found: dict[tuple[str, str], Row] = {}
    columns = {"weak_ratio": ("weak_additivity", _weak_ratio), "llfc_ends": ("llfc", _ends)}
    for name, (measure, value) in columns.items():
        values: dict[tuple[str, str], list[float]] = {}
        for row in _rows_at_middle(run / f"{measure}.csv"):
            values.setdefault((row["pair"], row["align"]), []).append(value(row))
        for key, several in values.items():
            found.setdefault(key, {})[name] = _median(several)
    return found


def _rows_at_middle(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    return [row for row in rows if abs(float(row["alpha"]) - MIDDLE) < 1e-6]


def _weak_ratio(row: Mapping[str, str]) -> float:
    baseline = float(row["baseline"] or "nan")
    return float(row["relative"] or "nan") / baseline if baseline > 0 else math.nan


def _ends(row: Mapping[str, str]) -> float:
    return float(row["baseline"]) if row["informative"] == "True" else math.nan


def _median(values: Sequence[float]) -> float:
    finite = sorted(v for v in values if math.isfinite(v))
    if not finite:
        return math.nan
    half = len(finite) // 2
    return finite[half] if len(finite) % 2 else (finite[half - 1] + finite[half]) / 2


def _point(run: Path, names: Sequence[str]) -> Row:
    """Returns the swept values of one run, from the run's own config."""
    if not (run / "summary.json").exists():
        return {}
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    found: Row = {}
    for name in names:
        value: Any = config
        for part in name.split("."):
            value = value[part]
        found[name] = value if isinstance(value, (int, float, str)) else "x".join(map(str, value))
    return found


def _shorten(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns what identifies the runs: network, data without its defaults, the recipe."""
    data = {k: v for k, v in config["data"].items() if k != "data_dir"}
    if data.get("path"):
        data["path"] = Path(data["path"]).name  # the folder is of one machine
    recipe = (*RECIPE, *(["weight_decay"] if config["train"].get("weight_decay") else []))
    return {
        "network": dict(config["network"]),
        "data": {k: v for k, v in data.items() if v is not None},
        "train": {name: config["train"][name] for name in recipe},
    }


def shorten_environment(details: Mapping[str, Any]) -> dict[str, Any]:
    """Returns device, versions and date of what a directory records."""
    found = details.get("environment") or {}
    kept = {k: found[k] for k in ("device", "python", "jax", "flax", "llfc_jax") if k in found}
    return kept | {"written": str(details.get("written", ""))[:10]}


def _nulls(row: Row) -> Row:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
