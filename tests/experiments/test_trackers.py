"""Trackers: each gets curves, metrics and page, once, and none can cost a run."""

import math
import sys
import types
from unittest import mock

import pytest

from llfc_jax.errors import ConfigError
from llfc_jax.experiments import listing, trackers
from llfc_jax.experiments.config import base, check
from llfc_jax.experiments.trackers import TRACKERS, TrackedRun

CURVES = {
    1: {"p/a/loss": 2.0, "p/a/accuracy": 0.5, "p/b/loss": 1.5, "p/b/accuracy": 0.25},
    2: {"p/a/loss": 1.0, "p/a/accuracy": 0.75},
}
METRICS = {"p/none/error_barrier": 0.25, "p/none/k": 3.0, "p/weight/error_barrier": 0.125}


@pytest.fixture
def run(tmp_path):
    page = tmp_path / "report.html"
    page.write_text("<p>The page")
    history = [
        {"pair": "p", "run": "a", "epoch": 2, "loss": 1.0, "accuracy": 0.75, "diverged": 0},
        {"pair": "p", "run": "a", "epoch": 1, "loss": 2.0, "accuracy": 0.5, "diverged": 0},
        {"pair": "p", "run": "b", "epoch": 1, "loss": 1.5, "accuracy": 0.25, "diverged": 2},
        {"pair": "p", "run": "b", "epoch": 2, "loss": math.nan, "accuracy": math.nan},
    ]
    summary = [
        {"pair": "p", "align": "none", "error_barrier": 0.25, "llfc_median": math.nan, "k": 3},
        {"pair": "p", "align": "weight", "error_barrier": 0.125, "informative": True},
    ]
    return TrackedRun("a run", tmp_path, {"train.epochs": "2"}, history, summary, page)


def test_numbers_have_the_names_of_what_they_are_of(run):
    assert dict(run.curves()) == CURVES
    assert run.metrics() == METRICS


@pytest.fixture
def fake(monkeypatch):
    """Puts a package in place that writes down what is called."""

    def put(name):
        module = mock.MagicMock(name=name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return put


def test_wandb_gets_curves_summary_and_page(run, fake, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    wandb = fake("wandb")
    TRACKERS["wandb"](run)
    assert wandb.init.call_args.kwargs["project"] == "llfc_jax"
    assert wandb.init.call_args.kwargs["config"] == run.config
    held = wandb.init.return_value.__enter__.return_value
    assert {call.kwargs["step"]: call.args[0] for call in held.log.call_args_list} == CURVES
    held.summary.update.assert_called_once_with(METRICS)
    wandb.Artifact.return_value.add_file.assert_called_once_with(str(run.page))
    held.log_artifact.assert_called_once_with(wandb.Artifact.return_value)


def test_mlflow_gets_parameters_curves_metrics_and_page(run, fake, monkeypatch):
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    mlflow = fake("mlflow")
    TRACKERS["mlflow"](run)
    mlflow.log_params.assert_called_once_with(run.config)
    logged = {call.kwargs.get("step"): call.args[0] for call in mlflow.log_metrics.call_args_list}
    assert logged == {**CURVES, None: METRICS}
    mlflow.log_artifact.assert_called_once_with(str(run.page))


def test_mlflow_itself_keeps_it_offline(run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("GIT_PYTHON_REFRESH", "quiet")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    TRACKERS["mlflow"](run)
    client = mlflow.MlflowClient()
    (kept,) = client.search_runs([client.get_experiment_by_name("llfc_jax").experiment_id])
    assert kept.data.metrics.items() >= METRICS.items()
    assert kept.data.params == run.config
    steps = client.get_metric_history(kept.info.run_id, "p/a/loss")
    assert [(point.step, point.value) for point in steps] == [(1, 2.0), (2, 1.0)]
    assert [file.path for file in client.list_artifacts(kept.info.run_id)] == ["report.html"]


def test_tensorboard_itself_keeps_it_offline(run, tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    TRACKERS["tensorboard"](run)
    (file,) = (tmp_path / "tensorboard").iterdir()
    content = file.read_bytes()
    names = {name for values in CURVES.values() for name in values} | METRICS.keys()
    assert all(name.encode() in content for name in names)
    assert str(run.page).encode() in content


def test_results_are_logged_once_and_a_tracker_that_fails_costs_a_line(run, monkeypatch):
    calls, said = [], []

    def fail(run):
        raise OSError("no network")

    monkeypatch.setitem(TRACKERS, "good", lambda run: calls.append(run.metrics()))
    monkeypatch.setitem(TRACKERS, "bad", fail)
    trackers.log(("bad", "good"), run, said.append)
    trackers.log(("bad", "good"), run, said.append)
    assert calls == [METRICS]
    assert [line.split()[0] for line in said] == ["bad", "logged", "bad"]
    assert "no network" in said[0]
    run.summary[0]["error_barrier"] = 0.5
    trackers.log(("good",), run, said.append)
    assert calls[1]["p/none/error_barrier"] == 0.5


def test_a_config_is_refused_that_names_what_is_not_there(monkeypatch):
    config = base()
    config.trackers = ("wandbb",)
    with pytest.raises(ConfigError, match="did you mean 'wandb'"):
        check(config)
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    config.trackers = ("wandb",)
    with pytest.raises(ConfigError, match="pip install wandb"):
        check(config)
    config.trackers = ()
    assert "trackers" not in check(config).identity()


def test_a_module_without_a_spec_counts_as_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", types.ModuleType("mlflow"))
    trackers.check(("mlflow",))


def test_trackers_are_listed():
    assert {"wandb", "tensorboard", "mlflow"} <= listing.choices()["trackers"].keys()
