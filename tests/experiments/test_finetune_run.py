"""Fine-tuned pairs, pairs from checkpoints and merges: through configs, `study`, page and files."""

import json

import jax
import numpy as np
import pytest

import llfc_jax
from llfc_jax import checkpoints, data, merging, networks
from llfc_jax.errors import ConfigError, MergeError
from llfc_jax.experiments import run as experiment
from llfc_jax.experiments.config import base, check
from llfc_jax.experiments.finished import read_finished
from llfc_jax.experiments.study_result import Study
from llfc_jax.experiments.workdir import claim
from llfc_jax.progress import Reporter
from llfc_jax.training import Variant

RULES = ("mean", "task_arithmetic(scale=0.25)", "ties(density=0.5)", "slerp")
PAIR = "finetune_k1_0_1"


def quiet():
    import io

    from rich.console import Console

    return Reporter(Console(file=io.StringIO()), quiet=True)


def make_config(**changes):
    config = base()
    config.data.train_size, config.data.test_size = 300, 100
    config.network = {"name": "mlp", "widths": (8,)}
    config.train.update(epochs=2, batch_size=50, schedule="constant")
    config.train.update(optimizer="adam", learning_rate=0.02)
    config.pairs = (PAIR,)
    config.measures = ("lmc", "ctl")
    config.eval.alphas = (0.0, 0.5, 1.0)
    config.finetune.tasks = ({"classes": (0, 1, 2, 3, 4)}, {"rotate": 90.0})
    config.merge = RULES
    for name, value in changes.items():
        config[name] = value
    return config


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ran")
    config = check(make_config())
    with claim(folder, config.identity()) as held:
        return config, folder, experiment.run(config, held, quiet())


def trained(config):
    dataset = data.load(config.data.name, train_size=300, test_size=100)
    ((pair),) = experiment.train([config], None, quiet(), dataset)[0].values()  # pyright: ignore
    return dataset, pair


def test_every_task_is_measured_on_its_own_data(ran):
    config, _, study = ran
    dataset, pair = trained(config)
    rows = study.rows["ctl"]
    assert {row["split"] for row in rows} == {"task_a", "task_b"}
    cut = [Variant(classes=(0, 1, 2, 3, 4)).cut(dataset), Variant(rotate=90.0).cut(dataset)]
    assert {row["samples"] for row in rows if row["split"] == "task_a"} == {len(cut[0].test)}
    module = networks.build("mlp", 10, widths=(8,))
    for split, part in zip(("task_a", "task_b"), cut, strict=True):
        x = (part.test.images.astype("f4") / 255 - dataset.mean[0]) / dataset.std[0]
        logits = np.asarray(module.apply(pair.a, x))
        error = np.mean(logits.argmax(-1) != part.test.labels)
        (found,) = {r["error"] for r in rows if r["split"] == split and r["alpha"] == 1.0}
        assert found == pytest.approx(error, abs=1e-6)
        base_error = np.mean(np.asarray(module.apply(pair.base, x)).argmax(-1) != part.test.labels)
        (found,) = {r["addition_error"] for r in rows if r["split"] == split and r["alpha"] == 0.0}
        assert found == pytest.approx(base_error, abs=1e-6)
    both = {row["samples"] for row in study.rows["lmc"] if row["split"] == "test"}
    assert both == {len(cut[0].test) + len(cut[1].test)}
    assert study.summary[0]["ctl_worst"] == pytest.approx(
        max(r["distance"] for r in rows if r["alpha"] == 0.5 and r["informative"])
    )


def test_merges_stand_in_table_page_and_words(ran):
    config, folder, study = ran
    dataset, pair = trained(config)
    module = networks.build("mlp", 10, widths=(8,))
    table = study.merges.table
    assert [row["rule"] for row in table[::2]] == ["a", "b", "ensemble", *RULES]
    merged = merging.merge([pair.a, pair.b], pair.base, "ties", density=0.5)
    part = Variant(rotate=90.0).cut(dataset).test
    x = (part.images.astype("f4") / 255 - dataset.mean[0]) / dataset.std[0]
    logits = np.asarray(module.apply(merged, x), np.float64)
    loss = np.mean(
        np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(part.labels)), part.labels]
    )
    (found,) = (r["loss"] for r in table if (r["rule"], r["task"]) == (RULES[2], "task_b"))
    assert found == pytest.approx(loss, rel=1e-4)
    assert study.summary[0][f"merge_{RULES[2]}"] == pytest.approx(
        np.mean([r["loss"] for r in table if r["rule"] == RULES[2]])
    )
    words = str(study)
    assert f"{PAIR}, merged: the best model of each task has a loss of" in words
    assert all(rule in words for rule in RULES)
    assert "Over 4 merges" in words
    assert f"On the data of each task, the features of {PAIR} are" in words
    assert "CTL" in study.summary[0]["verdict"]
    layers = {row["layer"] for row in study.merges.layers}
    assert layers == {"Dense_0", "Dense_1"}
    page = (folder / "report.html").read_text("utf-8")
    assert "Merges: loss and accuracy on each task" in page
    assert "Merges, and where they break" in page
    again = Study.read(folder)
    assert again.merges == study.merges
    assert str(again) == words


