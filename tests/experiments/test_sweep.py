"""Sweeps: expansion, side-by-side seeds, parts, going on, means with intervals."""

import csv
import io
import itertools
import json
import math
import re
from urllib.parse import unquote

import numpy as np
import pytest
from rich.console import Console

from llfc_jax.errors import ConfigError, WorkdirError
from llfc_jax.experiments import run as experiment
from llfc_jax.experiments import sweep
from llfc_jax.experiments.config import base, check
from llfc_jax.experiments.sweep import show
from llfc_jax.io import read_sealed, write_sealed
from llfc_jax.progress import Reporter
from llfc_jax.report import stored


def swept(axes, **changes):
    config = base()
    config.network = {"name": "mlp", "widths": (8,)}
    config.data.update(train_size=100, test_size=60)
    config.train.update(epochs=2, batch_size=50, optimizer="adam", learning_rate=5e-3)
    config.train.update(schedule="constant", weight_decay=0.0)
    config.pairs = ("spawn_k0", "spawn_k1")
    config.measures = ("lmc", "llfc")
    config.eval.alphas = (0.0, 0.5, 1.0)
    config.sweep.update(axes)
    config.update(changes)
    return check(config)


AXES = {"seed": (0, 1), "network": {"widths": ((8,), (6, 6))}}


def run(config, path, which="0/1"):
    with Reporter(Console(file=io.StringIO())) as reporter:
        return sweep.run(config, path, reporter, which)


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_combination_is_a_valid_config_of_its_own():
    runs = sweep.expand(swept(AXES))
    assert [run.point for run in runs] == [
        {"seed": seed, "network.widths": widths}
        for widths, seed in itertools.product(((8,), (6, 6)), (0, 1))
    ]
    for one in runs:
        assert one.config.seed == one.point["seed"]
        assert one.config.network["widths"] == one.point["network.widths"]
        assert not one.config.sweep
    assert len({one.name for one in runs}) == 4


