"""The whole pipeline, in process: results, resumption, alignment, ownership of the directory."""

import csv
import io
import json

import numpy as np
import pytest
from rich.console import Console

from llfc_jax.errors import LlfcError, TrainingError, WorkdirError
from llfc_jax.experiments import evaluate
from llfc_jax.experiments import run as experiment
from llfc_jax.experiments.config import base, check
from llfc_jax.experiments.settings import EVERY_MEASURE
from llfc_jax.experiments.workdir import claim
from llfc_jax.measures import MEASURES
from llfc_jax.progress import Reporter


def small(**changes):
    config = base()
    config.network = {"name": "mlp", "widths": (24, 24)}
    config.data.update(train_size=400, test_size=120)
    config.train.update(epochs=4, batch_size=50, optimizer="adam", learning_rate=5e-3)
    config.train.update(schedule="constant", weight_decay=0.0)
    config.eval.alphas = (0.0, 0.25, 0.5, 0.75, 1.0)
    config.update(changes)
    return check(config)


def run(config, path, log=None):
    console = Console(file=log or io.StringIO())
    with claim(path, config.to_dict()) as workdir, Reporter(console) as reporter:
        return experiment.run(config, workdir, reporter)


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    config = small(align=("none", "weight"))
    return path, config, run(config, path)


def test_every_measure_leaves_its_tables_and_figures(done):
    path, _, _ = done
    for name in EVERY_MEASURE:
        table = rows(path / f"{name}.csv")
        assert {(r["pair"], r["align"]) for r in table} == {
            (pair, align) for pair in ("spawn_k1", "independent") for align in ("none", "weight")
        }
        assert len(json.loads((path / f"{name}.json").read_text())) == len(table)
    page = (path / "report.html").read_text()
    assert all(MEASURES[name].section.title in page for name in EVERY_MEASURE)


def test_the_columns_that_users_lean_on(done):
    path, _, _ = done
    lmc, llfc = rows(path / "lmc.csv"), rows(path / "llfc.csv")
    assert {"pair", "align", "split", "alpha", "loss", "accuracy"} <= set(lmc[0])
    assert {r["split"] for r in lmc} == {"train", "test"}
    wanted = {"pair", "align", "layer", "alpha", "distance", "distance_std", "baseline"}
    assert wanted | {"coefficient"} <= set(llfc[0])


def test_the_curve_is_the_one_that_a_direct_measurement_gives(done):
    path, config, _ = done
    from llfc_jax import data, networks, training
    from llfc_jax.measures import lmc
    from llfc_jax.pair import interpolate

    dataset = data.load("digits", train_size=400, test_size=120)
    module = networks.build("mlp", 10, widths=(24, 24))
    pair = training.train_pairs(module, dataset, config.train, ("spawn_k1", "independent"), 0)
    pair = pair["independent"]
    x, y = next(iter(data.Batches(dataset.test, dataset, 120)))
    logits = module.apply(interpolate(pair.a, pair.b, 0.25), x)
    accuracy = float((np.asarray(logits).argmax(-1) == np.asarray(y)).mean())
    wanted = {"pair": "independent", "align": "none", "split": "test", "alpha": "0.25"}
    (row,) = [r for r in rows(path / "lmc.csv") if wanted.items() <= r.items()]
    assert float(row["accuracy"]) == pytest.approx(accuracy, abs=1e-9)
    direct = lmc(module.apply, pair.a, pair.b, [(x, y)], alphas=(0.25,))
    assert float(row["loss"]) == pytest.approx(float(direct.loss[1]), rel=1e-5)


def test_alignment_changes_b_alone_and_never_its_own_error(done):
    path, _, _ = done
    ends = {
        (r["align"], r["alpha"]): float(r["error"])
        for r in rows(path / "lmc.csv")
        if r["pair"] == "independent" and r["split"] == "test"
    }
    assert ends["none", "0.0"] == ends["weight", "0.0"]
    assert ends["none", "1.0"] == ends["weight", "1.0"]
    assert (path / "permutations" / "independent-weight.npz").exists()


def test_the_summary_says_how_it_was_made(done):
    path, config, outcome = done
    summary = json.loads((path / "summary.json").read_text())
    assert summary["config"]["seed"] == 0
    assert summary["environment"]["jax"]
    assert summary["data fingerprint"]
    assert len(summary["summary"]) == len(outcome.summary) == 4
    assert check(summary["config"]) == config


def test_a_second_run_measures_nothing_anew_and_gives_the_same_bytes(done, monkeypatch):
    path, config, _ = done
    before = {p.name: p.read_bytes() for p in path.glob("*.csv")}

    def forbidden(*args, **kwargs):
        raise AssertionError("measured again")

    monkeypatch.setattr(evaluate.matching, "align", forbidden)
    monkeypatch.setattr(evaluate.PairEvaluator, "measure", forbidden)
    run(config, path)
    assert before == {p.name: p.read_bytes() for p in path.glob("*.csv")}


def test_measures_may_be_added_later_but_no_other_experiment(done):
    path, _, _ = done
    run(small(align=("none",), measures=("lmc",)), path)
    with pytest.raises(WorkdirError, match=r"another experiment.*seed"):
        run(small(seed=1), path)


def test_two_runs_into_one_directory(tmp_path):
    with (
        claim(tmp_path, {}),
        pytest.raises(WorkdirError, match="another run"),
        claim(tmp_path, {}),
    ):
        pass


def test_damaged_results_are_found(tmp_path, done):
    import shutil

    path, config, _ = done
    shutil.copytree(path, tmp_path / "copy")
    file = next((tmp_path / "copy" / "measured").glob("*.json"))
    file.write_text(file.read_text()[:40])
    with pytest.raises(WorkdirError, match="damaged; delete it"):
        run(config, tmp_path / "copy")


def test_an_unwritable_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="cannot write"), claim(tmp_path / "file" / "x", {}):
        pass


def test_mistakes_that_need_the_data_or_the_network_show_before_training(tmp_path):
    log = io.StringIO()
    for config in (
        small(eval={"sites": ("Dens_0",)}),
        small(eval={"measure_options": {"stitching": {"sites": ("Dens_0",)}}}),
        small(eval={"renormalise": "reset"}, measures=("lmc",)),
        small(network={"name": "lenet5"}),
        small(network={"name": "mlp", "width": (3,)}),
        small(data={"name": "digit"}),
        small(train={"batch_size": 401}),
    ):
        with pytest.raises(LlfcError) as caught:
            run(config, tmp_path / str(abs(hash(str(config)))), log)
        assert "\n" not in str(caught.value)
    assert "training" not in log.getvalue()


def test_diverged_pairs_are_said_to_be_so_and_leave_a_report(tmp_path):
    config = small(pairs=("spawn_k1",), measures=("lmc",), train={"optimizer": "sgd", "epochs": 2,
                   "batch_size": 50, "learning_rate": 1e30, "schedule": "constant"})  # fmt: skip
    with pytest.raises(TrainingError, match="diverged"):
        run(config, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert "diverged" in summary["summary"][0]["verdict"]
