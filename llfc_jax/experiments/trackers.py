"""Experiment trackers: what a run found, written into Weights & Biases, TensorBoard or MLflow.

    llfc-jax run configs/quickstart.py --config.trackers="('tensorboard',)"

A tracker is a function that takes a `TrackedRun` once its results are written, and is listed by
`@tracker(NAME, PACKAGE)`. The packages are imported only where they are chosen. Where a tracker
writes to, and whether offline, its own variables of the environment say: `WANDB_MODE=offline`,
`WANDB_PROJECT`, `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME`.
"""

import dataclasses
import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from llfc_jax.errors import ConfigError, unknown
from llfc_jax.io import Row, write_json
from llfc_jax.report.numbers import finite

PROJECT = "llfc_jax"
LOGGED = "trackers.json"  # what a run's directory says was logged: tracker -> digest


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """What a tracker gets of a run.

    Attributes:
        name: of the run.
        directory: the run's.
        config: field, with its group and a dot -> value.
        history: rows of training: pair, run, epoch, loss, accuracy.
        summary: one row for each pair and alignment.
        page: the report.
    """

    name: str
    directory: Path
    config: Mapping[str, Any]
    history: Sequence[Row]
    summary: Sequence[Row]
    page: Path

    def curves(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Yields (epoch, `PAIR/NETWORK/loss` or `.../accuracy` -> value), epochs ascending."""
        for epoch in sorted({row["epoch"] for row in self.history}):
            rows = [row for row in self.history if row["epoch"] == epoch]
            yield (
                epoch,
                {
                    f"{row['pair']}/{row['run']}/{column}": float(row[column])
                    for row in rows
                    for column in ("loss", "accuracy")
                    if finite(row[column]) == row[column]
                },
            )

    def metrics(self) -> dict[str, float]:
        """Returns `PAIR/ALIGNMENT/COLUMN` -> value of every number of the summary."""
        return {
            f"{row['pair']}/{row['align']}/{column}": float(value)
            for row in self.summary
            for column, value in row.items()
            if finite(value) == value
        }

    def digest(self) -> str:
        """Returns what tells these results from others."""
        content = json.dumps([self.metrics(), list(self.curves())], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


Tracker: TypeAlias = Callable[[TrackedRun], None]
TRACKERS: dict[str, Tracker] = {}
_PACKAGES: dict[str, str] = {}


def tracker(name: str, package: str) -> Callable[[Tracker], Tracker]:
    """Returns a decorator that lists a tracker under a name.

    Args:
        name: in `config.trackers`.
        package: what it imports; a run that chooses it without is refused before it trains.
    """

    def register(function: Tracker) -> Tracker:
        TRACKERS[name], _PACKAGES[name] = function, package
        return function

    return register


def check(names: Iterable[str]) -> None:
    """Checks that trackers exist and that their packages are installed.

    Raises:
        ConfigError: one line that says what to choose or to install.
    """
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(unknown("tracker", name, TRACKERS))
        if not _is_installed(_PACKAGES[name]):
            package = _PACKAGES[name]
            raise ConfigError(f"the tracker {name!r} needs {package}; run: pip install {package}")


def log(names: Iterable[str], run: TrackedRun, say: Callable[[str], None]) -> None:
    """Logs a finished run with every tracker that has not logged these results yet.

    A tracker that fails, for want of a network or a key, costs one line and not the run.
    """
    file, digest = run.directory / LOGGED, run.digest()
    logged = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    for name in names:
        if logged.get(name) == digest:
            continue
        try:
            TRACKERS[name](run)
        except Exception as error:  # whatever a tracker's package raises
            say(f"{name} has not logged the run, whose results are complete: {error}")
            continue
        logged[name] = digest
        say(f"logged by {name}")
        write_json(file, logged)


@tracker("wandb", "wandb")
def log_to_wandb(run: TrackedRun) -> None:
    """Weights & Biases: curves by epoch, metrics as the summary, the page as an artifact."""
    import wandb  # pyright: ignore[reportMissingImports]

    project = os.environ.get("WANDB_PROJECT", PROJECT)
    place = str(run.directory)
    with wandb.init(project=project, name=run.name, config=dict(run.config), dir=place) as held:
        for epoch, values in run.curves():
            held.log(values, step=epoch)
        held.summary.update(run.metrics())
        page = wandb.Artifact(f"report-{run.digest()[:12]}", type="report")
        page.add_file(str(run.page))
        held.log_artifact(page)


@tracker("tensorboard", "tensorboardX")
def log_to_tensorboard(run: TrackedRun) -> None:
    """TensorBoard, into `DIRECTORY/tensorboard`: curves by epoch, metrics, config, page's path."""
    from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

    with SummaryWriter(str(run.directory / "tensorboard")) as writer:
        for epoch, values in run.curves():
            for name, value in values.items():
                writer.add_scalar(name, value, epoch)
        for name, value in run.metrics().items():
            writer.add_scalar(name, value, 0)
        writer.add_text("config", "\n".join(f"    {k} = {v!r}" for k, v in run.config.items()))
        writer.add_text("report", str(run.page))


@tracker("mlflow", "mlflow")
def log_to_mlflow(run: TrackedRun) -> None:
    """MLflow: config as parameters, curves by epoch, metrics, the page as an artifact."""
    import mlflow  # pyright: ignore[reportMissingImports]

    if "MLFLOW_EXPERIMENT_NAME" not in os.environ:
        mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=run.name):
        mlflow.log_params({name: str(value)[:500] for name, value in run.config.items()})
        for epoch, values in run.curves():
            mlflow.log_metrics(values, step=epoch)
        mlflow.log_metrics(run.metrics())
        mlflow.log_artifact(str(run.page))


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module that was put in place without a spec
        return True
