"""A report's directory is enough to make its page again, in a short time and without JAX."""

import json
import math
import subprocess
import sys
import time

import pytest

from llfc_jax.errors import WorkdirError
from llfc_jax.report import stored
from llfc_jax.report.page import Report, Table, Verdict

from . import made


def report():
    rows = [row | {"nothing": math.nan} for row in made.SUMMARY]
    return Report(
        title="Two networks",
        lead="What they are.",
        tables=[Table(rows, made.SUMMARY_COLUMNS)],
        verdicts=[Verdict("Plain."), Verdict("Connected.", "holds")],
        sections=[(made.LMC, made.lmc_rows()), (made.LLFC, made.llfc_rows())],
        details={"seed": 0, "config": {"data": {"name": "digits"}}},
        headline="llfc_layers",
    )


@pytest.fixture
def directory(tmp_path):
    stored.write(report(), tmp_path)
    return tmp_path


def test_what_is_written(directory):
    names = {
        "report.html",
        "sections.json",
        *(f"{m}.{k}" for m in ("lmc", "llfc") for k in ("csv", "json")),
    }
    assert {path.name for path in directory.iterdir()} == names
    assert (
        json.loads((directory / "lmc.json").read_text())[3]["error"] == made.lmc_rows()[3]["error"]
    )


def test_the_page_is_made_again_to_the_byte(directory):
    before = (directory / "report.html").read_bytes()
    (directory / "report.html").unlink()
    assert stored.rebuild(directory) == directory / "report.html"
    assert (directory / "report.html").read_bytes() == before


def test_a_short_time_and_no_jax(directory):
    code = (
        "import sys; from llfc_jax.report import stored; stored.rebuild(sys.argv[1]);"
        "print([m for m in ('jax', 'altair', 'vl_convert', 'scipy', 'flax') if m in sys.modules])"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, directory], capture_output=True, text=True)
    spent = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert spent < 10  # 1 s where nothing else runs


def test_what_is_missing_or_damaged_is_said(directory, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(WorkdirError, match=r"holds no sections\.json"):
        stored.read(tmp_path / "empty")
    with pytest.raises(WorkdirError, match="there is no directory"):
        stored.rebuild(tmp_path / "nowhere")
    (directory / "lmc.json").write_text("[1, 2")
    with pytest.raises(WorkdirError, match=r"lmc\.json is missing or damaged"):
        stored.rebuild(directory)
    text = (directory / "sections.json").read_text()
    (directory / "sections.json").write_text(text.replace("Two networks", "Three networks"))
    with pytest.raises(WorkdirError, match="not what was written"):
        stored.rebuild(directory)
