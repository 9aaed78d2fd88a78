"""The command line's options: it lists, it plans, and it prints JSON with --json."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llfc_jax import arguments
from llfc_jax.errors import ConfigError, DataError, WorkdirError
from llfc_jax.experiments import rerun
from llfc_jax.io import write_sealed
from llfc_jax.measures import MEASURES
from llfc_jax.networks import NETWORKS

ROOT = Path(__file__).parent.parent
QUICKSTART = ROOT / "configs" / "quickstart.py"
SMALL = (
    "--config", QUICKSTART, "--config.data.train_size=200", "--config.data.test_size=60",
    "--config.train.epochs=2", "--config.train.batch_size=50", "--config.network.widths=(8,)",
    "--config.measures=('lmc','llfc')", "--config.align=('none','weight')",
)  # fmt: skip


def llfc(*args, cwd=ROOT, flags=None):
    command = [sys.executable, "-m", "llfc_jax.main", *map(str, args)]
    env = os.environ | ({"XLA_FLAGS": flags} if flags else {})
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=env)


def test_everything_there_is_to_choose_from_is_listed_with_a_line_each():
    done = llfc("--list", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["measures"].keys() == MEASURES.keys()
    assert found["networks"].keys() == NETWORKS.keys()
    assert "configs/quickstart.py" in found["configs"]
    assert {"digits", "npz"} <= found["data sets"].keys()
    assert {"none", "weight", "activation"} <= found["alignments"].keys()
    lines = [line for entries in found.values() for line in entries.values()]
    assert all(line and "\n" not in line for line in lines)


def test_the_list_is_text_too_and_needs_no_configs(tmp_path):
    done = llfc("--list", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "lenet5" in done.stdout
    assert "Traceback" not in done.stderr


def test_help_names_every_flag_and_every_exit_status():
    done = llfc("--help")
    assert done.returncode == 0
    for words in ("--workdir", "--plan", "--compare", "--rerun", "Exit status: 0 done", "130"):
        assert words in done.stdout


def test_a_plan_tells_and_does_nothing(tmp_path):
    workdir = tmp_path / "out"
    done = llfc(*SMALL, "--workdir", workdir, "--plan", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["network"]["parameters"] == str(64 * 8 + 8 + 8 * 10 + 10)
    assert found["training"]["epochs"] == "2 of 4 steps, batch 50"
    # The trunk has one epoch, its two branches one each, the independent ends two each.
    assert found["training"]["steps"].startswith(f"{4 * (1 + 1 + 1 + 2 + 2)} over 5 runs")
    assert found["measuring"]["alignments"] == "none, weight"
    assert "iB" in found["memory"]["measuring"]
    assert found["devices"]["used"] == "1"
    assert not workdir.exists()


def test_a_reader_who_has_read_enough_ends_it_quietly():
    command = f"{sys.executable} -m llfc_jax.main --list | head -n 1"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_a_plan_of_a_sweep_says_what_trains_together():
    sweep = ("--config.sweep.seed=(0,1,2)", "--config.together=8")
    two = "--xla_force_host_platform_device_count=2"
    done = llfc(*SMALL, *sweep, "--plan", "--json", flags=two)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["sweep"]["runs"].startswith("3; ")
    # Two pairs are four networks: two seeds fill a batch of eight, and the third is left.
    assert found["sweep"]["trained"] == "2 batches in turn, up to 4 pairs side by side"
    assert found["devices"] == {"available": "2 (cpu)", "used": "2 replica x 1 data"}


@pytest.mark.slow
def test_any_field_can_be_swept_over_from_the_command_line():
    fields = "--config.sweep.network.widths=((8,),(16,))", "--config.sweep.zip.train.epochs=(1,2)"
    done = llfc("plan", *SMALL[1:], *fields, "--config.sweep.zip.seed=(3,4)", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sweep"]["runs"].startswith("4")
    wrong = llfc("plan", *SMALL[1:], "--config.sweep.train.epochs=(1,")
    assert (wrong.returncode, "takes a tuple of values" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("--config.data.name=digit", "did you mean 'digits'"),
        ("--config.train.batch_size=201", "201"),
        ("--config.network.width=(3,)", "did you mean 'widths'"),
    ],
)
def test_a_plan_finds_what_a_run_would_stumble_over(change, words):
    done = llfc(*SMALL, change, "--plan")
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, llfc(*SMALL, "--workdir", workdir, "--json", "--quiet")


@pytest.mark.slow
def test_json_is_all_that_is_printed(ran):
    workdir, done = ran
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    summary = json.loads((workdir / "summary.json").read_text())
    assert found["summary"] == summary["summary"]
    assert len(found["summary"]) == 4
    assert found["report"] == str(workdir / "report.html")


def test_quiet_leaves_the_summary(ran):
    workdir, _ = ran
    done = llfc(*SMALL, "--workdir", workdir, "--quiet")
    assert done.stderr == ""
    assert "independent" in done.stdout
    assert "report.html" in done.stdout


@pytest.mark.slow
def test_a_result_comes_out_the_same_from_its_own_record(ran, tmp_path):
    workdir, _ = ran
    done = llfc("--rerun", workdir, "--workdir", tmp_path / "again", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "every number equals that in" in done.stderr
    for path in workdir.rglob("*.csv"):
        again = tmp_path / "again" / path.relative_to(workdir)
        assert again.read_bytes() == path.read_bytes(), path.name


def edited(ran, tmp_path, edit):
    """A copy of the record and its tables, its JSON edited and sealed anew."""
    record = tmp_path / "summary.json"
    content = json.loads(edit((ran[0] / "summary.json").read_text()))
    del content["sha256"]
    write_sealed(record, content)
    for table in ran[0].glob("*.csv"):
        shutil.copy(table, tmp_path)
    return record


def test_numbers_that_differ_from_the_record_are_told(ran, tmp_path):
    file = edited(ran, tmp_path, lambda text: text)
    assert rerun.read(tmp_path).differences(ran[0]) == []
    assert rerun.read(file).changes() == []
    edited(ran, tmp_path, lambda text: text.replace('"error_barrier": ', '"error_barrier": 7'))
    (tmp_path / "lmc.csv").write_text("pair\n")
    assert rerun.read(file).differences(ran[0]) == ["summary.json", "lmc.csv"]
    edited(ran, tmp_path, lambda text: text.replace('"numpy": "', '"numpy": "0'))
    assert rerun.read(file).changes()[0].startswith("numpy 0")


@pytest.mark.parametrize(
    ("edit", "kind", "words"),
    [
        (lambda t: t.replace('fingerprint": "', 'fingerprint": "f'), DataError, "fingerprint"),
        (lambda t: t.replace('"seed": ', '"sed": '), ConfigError, "did you mean 'seed'"),
        (lambda t: t.replace('"config": ', '"study": '), ConfigError, "llfc_jax.study"),
        (lambda t: t.replace('"config": ', '"conf": '), WorkdirError, "no config"),
    ],
    ids=["data", "field", "study", "no config"],
)
def test_a_record_that_cannot_be_run_is_told_before_it_is(ran, tmp_path, edit, kind, words):
    file = edited(ran, tmp_path, edit)
    with pytest.raises(kind, match=words) as caught:
        rerun.read(file).prepare(tmp_path / "again")
    assert "\n" not in str(caught.value)


def test_a_rerun_goes_elsewhere_than_its_record(ran, tmp_path):
    with pytest.raises(WorkdirError, match="holds the record itself"):
        rerun.read(ran[0]).prepare(ran[0])
    with pytest.raises(WorkdirError, match="has the run ended"):
        rerun.read(tmp_path)


def test_completion_is_one_line_of_bash_that_knows_commands_and_flags():
    done = llfc("completion")
    script = f"{done.stdout}\ncomplete -p llfc-jax"
    known = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert known.returncode == 0, known.stderr
    for word in ("sweep", "compare", "--workdir", "--merge"):
        assert word in known.stdout


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Missing value for flag --report", "name the directory of a run, as out/quickstart"),
        ("Missing value for flag --shard", "name a value for --shard"),
        (
            "flag --config.train.epochs=1.5: invalid literal for int() with base 10: '1.5'",
            "config.train.epochs must be a whole number, not 1.5",
        ),
        ("llfc_jax.errors.ConfigError: unknown scale 'x'", "unknown scale 'x'"),
    ],
)
def test_mistakes_in_flags_are_said_in_words(line, words):
    assert arguments.explain_flag_error(line) == words
