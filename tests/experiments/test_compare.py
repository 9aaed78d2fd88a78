"""Runs read back from their directories, and side by side on one page."""

import json
import math
import subprocess
import sys

import jax
import numpy as np
import pytest

import llfc_jax
from llfc_jax.errors import ConfigError, WorkdirError
from llfc_jax.experiments.compare import compare, spreads


def apply(w, x):
    return jax.nn.relu(x @ w["in"]) @ w["out"]


def mode(seed):
    rng = np.random.default_rng(seed)
    return {"in": rng.normal(size=(4, 8)).astype("f4"), "out": rng.normal(size=(8, 3)).astype("f4")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two studies, one of which measured less, as they were written."""
    folder = tmp_path_factory.mktemp("runs")
    x = np.random.default_rng(9).normal(size=(60, 4)).astype("f4")
    data = x, np.asarray(apply(mode(0), x).argmax(-1))
    studies = {}
    for name, measures in (("near", ["lmc", "llfc"]), ("far", ["lmc"])):
        b = mode(1) if name == "far" else jax.tree.map(lambda w: 1.1 * w, mode(0))
        path = folder / name
        studies[path] = llfc_jax.study(
            apply, mode(0), b, data, measures=measures, alphas=(0.0, 0.5, 1.0), workdir=path
        )
    return studies


def same(ours, theirs):
    assert [row.keys() for row in ours] == [row.keys() for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        for name, value in mine.items():
            nan = isinstance(value, float) and math.isnan(value)
            assert math.isnan(other[name]) if nan else value == other[name]


def test_a_study_is_read_back_as_it_was_written(runs):
    for path, study in runs.items():
        again = llfc_jax.Study.read(path)
        same(again.summary, study.summary)
        assert (again.columns, again.rows.keys()) == (study.columns, study.rows.keys())
        for name, rows in study.rows.items():
            same(again.rows[name], rows)
        assert str(again) == str(study)
        assert again.details["study"]["measures"] == list(study.rows)


def test_the_command_makes_one_page_of_all(runs, tmp_path):
    command = [sys.executable, "-m", "llfc_jax.main", "--compare", *map(str, runs)]
    done = subprocess.run(
        [*command, "--workdir", str(tmp_path), "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [row["run"] for row in told["summary"]] == ["near", "far"]
    assert told["report"] == str(tmp_path / "comparison.html")
    page = (tmp_path / "comparison.html").read_text("utf-8")
    for words in ("Runs side by side", "Linear mode connectivity", "no better than chance"):
        assert words in page


def test_what_lies_apart_is_said_in_words():
    rows = [
        {
            "run": name,
            "pair": "p",
            "align": "weight",
            "midpoint_barrier": barrier,
            "llfc_median": nan,
        }
        for name, barrier, nan in (("x", 0.25, 1.0), ("y", 0.5, math.nan), ("z", 0.125, math.nan))
    ]
    assert spreads(rows) == [
        "`p` aligned by weight: the barrier at α = ½ lies between 0.125 (`z`) and 0.5 (`y`)."
    ]
    assert spreads(rows[:1]) == []


def test_what_is_no_run_is_told_in_one_line(runs, tmp_path):
    near, far = runs
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "summary.json").write_text("{}")
    for paths, kind, words in (
        ([near], WorkdirError, "two or more"),
        ([near, near], ConfigError, "two runs are called"),
        ([near, tmp_path], WorkdirError, "holds no summary.json"),
        ([far, tmp_path / "sweep"], WorkdirError, "holds a sweep; name its runs"),
        ([far, tmp_path / "broken"], WorkdirError, "damaged"),
    ):
        with pytest.raises(kind, match=words) as caught:
            compare(paths, tmp_path / "page.html")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "page.html").exists()


def test_directories_of_one_name_are_told_apart_by_their_paths(runs, tmp_path):
    near, _ = runs
    (tmp_path / "near").symlink_to(near)
    rows = compare([near, tmp_path / "near"], tmp_path / "page.html")
    assert len({row["run"] for row in rows}) == 2
