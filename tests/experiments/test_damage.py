"""Full disks and damaged files: one line and intact results, or the right bytes; no third way."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fuzz import examples
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from llfc_jax import io as files
from llfc_jax.errors import LlfcError, WorkdirError
from llfc_jax.experiments import run as experiment
from llfc_jax.experiments.config import base, check
from llfc_jax.experiments.workdir import claim
from llfc_jax.progress import Reporter


def config():
    config = base()
    config.network = {"name": "mlp", "widths": (8,)}
    config.data.update(train_size=100, test_size=60)
    config.train.update(epochs=2, batch_size=50, optimizer="adam", learning_rate=5e-3)
    config.train.update(schedule="constant", weight_decay=0.0)
    config.pairs = ("spawn_k1",)
    config.align = ("none", "weight")
    config.measures = ("lmc",)
    config.eval.alphas = (0.0, 0.5, 1.0)
    return check(config)


def run(path):
    with claim(path, config().to_dict()) as held, Reporter(Console(file=io.StringIO())) as reporter:
        experiment.run(config(), held, reporter)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    path = tmp_path_factory.mktemp("unbroken")
    run(path)
    return path


def tables(path):
    return {
        file.relative_to(path): file.read_bytes()
        for file in path.rglob("*")
        if file.suffix in (".csv", ".npz") or file.parent.name == "measured"
    }


@pytest.mark.slow
def test_a_disk_full_at_any_file_leaves_what_was_there_and_the_next_run_goes_on(
    unbroken, tmp_path, monkeypatch
):
    replace, written, full = Path.replace, {}, None

    def maybe(place, target):
        written[target.name] = None
        if target.name == full:
            raise OSError(28, "No space left on device")
        return replace(place, target)

    monkeypatch.setattr(Path, "replace", maybe)
    run(tmp_path / "whole")
    names, before = list(written), {}
    assert len(names) > 10
    for name in names:
        full = name
        with pytest.raises(WorkdirError, match="No space left on device") as caught:
            run(tmp_path / "full")
        assert "\n" not in str(caught.value)
        assert not [p for p in tmp_path.rglob(".*") if files.LEFT.fullmatch(p.name)]
        assert before.items() <= tables(tmp_path / "full").items()
        before = tables(tmp_path / "full")
    full = None
    run(tmp_path / "full")
    assert tables(tmp_path / "full") == tables(unbroken)


def test_a_directory_that_cannot_be_written_is_told(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("")
    for path in (taken, taken / "below"):
        with pytest.raises(WorkdirError, match=r"cannot write to .*choose another"):
            run(path)
    for path in (taken / "a.csv", taken / "a.json"):
        with pytest.raises(WorkdirError, match=r"cannot write .*intact"):
            files.write_text(path, "")


def test_halves_that_a_kill_left_are_removed(unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    (tmp_path / "measured" / ".spawn_k1-none-lmc-test.4711.json").write_text("{")
    (tmp_path / ".lmc.4711.csv").write_text("pair,")
    run(tmp_path)
    assert {p.name for p in tmp_path.rglob(".*")} == {".lock"}


FILES = ("config.json", "checkpoints/run.json", "checkpoints/2.json", "measured/*.json",
         "permutations/*.npz")  # fmt: skip


@examples(12)
@given(data=st.data())
def test_damage_anywhere_is_told_or_does_no_harm(unbroken, tmp_path_factory, data):
    """One file cut short, or a bit of it flipped, at a place that hypothesis chooses."""
    path = tmp_path_factory.mktemp("damaged")
    shutil.copytree(unbroken, path, dirs_exist_ok=True)
    files = sorted(f.relative_to(path) for pattern in FILES for f in path.glob(pattern))
    file = path / data.draw(st.sampled_from(files))
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    bit = data.draw(st.none() | st.integers(0, 7))
    if bit is None:
        del content[place:]
    else:
        content[place] ^= 1 << bit
    file.write_bytes(content)
    said = ""
    try:
        run(path)
        for name, content in tables(unbroken).items():
            assert path / name == file or (path / name).read_bytes() == content
    except LlfcError as error:
        said = str(error)
    assert "\n" not in said
    shutil.rmtree(path)


def test_a_sealed_file_comes_back_or_is_told(tmp_path):
    file, content = tmp_path / "a.json", {"rows": [{"x": 0.1 + 0.2, "y": None, "z": "é\n"}]}
    files.write_sealed(file, content)
    assert files.read_sealed(file) == content
    text = file.read_bytes()
    for place in range(len(text)):
        for bit in range(8):
            changed = bytearray(text)
            changed[place] ^= 1 << bit
            file.write_bytes(changed)
            with contextlib.suppress(WorkdirError):
                assert files.read_sealed(file) == content
    for other in (b"[]", b"", b"null", b"[" * 100_000, b'{"sha256": 1}'):
        file.write_bytes(other)
        with pytest.raises(WorkdirError):
            files.read_sealed(file)


def test_not_a_number_survives_the_seal(tmp_path):
    files.write_sealed(tmp_path / "a.json", {"x": np.float32("nan"), "y": (1, 2)})
    assert files.read_sealed(tmp_path / "a.json") == {"x": None, "y": [1, 2]}
    assert json.loads((tmp_path / "a.json").read_text())["sha256"]