def test_a_finished_run_is_read_and_other_rules_are_added(ran):
    config, folder, study = ran
    with claim(folder, config.identity()) as held:
        found = read_finished(config, held)
        assert found is not None
        assert found.merges == study.merges
        assert read_finished(check(make_config(merge=("mean",))), held) is None


def test_pairs_from_checkpoints_need_no_training(ran, tmp_path):
    config, _, _ = ran
    _, pair = trained(config)
    for mode in ("a", "b", "base"):
        checkpoints.save(tmp_path / f"{mode}.safetensors", getattr(pair, mode))
    paths = {mode: str(tmp_path / f"{mode}.safetensors") for mode in ("a", "b", "base")}
    read = check(make_config(pairs=(), checkpoints={"mine": paths}))
    with claim(tmp_path / "out", read.identity()) as held:
        found = experiment.run(read, held, quiet())
        assert read_finished(read, held) is not None
    assert not (tmp_path / "out" / "checkpoints").exists()
    assert {row["split"] for row in found.rows["ctl"]} == {"test"}  # no tasks of their own
    assert [row["rule"] for row in found.merges.table] == ["a", "b", "ensemble", *RULES]
    tree = merging.merge([pair.a, pair.b])
    assert tree["params"].keys() == pair.a["params"].keys()
    without = {"mine": {k: v for k, v in paths.items() if k != "base"}}
    with pytest.raises(ConfigError, match="'mine' has none; leave the rule out"):
        check(make_config(pairs=(), checkpoints=without))
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["merges"]["table"]


