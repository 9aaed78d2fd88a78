"""RESULTS.md agrees with what is kept of its runs; a directory's rows survive being kept."""

import json
import math

import numpy as np
import pytest
from overview import CLAIMS, overview
from results import PAGE, differences, rebuild, table
from scipy import stats
from summaries import load, load_all, read, store

ERRORS = {0: (0.10, 0.12), 1: (0.14, 0.11), 2: (0.09, 0.16)}  # of the two modes, by seed
WEAK = {0: [(0.02, 0.1), (0.3, 0.5)], 1: [(0.1, 0.4), (0.1, 0.5)], 2: [(0.2, 0.4), (0.0, 0.0)]}


@pytest.fixture
def swept(tmp_path):
    """A sweep's directory over three seeds of which one is not done, as far as `read` reads it."""
    config = {
        "network": {"name": "mlp", "widths": [8]},
        "data": {"name": "digits", "size": None},
        "train": dict.fromkeys(("epochs", "batch_size", "optimizer", "learning_rate"), 4)
        | {"schedule": "constant", "weight_decay": 0.0},
        "seed": 0,
    }
    for seed, (a, b) in ERRORS.items():
        run = tmp_path / "runs" / f"seed={seed}"
        run.mkdir(parents=True)
        (run / "config.json").write_text(json.dumps(config | {"seed": seed}))
        row = {"pair": "spawn_k1", "align": "none", "error_a": a, "error_b": b, "verdict": "LMC"}
        row |= {"error_barrier": (a + b) / 10, "llfc_median": None}
        (run / "summary.json").write_text(json.dumps({"summary": [row]}))
        lines = ["pair,align,split,alpha,relative,baseline"]
        for relative, baseline in WEAK[seed]:
            lines += [f"spawn_k1,none,test,{at},{relative},{baseline}" for at in (0.5, 0.25)]
            lines[-1] = f"spawn_k1,none,test,0.25,{9 * relative},{baseline}"
        (run / "weak_additivity.csv").write_text("\n".join(lines))
        layers = [("0.2", True), ("0.9", True), ("0.4", True), ("99", False)]
        lines = [f"spawn_k1,none,test,0.5,{value},{seen}" for value, seen in layers]
        head = "pair,align,split,alpha,baseline,informative"
        (run / "llfc.csv").write_text("\n".join([head, *lines, "spawn_k1,none,test,0.1,7,True"]))
    (tmp_path / "runs" / "seed=3").mkdir()
    sweep = {"config": config, "environment": {"device": "cpu"}, "written": "2026-11-27T10:00"}
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    lines = [f"{seed},1,spawn_k1,none" for seed in (2, 0, 1)]
    (tmp_path / "sweep.csv").write_text("\n".join(["seed,k,pair,align", *lines]))
    return tmp_path


def test_every_table_of_the_page_is_that_of_the_stored_summaries():
    assert differences(PAGE.read_text("utf-8"), load_all()) == []


@pytest.mark.parametrize("old", ["| 0.36 ± 0.16 |", "epochs=12, batch_size=500", "| weight | 3 |"])
def test_a_changed_number_is_found(old):
    text = PAGE.read_text("utf-8")
    assert differences(text.replace(old, old.replace("3", "4").replace("5", "6")), load_all())


def test_a_table_that_no_summary_stands_behind_is_refused():
    with pytest.raises(SystemExit, match="line 2"):
        rebuild("\n| pair | aligned |\n|---|---|", load_all())
    with pytest.raises(SystemExit, match="there is no"):
        rebuild("<!-- measured/of_nothing.json -->", load_all())


def test_means_and_intervals_are_those_of_the_runs(swept, tmp_path):
    store(read(swept), tmp_path / "kept.json")
    kept = load(tmp_path / "kept.json")
    assert [row["seed"] for row in kept.rows] == [2, 0, 1]  # as the sweep has them
    (mean,) = kept.means
    barriers = np.array([sum(pair) / 10 for pair in ERRORS.values()])
    low, high = stats.t.interval(0.95, 2, barriers.mean(), stats.sem(barriers))
    assert mean["seeds"] == 3
    assert mean["error_barrier"] == pytest.approx(barriers.mean())
    assert mean["error_barrier_half"] == pytest.approx((high - low) / 2)
    assert math.isnan(mean["llfc_median"])
    # Medians over activations of .2 and .6; .25 and .2; .5 alone, since the other has no baseline.
    assert mean["weak_ratio"] == pytest.approx(np.mean([0.4, 0.225, 0.5]))
    assert mean["llfc_ends"] == pytest.approx(0.4)
    row = table(load(tmp_path / "kept.json")).split("\n")[-1]
    assert row.startswith("| spawn_k1 | none | 3 | 11.00 / 13.00 | 2.40 ± ")


def test_a_sweep_without_a_finished_run_is_one_line(swept):
    (swept / "sweep.csv").write_text("")
    with pytest.raises(SystemExit, match="no run of this sweep"):
        read(swept)


def test_the_overview_has_a_row_for_every_claim_and_grades_it():
    lines = overview(load_all()).split("\n")[2:]
    assert len(lines) == len(CLAIMS)
    graded = {tuple(cell.strip() for cell in line.split("|")[1:6:2]): line for line in lines}
    (p3,) = [line for key, line in graded.items() if key[0].startswith("P3") and "weight" in key[1]]
    assert "| not met | not met | 16.70 ± 8.29 |" in p3
    (s2,) = [line for line in lines if line.startswith("| S2") and "small" in line]
    assert "| met | met |" in s2