def test_runs_of_one_shape_train_together_up_to_a_limit():
    train = {"learning_rate": (1e-3, 5e-3), "weight_decay": (0.0, 1e-4), "momentum": (0.0, 0.9)}
    pairs = (("spawn_k0",), ("spawn_k1",))
    families = sweep.families(sweep.expand(swept({**AXES, "train": train, "pairs": pairs})))
    assert [len(family) for family in families] == [2] * 32
    for family in families:
        assert len({one.config.train for one in family}) == 1
        assert {one.config.pairs for one in family} == set(pairs)
    batches = sweep.together(families, 1000)
    assert [len(batch) for batch in batches] == [16] * 4  # widths and momentum part them
    for batch in batches:
        assert len({(str(one.config.network), one.config.train.momentum) for one in batch}) == 1
    # Four networks a family: two families fit below ten, and one is never cut.
    assert [len(batch) for batch in sweep.together(families, 10)] == [4] * 16
    assert [len(batch) for batch in sweep.together(families, 1)] == [2] * 32


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({}, "empty"),
        ({"seed": ()}, "empty"),
        ({"network": {"widths": ()}}, "tuple of values"),
        ({"seed": 3}, "tuple of values"),
        ({"seed": (1, 1)}, "twice"),
        ({"sed": (1, 2)}, "did you mean 'seed'"),
        ({"nework": {"widths": ((8,),)}}, "'nework'"),
        ({"train": {"epochs": (2, 0)}}, "epochs"),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_runs(axes, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        run(swept(axes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_parts_cover_everything_once():
    groups = [[n] for n in range(7)]
    parts = [sweep.shard(groups, f"{i}/3") for i in range(3)]
    assert list(itertools.chain(*parts)) == groups
    assert {len(part) for part in parts} == {2, 3}
    assert sweep.shard(groups, "0/0") == []
    for wrong in ("3/3", "1", "a/b", "-1/2"):
        with pytest.raises(ConfigError, match="--shard"):
            sweep.shard(groups, wrong)


def test_means_and_intervals_are_those_of_the_textbook():
    rows = [
        {"seed": s, "w": 1, "pair": "spawn_k1", "align": "none", "k": 1, "x": x, "diverged": d}
        for s, x, d in ((0, 1.0, ""), (1, 2.0, ""), (2, 6.0, ""), (3, 99.0, "yes"))
    ]
    (mean,) = sweep.over_seeds(rows, ["w"])
    assert mean["seeds"] == 3
    assert mean["x"] == pytest.approx(3.0)
    # t(0.975, 2 degrees of freedom) = 4.30265, deviation √7, three values
    assert mean["x_half"] == pytest.approx(4.302653 * math.sqrt(7) / math.sqrt(3), rel=1e-6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    means, missing = run(swept(AXES), path)
    assert missing == []
    return path, means


def test_one_row_per_run_and_pair_and_means_that_follow_from_them(whole):
    path, means = whole
    rows = table(path / "sweep.csv")
    assert len(rows) == 8
    assert len(means) == 4
    for mean in means:
        values = [
            float(row["error_barrier"])
            for row in rows
            if (row["network.widths"], row["pair"]) == (mean["network.widths"], mean["pair"])
        ]
        assert mean["error_barrier"] == pytest.approx(np.mean(values))
    assert "Sweep" in (path / "report.html").read_text()


def test_a_run_of_a_sweep_is_the_run_alone(whole, tmp_path):
    path, _ = whole
    one = sweep.expand(swept(AXES))[1]
    from llfc_jax.experiments.workdir import claim

    with (
        claim(tmp_path, one.config.to_dict()) as held,
        Reporter(Console(file=io.StringIO())) as reporter,
    ):
        experiment.run(one.config, held, reporter)
    alone = table(tmp_path / "llfc.csv")
    among = table(path / "runs" / one.name / "llfc.csv")
    assert [r["layer"] for r in alone] == [r["layer"] for r in among]
    np.testing.assert_allclose(
        [float(r["distance"]) for r in alone],
        [float(r["distance"]) for r in among],
        rtol=1e-3,
        atol=1e-7,
    )


def test_parts_done_apart_gather_to_the_whole_and_nothing_is_done_twice(
    whole, tmp_path, monkeypatch
):
    path, _ = whole
    config = swept(AXES)
    _, missing = run(config, tmp_path, "0/2")
    assert len(missing) == 2
    run(config, tmp_path, "1/2")
    assert (tmp_path / "sweep.csv").read_bytes() == (path / "sweep.csv").read_bytes()

    def forbidden(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(experiment, "train", forbidden)
    means, missing = run(config, tmp_path)
    assert missing == []
    assert len(means) == 4


def test_a_diverged_run_does_not_spoil_the_rest(tmp_path):
    config = swept({"train": {"learning_rate": (5e-3, 1e30)}}, pairs=("spawn_k1",))
    means, missing = run(config, tmp_path)
    assert missing == []
    assert [mean["train.learning_rate"] for mean in means] == [5e-3]
    verdicts = [row["verdict"] for row in table(tmp_path / "sweep.csv")]
    assert sum("diverged" in verdict for verdict in verdicts) == 1


def test_a_sweep_that_grows_trains_what_is_new(tmp_path, monkeypatch):
    """Rates, seeds and pairs in one batch; then one value more."""
    few = {"seed": (0,), "train": {"learning_rate": (5e-3, 1e-3)}}
    few["pairs"] = (("spawn_k0",), ("spawn_k0", "spawn_k1"))
    trained, really = [], experiment.train

    def note(configs, *rest):
        trained.append(len(configs))
        return really(configs, *rest)

    monkeypatch.setattr(experiment, "train", note)
    means, missing = run(swept(few, measures=("lmc",)), tmp_path)
    assert (len(means), missing) == (4, [])
    assert [mean["seeds"] for mean in means] == [1] * 4  # spawn_k0 of both lists is one
    assert "pairs" not in table(tmp_path / "sweep.csv")[0]
    few["train"] = {"learning_rate": (5e-3, 1e-3, 2e-3)}
    means, _ = run(swept(few, measures=("lmc",)), tmp_path)
    assert trained == [4, 2]
    assert len(means) == 6


def test_a_changed_sweep_keeps_what_still_fits(whole, monkeypatch):
    path, _ = whole
    smaller = swept({"seed": (0,), "network": {"widths": ((8,),)}})
    done = [sweep.done(path, one) for one in sweep.expand(smaller)]
    assert done == [True]
    other = swept(
        {"seed": (0,), "network": {"widths": ((8,),)}}, eval={"alphas": (0.0, 0.25, 0.5, 1.0)}
    )
    assert [sweep.done(path, one) for one in sweep.expand(other)] == [False]


def test_a_directory_that_holds_another_run_is_refused_before_training(tmp_path, monkeypatch):
    small = {"seed": (0, 1)}
    run(swept({"seed": (1,)}, measures=("lmc",)), tmp_path)
    monkeypatch.setattr(experiment, "train", lambda *_: pytest.fail("trained"))
    other = swept(small, measures=("lmc",), eval={"alphas": (0.0, 0.25, 0.5, 1.0)})
    with pytest.raises(WorkdirError, match=r"seed=1 holds another experiment.*eval\.alphas"):
        run(other, tmp_path)


def test_a_run_made_before_a_field_was_there_goes_on(tmp_path, monkeypatch):
    config = swept({"seed": (0,)}, measures=("lmc",))
    run(config, tmp_path)
    (one,) = sweep.expand(config)
    directory = tmp_path / "runs" / one.name
    for file, read, write in (
        (directory / "summary.json", read_sealed, write_sealed),
        (directory / "config.json", lambda f: {"config": json.loads(f.read_text())}, None),
    ):
        content = read(file)
        del content["config"]["finetune"], content["config"]["eval"]["per"]
        if write:
            write(file, content)
        else:
            file.write_text(json.dumps(content["config"]))
    assert sweep.done(tmp_path, one)
    monkeypatch.setattr(experiment, "train", lambda *_: pytest.fail("trained"))
    assert len(run(config, tmp_path)[0]) == 2
    more = swept({"seed": (0,)}, measures=("lmc",), finetune={"heads": ("dense",)})
    assert not sweep.done(tmp_path, sweep.expand(more)[0])


def test_the_config_of_every_run_is_in_its_summary(whole):
    path, _ = whole
    for one in sweep.expand(swept(AXES)):
        made = json.loads((path / "runs" / one.name / "summary.json").read_text())["config"]
        assert check(made) == one.config


BASE = {"pair": "independent", "align": "none", "k": math.nan, "error_barrier_mean": 0.1}


@pytest.mark.parametrize(
    ("varied", "fields", "wanted"),
    [
        ({"w": (1, 2), "align": ("none", "weight")}, ["w"], ("w", "align", ("pair",))),
        ({"w": (1, 2), "k": (0, 1)}, ["w"], ("k", "w", ("align",))),
        ({"align": ("none", "weight")}, [], ("pair", "align", ())),
        # Names give way to numbers, and what is left over has panels: nothing is drawn over.
        (
            {"n": ("mlp", "vgg"), "w": (1, 2), "align": ("none", "weight"), "pair": ("p", "q")},
            ["n", "w"],
            ("w", "n", ("pair", "align")),
        ),
        ({"n": ("mlp", "vgg"), "pair": ("p", "q")}, ["n"], ("n", None, ("pair", "align"))),
    ],
)
def test_every_column_that_varies_has_a_direction(varied, fields, wanted):
    steps = itertools.product(*varied.values())
    rows = [{**BASE, **dict(zip(varied, step, strict=True))} for step in steps]
    (chart,) = show.charts(rows, fields)
    assert (chart.x, chart.lines, chart.panels) == wanted


def test_a_field_that_moves_with_another_has_no_lines_of_its_own():
    rows = [{**BASE, "rate": r, "size": s} for r, s in ((0.1, 64), (0.2, 128))]
    (chart,) = show.charts(rows, ["rate", "size"])
    assert (chart.x, chart.lines, chart.panels) == ("rate", None, ("pair", "align"))


def test_fields_below_zip_move_together():
    zipped = {"train": {"learning_rate": (1e-3, 5e-3), "batch_size": (25, 50)}}
    runs = sweep.expand(swept({"seed": (0, 1), "zip": zipped}))
    found = [(r.config.train.learning_rate, r.config.train.batch_size, r.config.seed) for r in runs]
    assert found == [(1e-3, 25, 0), (1e-3, 25, 1), (5e-3, 50, 0), (5e-3, 50, 1)]
    assert len({r.name for r in runs}) == 4
    for wrong, words in (
        ({"zip": {"train": {"epochs": (1, 2), "batch_size": (25,)}}}, "2 of train.epochs|2 of t"),
        ({"zip": {"seed": (0, 1)}, "seed": (0, 1)}, "'seed' twice"),
        ({"zip": {"seed": (1, 1), "train": {"epochs": (2, 2)}}}, "value twice"),
        ({"zip": 3}, "group of fields"),
    ):
        with pytest.raises(ConfigError, match=words):
            sweep.expand(swept(wrong))


def test_the_page_shows_every_pair_and_run_and_is_made_again_from_its_directory(whole):
    path, means = whole
    runs = json.loads((path / "means.json").read_text())
    assert len(runs) == len(table(path / "sweep.csv")) == 8
    for row in runs:
        (mean,) = (
            m for m in means
            if (m["network.widths"], m["pair"]) == (row["network.widths"], row["pair"])
        )  # fmt: skip
        assert row["error_barrier_mean"] == mean["error_barrier"]
        assert row["error_barrier_half"] == mean["error_barrier_half"]
    page = (path / "report.html").read_text()
    for one in sweep.expand(swept(AXES)):
        (address,) = re.findall(f'href="(runs/[^"]*)">{re.escape(one.name)}<', page)
        assert (path / unquote(address)).is_file()
    (path / "report.html").unlink()
    assert stored.rebuild(path).read_text() == page


def test_pairs_that_share_no_training_are_shown_beside_those_that_do():
    base = {"align": "none", "seed": 0, "w": 1, "informative": True, "diverged": ""}
    rows = [
        {**base, "pair": f"spawn_k{k}", "k": k, "error_barrier": 0.1 * k, "llfc_median": 0.01}
        for k in (0, 1)
    ]
    alone = {"pair": "independent", "k": math.nan, "error_barrier": 0.5, "llfc_median": 0.9}
    rows.append({**base, **alone, "informative": False})
    rows.append({**base, "pair": "independent", "k": math.nan, "seed": 1, "diverged": "epoch 1"})
    found = show.sections(rows, sweep.over_seeds(rows, ["w"]), ["w"])
    assert [(section.name, len(of)) for section, of in found] == [
        ("means_spawned", 2),
        ("means_apart", 2),
    ]
    informative, diverged = found[1][1]
    assert informative["error_barrier_mean"] == 0.5
    assert math.isnan(informative["llfc_median"])
    assert "error_barrier_mean" not in diverged
    names = [chart.name for section, _ in found for chart in section.charts]
    assert len(set(names)) == len(names)


def test_the_page_says_in_words_what_changes_along_the_axis():
    row = {"pair": "independent", "k": math.nan}
    barriers = {("none", 1): 0.5, ("none", 2): 0.5, ("weight", 2): 0.025, ("weight", 1): 0.25}
    means = [
        {**row, "align": m, "width": w, "error_barrier": b, "llfc_ratio": 8.0 * w}
        for (m, w), b in barriers.items()
    ]
    none, weight = show.findings(means, ["width"])
    assert none.startswith("Not aligned: from width = 1 to 2")
    assert "from 25.00 to 2.50 percentage points" in weight
    assert "1 - cosine_α goes from 8 to 16 times below 1 - cosine_AB" in weight
    assert show.findings(means[:1], ["width"]) == []
    forks = [{**row, "align": "none", "pair": f"k{k}", "k": k, "llfc_ratio": k} for k in (8, 1)]
    (only,) = show.findings(forks, [])
    assert only.startswith("From k = 1 to 8 in the median layer, 1 - cosine_α goes from 1 to 8")


@pytest.mark.parametrize(
    ("values", "powers"),
    [((0.5, 1, 4), True), ((1, 2, 4), False), ((0, 1, 8), False), (("a", "b"), False)],
)
def test_a_field_that_doubles_and_doubles_is_drawn_by_its_powers(values, powers):
    (chart,) = show.charts([{**BASE, "width": v} for v in values], ["width"])
    assert chart.log_x is powers