@pytest.mark.slow
def test_heads_of_ones_own_are_put_on_for_each_task():
    """On the data of a task both trunks, and what lies between them, carry that task's head."""
    rng = np.random.default_rng(3)
    shapes = {"trunk": (4, 6), "head": (6, 3)}
    base_, a, b = ({n: rng.normal(size=s).astype("f4") for n, s in shapes.items()}
                   for _ in range(3))  # fmt: skip
    x, y = rng.normal(size=(40, 4)).astype("f4"), rng.integers(0, 3, 40)
    parts = {"task_a": (x[:20], y[:20]), "task_b": (x[20:], y[20:])}

    def apply(w, x):
        return jax.nn.relu(x @ w["trunk"]) @ w["head"]

    def loss(trunk, head, x, y):
        z = np.maximum(x.astype("f8") @ trunk, 0) @ head
        return np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y])

    found = llfc_jax.study(
        apply, a, b, (x, y), measures=["ctl"], merge=["mean", "greedy_soup"], base=base_,
        tasks=list(parts.values()), heads="head", alphas=(0.0, 0.5, 1.0),
    )  # fmt: skip
    middle = (a["trunk"] + b["trunk"]) / 2
    for split, owner in (("task_a", a), ("task_b", b)):
        wanted = loss(middle, owner["head"], *parts[split])
        ends = [loss(mode["trunk"], owner["head"], *parts[split]) for mode in (b, a)]
        rows = [row for row in found.rows["ctl"] if row["split"] == split]
        at = {row["alpha"]: row for row in rows}
        assert [at[alpha]["loss"] for alpha in (0.0, 1.0)] == pytest.approx(ends, rel=1e-5)
        assert at[0.5]["loss"] == pytest.approx(wanted, rel=1e-5)
        assert at[0.0]["addition_loss"] == pytest.approx(
            loss(base_["trunk"], owner["head"], *parts[split]), rel=1e-5
        )
        (row,) = (r for r in found.merges.table if (r["rule"], r["task"]) == ("mean", split))
        assert row["loss"] == pytest.approx(wanted, rel=1e-5)
    alone = llfc_jax.study(apply, a, b, (x, y), measures=["ensemble"], merge="mean", heads=["head"])
    assert {row["task"] for row in alone.merges.table} == {"task_a", "task_b"}
    with pytest.raises(MergeError, match="did you mean 'head'"):
        llfc_jax.study(apply, a, b, (x, y), heads=["haed"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"merge": ("men",)}, "unknown merge rule 'men'; did you mean 'mean'"),
        ({"merge": ("ties(densty=0.5)",)}, "did you mean 'density'"),
        ({"merge": ("ties(density=2)",)}, "density must lie between"),
        ({"merge": ("ties(density=",)}, "unknown merge rule"),
        ({"pairs": ("spawn_k1",), "merge": ("ties",)}, "pair 'spawn_k1' has none"),
        ({"pairs": ("spawn_k1", PAIR), "merge": ()}, "by themselves"),
        ({"pairs": ("finetune_k1_0_5",)}, "names a task that there is not"),
        ({"pairs": (), "checkpoints": {}}, "config.pairs is empty"),
        ({"checkpoints": {"x": {"a": "nowhere"}}}, "must be a group of the paths a and b"),
        ({"checkpoints": {"x": {"a": "nowhere", "b": "nowhere"}}}, "there is no nowhere"),
        ({"checkpoints": {PAIR: {"a": ".", "b": "."}}}, "otherwise than those"),
        ({"checkpoints": {"x/y": {"a": ".", "b": "."}}}, "by letters"),
    ],
)
def test_mistakes_in_a_config_are_one_line(changes, words):
    with pytest.raises(ConfigError, match=words) as caught:
        check(make_config(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_study_merges_networks_of_the_users_own():
    rng = np.random.default_rng(0)
    base_, a, b = ({"w": rng.normal(size=(4, 3)).astype("f4")} for _ in range(3))
    x = rng.normal(size=(40, 4)).astype("f4")
    y = rng.integers(0, 3, 40)

    def apply(w, x):
        return x @ w["w"]

    def deep(w, x):
        return jax.nn.relu(x @ w["u"]) @ w["v"]

    shapes = {"u": (4, 6), "v": (6, 3)}
    deeper = [{n: rng.normal(size=s).astype("f4") for n, s in shapes.items()} for _ in range(2)]
    tasks = [(x[:20], y[:20]), (x[20:], y[20:])]
    found = llfc_jax.study(
        apply, a, b, (x, y), measures=["ctl"], merge=["mean", merging.Ties(0.5)], base=base_,
        tasks=tasks,
    )  # fmt: skip
    assert {row["split"] for row in found.rows["ctl"]} == {"task_a", "task_b"}
    assert {row["task"] for row in found.merges.table} == {"task_a", "task_b"}
    rules = {row["rule"] for row in found.merges.table}
    assert rules == {"a", "b", "ensemble", "mean", "ties(density=0.5)"}
    linear = [r for r in found.merges.layers if r["rule"] == "mean"]
    assert max(row["distance"] for row in linear) < 1e-6
    one = llfc_jax.study(apply, a, b, (x, y), measures=["ensemble"], merge="git_rebasin")
    both = llfc_jax.study(
        deep, *deeper, (x, y), measures=["ensemble"], merge=["mean", "ties"], base=deeper[0],
        align=["none", "weight"],
    )  # fmt: skip
    found_of = {(row["align"], row["rule"]) for row in both.merges.table}
    assert {("none", "ties"), ("weight", "mean")} <= found_of
    assert ("weight", "ties") not in found_of  # b's units are no longer the base's
    assert "pair aligned by weight is not merged by ties" in str(both)
    assert {row["rule"] for row in one.merges.table} == {"a", "b", "ensemble", "git_rebasin"}
    for wrong, error in (
        ({"merge": "ties"}, MergeError),
        ({"merge": "mean", "tasks": [(x, y)]}, ConfigError),
        ({"merge": 3}, ConfigError),
    ):
        with pytest.raises(error):
            llfc_jax.study(apply, a, b, (x, y), measures=["ctl"], **wrong)


@pytest.mark.slow
def test_all_rules_run_with_what_they_need():
    """Statistics, specs and held-out losses are made where a rule asks for them."""
    rng = np.random.default_rng(1)
    a, b = ({"u": rng.normal(size=(4, 6)).astype("f4"), "v": rng.normal(size=(6, 3)).astype("f4")}
            for _ in range(2))  # fmt: skip
    x = rng.normal(size=(40, 4)).astype("f4")
    y = rng.integers(0, 3, 40)

    def apply(w, x):
        return jax.nn.relu(x @ w["u"]) @ w["v"]

    rules = ("fisher", "regmean", "greedy_soup", "git_rebasin", "karcher", "geometric_median")
    found = llfc_jax.study(apply, a, b, (x, y), train=(x, y), measures=["ensemble"], merge=rules)
    losses = {row["rule"]: row["loss"] for row in found.merges.table}
    assert set(rules) <= set(losses)
    assert losses["greedy_soup"] <= min(losses["a"], losses["b"]) + 1e-6
    assert all(np.isfinite(list(losses.values())))
