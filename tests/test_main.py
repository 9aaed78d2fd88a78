"""The command line as a user meets it: in a process of its own."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
QUICKSTART = "configs/quickstart.py"


def llfc(*args, cwd=ROOT, **kwargs):
    command = [sys.executable, "-m", "llfc_jax.main", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, **kwargs)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "name a config"),
        (("--config", "configs/nope.py"), "no config file configs/nope.py"),
        (("--config", QUICKSTART, "--config.sed=1"), "did you mean 'seed'"),
        (("--config", QUICKSTART, "--config.train.epochs=many"), "epochs"),
        (("--config", QUICKSTART, "--confg.seed=1"), "confg"),
        (("--config", QUICKSTART, "extra"), "'extra'"),
        (("--config", QUICKSTART, "--config.measures=('lcm',)"), "did you mean 'lmc'"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_and_exit_status_2(args, words):
    done = llfc(*args)
    assert done.returncode == 2
    assert words in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.endswith(", starting")]
    assert len(lines) == 1
    assert "Traceback" not in done.stderr + done.stdout


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("quickstart")
    start = time.monotonic()
    done = llfc("--config", QUICKSTART, "--workdir", workdir)
    assert done.returncode == 0, done.stderr
    return workdir, done, time.monotonic() - start


@pytest.mark.slow
def test_quickstart_shows_what_the_paper_says(quickstart):
    workdir, done, _ = quickstart
    summary = {r["pair"]: r for r in json.loads((workdir / "summary.json").read_text())["summary"]}
    spawned, control = summary["spawn_k1"], summary["independent"]
    assert spawned["error_barrier"] < 0.01 < control["error_barrier"]
    with (workdir / "llfc.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["alpha"] == "0.5"]
    by = {(r["pair"], r["layer"]): r for r in rows}
    layers = [r["layer"] for r in rows if r["pair"] == "spawn_k1"][1:]
    far = [
        float(by["spawn_k1", layer]["baseline"]) >= 10 * float(by["spawn_k1", layer]["distance"])
        for layer in layers
    ]
    assert sum(far) >= len(layers) - 1
    for layer in layers:
        assert float(by["independent", layer]["distance"]) >= 20 * float(
            by["spawn_k1", layer]["distance"]
        )
    assert "LMC, LLFC" in done.stdout
    assert "no LMC, no LLFC" in done.stdout


@pytest.mark.slow
def test_a_finished_run_is_shown_again_without_work(quickstart):
    workdir, _, took = quickstart
    before = (workdir / "llfc.csv").read_bytes()
    start = time.monotonic()
    assert llfc("--config", QUICKSTART, "--workdir", workdir).returncode == 0
    assert time.monotonic() - start < max(20, took)
    assert (workdir / "llfc.csv").read_bytes() == before
    other = llfc("--config", QUICKSTART, "--workdir", workdir, "--config.seed=5")
    assert other.returncode == 2
    assert "another experiment" in other.stderr


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(quickstart, tmp_path):
    workdir, _, took = quickstart
    command = [sys.executable, "-m", "llfc_jax.main", "--config", QUICKSTART, "--workdir", tmp_path]
    for share in (0.4, 0.7):
        process = subprocess.Popen(
            list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(share * took)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = llfc("--config", QUICKSTART, "--workdir", tmp_path)
    assert done.returncode == 0, done.stderr
    for file in workdir.glob("*.csv"):
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "llfc_jax.main", "--config", QUICKSTART, "--workdir", str(tmp_path)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("run.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again" in err
    assert "Traceback" not in err


def test_results_stay_out_of_the_package(tmp_path):
    done = llfc("--config", ROOT / QUICKSTART, "--config.data.name=digit", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'digits'" in done.stderr
