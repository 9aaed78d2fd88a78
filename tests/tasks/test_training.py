"""Training by tasks: the loss that is lowered is the task's, and a run's verdict is of its loss."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from llfc_jax import data, networks, tasks, training
from llfc_jax.errors import ConfigError
from llfc_jax.experiments import run
from llfc_jax.experiments.config import base, check
from llfc_jax.experiments.verdicts import in_short, lmc_grade, verdicts
from llfc_jax.experiments.workdir import claim
from llfc_jax.progress import CallbackReporter
from llfc_jax.report.html import with_content

RECIPE = training.Recipe(
    epochs=1, batch_size=20, learning_rate=0.5, momentum=0.0, weight_decay=0.0, schedule="constant"
)


def test_one_step_is_one_of_gradient_descent_on_the_tasks_loss():
    dataset = data.load("digits_halves", train_size=20, test_size=5)
    module = networks.build("mlp", 32, widths=())
    task = tasks.regression()
    before, after = (
        training.train_pairs(
            module, dataset, recipe, ("independent",), task=task
        )["independent"]
        for recipe in (dataclasses.replace(RECIPE, learning_rate=1e-30), RECIPE)
    )  # fmt: skip
    x = np.asarray(data.normalise(dataset.train.images, dataset.mean, dataset.std), float)
    x, y = x.reshape(20, -1), dataset.train.labels.astype(float)
    layer = jax.tree.map(lambda leaf: np.asarray(leaf, float), before.a["params"]["Dense_0"])
    off = x @ layer["kernel"] + layer["bias"] - y
    stepped = after.a["params"]["Dense_0"]
    slope = 2 * x.T @ off / off.size
    np.testing.assert_allclose(stepped["kernel"], layer["kernel"] - 0.5 * slope, atol=1e-5)
    np.testing.assert_allclose(before.history.loss[0, 0], (off**2).mean(), rtol=1e-5)
    assert np.isnan(before.history.accuracy).all()


def test_a_task_that_the_network_does_not_fit_is_one_line():
    dataset = data.load("digits", train_size=40, test_size=5)
    module = networks.build("mlp", 10, widths=(4,))
    with pytest.raises(ConfigError, match="task 'contrastive' needs two embeddings"):
        training.train_pairs(module, dataset, RECIPE, task=tasks.contrastive())
    smoothed = dataclasses.replace(RECIPE, label_smoothing=0.1)
    with pytest.raises(ConfigError, match="label_smoothing needs labels"):
        training.train_pairs(module, dataset, smoothed, task=tasks.regression())


@pytest.mark.slow
def test_a_run_of_a_task_without_an_error_rate(tmp_path):
    config = base()
    config.data.update(name="digits_halves", train_size=200, test_size=60)
    config.task = {"name": "regression", "loss": "absolute"}
    config.network = {"name": "mlp", "widths": (8,)}
    config.train.update(epochs=6, batch_size=20, optimizer="adam", learning_rate=1e-2)
    config.train.update(schedule="constant")
    config.update(pairs=("spawn_k1",), measures=("lmc", "llfc"), align=("none", "output"))
    config.eval.alphas = (0.0, 0.5, 1.0)
    checked = check(config)
    assert checked.eval.task == tasks.regression("absolute")
    assert check(checked.to_dict()) == checked
    with claim(tmp_path, checked.identity()) as held:
        study = run.run(checked, held, CallbackReporter())
    row = study.summary[0]
    assert {"loss_a", "loss_b", "loss_barrier"} <= set(study.columns)
    assert "error_a" not in study.columns
    assert 0 < row["loss_a"] < row["loss_trivial"]
    assert row["barrier_share"] == pytest.approx(
        row["midpoint_barrier"] / (row["loss_trivial"] - (row["loss_a"] + row["loss_b"]) / 2)
    )
    assert {"mae", "mse", "r2"} <= set(study.rows["lmc"][0])
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "at α = ½ the loss is" in page.replace("\xa0", " ")
    words = json.loads((tmp_path / "sections.json").read_text("utf-8"))["sections"]
    (columns,) = (section["columns"] for section in words if section["name"] == "lmc")
    assert columns["mae"] == "mean absolute error"
    assert "error" not in with_content(study.rows["lmc"], columns)


@pytest.mark.parametrize(
    ("share", "grade", "words"),
    [(0.009, 0, "LMC"), (0.02, 1, "nearly LMC"), (0.05, 2, "no LMC"), (-0.1, 0, "LMC")],
)
def test_a_barrier_of_the_loss_is_held_against_the_way_to_the_trivial_predictor(
    share, grade, words
):
    row = {"pair": "p", "align": "none", "midpoint_barrier": share * 2, "barrier_share": share,
           "loss_trivial": 3.0, "above_chance": True}  # fmt: skip
    assert lmc_grade(row) == grade
    assert in_short(row) == words
    text = verdicts([row])[0].text
    way = f"above the mean of the two ends, {100 * share:.3g} % of the way"
    assert (way if share > 0 else "0.2 below the mean of the two ends.") in text
    assert in_short(row | {"above_chance": False}).startswith("uninformative")
