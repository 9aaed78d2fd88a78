"""A stopped run goes on with the same bits; damage and mix-ups are told, never swallowed."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import same

from llfc_jax.errors import WorkdirError
from llfc_jax.training import create_state, train_pairs, trainer
from llfc_jax.training.checkpoint import Checkpoints
from llfc_jax.training.preemption import defer_signals

PAIRS = ("spawn_k1",)
HERE = Path(__file__).parent


class Stop(Exception):
    """A crash."""


def ends(pairs):
    return [(pair.a, pair.b, pair.history) for pair in pairs.values()]


def process(workdir, epoch):
    """The same training in a process of its own, which kills itself in an epoch."""
    command = [sys.executable, str(HERE / "interrupted.py"), str(workdir), epoch]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(HERE.parent.parent)})


@pytest.fixture(scope="module")
def unbroken(small, dataset, recipe):
    return ends(train_pairs(small, dataset, recipe, PAIRS))


@pytest.fixture(scope="module")
def finished(small, dataset, recipe, tmp_path_factory):
    """The workdir of a run that ended well: checkpoints of its last two epochs."""
    workdir = tmp_path_factory.mktemp("finished")
    train_pairs(small, dataset, recipe, PAIRS, workdir=workdir, checkpoint_seconds=0)
    return workdir


def test_a_killed_process_resumes_with_the_same_bits(small, dataset, recipe, unbroken, tmp_path):
    assert process(tmp_path, "3").wait() == -signal.SIGKILL
    saved = {p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()}
    assert saved == {"6", "12"}
    epochs = []
    resumed = train_pairs(
        small,
        dataset,
        recipe,
        PAIRS,
        workdir=tmp_path,
        progress=lambda done, total, words: epochs.append(words.split()[1]),
    )
    assert set(epochs) == {"3", "4"}
    assert same(ends(resumed), unbroken)


def test_every_exception_and_signal_leaves_a_run_that_resumes(
    small, dataset, recipe, unbroken, tmp_path
):
    calls = []

    def crash(done, total, words):
        calls.append(done)
        if len(calls) == 3:
            raise Stop

    def interrupt(done, total, words):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stop):
        train_pairs(
            small, dataset, recipe, PAIRS, workdir=tmp_path, checkpoint_seconds=0, progress=crash
        )
    for _ in range(3):  # in mid-epoch, as soon as a step is done
        with pytest.raises(KeyboardInterrupt):
            train_pairs(small, dataset, recipe, PAIRS, workdir=tmp_path, progress=interrupt)
    saved = {int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()}
    assert len(saved) == 2
    assert max(saved) % 6
    assert same(ends(train_pairs(small, dataset, recipe, PAIRS, workdir=tmp_path)), unbroken)


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with defer_signals() as caught:
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not caught


def test_a_finished_run_is_loaded_not_trained(
    small, dataset, recipe, unbroken, finished, monkeypatch
):
    monkeypatch.setattr(trainer, "run_epoch", None)
    assert same(ends(train_pairs(small, dataset, recipe, PAIRS, workdir=finished)), unbroken)


def test_checkpoints_are_as_far_apart_as_asked_and_the_last_is_kept(mlp, dataset, recipe, tmp_path):
    seen = set()

    def note(done, total, words):
        seen.update(p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit())

    three = dataclasses.replace(recipe, epochs=5)
    options = {"checkpoint_every": 2, "checkpoint_seconds": 0, "progress": note}
    train_pairs(mlp, dataset, three, PAIRS, workdir=tmp_path, **options)
    assert seen == {"12", "24"}
    assert (tmp_path / "checkpoints" / "30").exists()


def test_any_damaged_file_raises_or_does_no_harm(small, dataset, recipe, finished, tmp_path):
    """Each file of the newest checkpoint cut short, emptied, removed, or with a byte flipped."""
    identity = json.loads((finished / "checkpoints" / "run.json").read_text())
    make = partial(create_state, small, recipe, shape=dataset.shape, steps_per_epoch=6)
    like = jax.eval_shape(make, key=jax.random.key(0))
    whole = Checkpoints(finished / "checkpoints", identity).load(24, like, 2)
    newest = finished / "checkpoints" / "24"
    files = [p for p in [*newest.rglob("*"), newest.with_suffix(".json")] if p.is_file()]
    assert len(files) > 5
    random, said, folder = np.random.default_rng(0), [], tmp_path / "checkpoints"
    for file in sorted(files):
        for damage in ("cut", "empty", "flip", "remove"):
            shutil.copytree(finished / "checkpoints", folder)
            place = folder / file.relative_to(finished / "checkpoints")
            content = bytearray(place.read_bytes())
            if damage == "cut":
                del content[len(content) // 2 :]
            elif damage == "empty":
                content.clear()
            elif content:
                content[random.integers(len(content))] ^= 1 << random.integers(8)
            place.unlink() if damage == "remove" else place.write_bytes(content)
            store = Checkpoints(folder, identity)
            if store.latest == 24:
                try:
                    assert same(store.load(24, like, 2), whole)
                except WorkdirError as error:
                    said.append(str(error))
            else:  # without its digest it is incomplete
                assert (place.name, damage, store.latest) == ("24.json", "remove", 18)
            shutil.rmtree(folder)
    assert len(said) > len(files)
    for words in said:
        assert "\n" not in words
        assert "delete" in words
        assert str(tmp_path) in words


def test_a_damaged_checkpoint_can_be_deleted(small, dataset, recipe, unbroken, finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / "24")
    assert same(ends(train_pairs(small, dataset, recipe, PAIRS, workdir=tmp_path)), unbroken)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": 0.01}, "train.learning_rate: 0.05 there, 0.01 here"),
        ({"epochs": 5}, "train.epochs: 4 there, 5 here"),
        ({"augment": {"flip": 0.5}}, "train.augment"),
    ],
)
def test_another_recipe_is_refused(small, dataset, recipe, finished, change, words):
    other = dataclasses.replace(recipe, **change)
    with pytest.raises(WorkdirError) as caught:
        train_pairs(small, dataset, other, PAIRS, workdir=finished)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_data_seeds_pairs_and_networks_are_refused(small, mlp, dataset, recipe, finished):
    other = dataclasses.replace(dataset, fingerprint="other")
    for arguments, words in (
        ((small, other, recipe, PAIRS), "data.fingerprint"),
        ((small, dataset, recipe, PAIRS, 1), "runs.1/trunk: nothing there"),
        ((small, dataset, recipe, ("spawn_k2",)), "runs.0/trunk: .*epochs 0 to 1' there"),
        ((mlp, dataset, recipe, PAIRS), "network.class: 'Small' there, 'MLP' here"),
    ):
        with pytest.raises(WorkdirError, match=words):
            train_pairs(*arguments, workdir=finished)


def test_directories_that_cannot_be_used(finished, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(WorkdirError, match="cannot write to"):
        Checkpoints(file, {})
    shutil.copytree(finished / "checkpoints", tmp_path / "one")
    (tmp_path / "one" / "run.json").unlink()
    with pytest.raises(WorkdirError, match="says of which training"):
        Checkpoints(tmp_path / "one", {})
    shutil.copytree(finished / "checkpoints", tmp_path / "two")
    (tmp_path / "two" / "run.json").write_text('{"train": ')
    with pytest.raises(WorkdirError, match="is damaged"):
        Checkpoints(tmp_path / "two", {})


def test_a_failed_save_is_told_and_keeps_what_was_there(finished, tmp_path, monkeypatch):
    shutil.copytree(finished / "checkpoints", tmp_path / "c")
    store = Checkpoints(tmp_path / "c", json.loads((tmp_path / "c" / "run.json").read_text()))

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orbax.checkpoint.v1.save", full)
    with pytest.raises(WorkdirError, match=r"cannot save checkpoint .*No space left") as caught:
        store.save(30, {})
    assert "\n" not in str(caught.value)
    assert store.steps == [18, 24]


def test_halves_that_a_kill_leaves_are_tidied_away(
    small, dataset, recipe, unbroken, finished, tmp_path
):
    """Killed before the digest was written, while Orbax wrote, while an old one was deleted."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "checkpoints"
    (folder / "24.json").unlink()
    (folder / "24.orbax-checkpoint-tmp").mkdir()
    (folder / "12").mkdir()
    (folder / "6.json").write_text("{}")
    (folder / ".24.json.4711").write_text('{"manif')
    assert same(ends(train_pairs(small, dataset, recipe, PAIRS, workdir=tmp_path)), unbroken)
    names = {path.name for path in folder.iterdir()}
    assert names == {"run.json", "18", "18.json", "24", "24.json"}


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing(small, dataset, recipe, unbroken, tmp_path):
    """SIGKILL anywhere from the first import to the last save, until a run gets through."""
    random, kills, workdir = np.random.default_rng(0), 0, tmp_path / "0"
    while kills < 4:  # `benchmarks/kills.py` does as many as one likes
        running = process(workdir, "never")
        try:
            assert running.wait(random.uniform(0.5, 8.0)) == 0
        except subprocess.TimeoutExpired:
            kills += 1
            running.kill()
            running.wait()
        else:
            assert same(ends(train_pairs(small, dataset, recipe, PAIRS, workdir=workdir)), unbroken)
            workdir = tmp_path / str(kills)
    assert same(ends(train_pairs(small, dataset, recipe, PAIRS, workdir=workdir)), unbroken)
