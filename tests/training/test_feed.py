"""A train split that is streamed from the host trains the same bits as one on the device."""

import dataclasses
import signal
import threading
from functools import partial

import jax
import numpy as np
import pytest
from tiny import SAMPLES, same

from llfc_jax.data import Dataset, Split, stream
from llfc_jax.data.stream import read_ahead
from llfc_jax.parallel.loops import LoopPlan
from llfc_jax.training import Recipe, TrainingRun, train
from llfc_jax.training.feed import feed_dispatches, place_train_split

RUNS = [TrainingRun(name, (seed,), end=2) for seed, name in enumerate("ab")]
SINGLE = LoopPlan("python", "loop")


@pytest.fixture
def large(dataset: Dataset) -> Dataset:
    """The data, none of which may lie on the device."""
    return dataclasses.replace(dataset, resident_mb=0)


@pytest.fixture
def short(recipe: Recipe) -> Recipe:
    """Two epochs of shuffled, flipped images."""
    return dataclasses.replace(recipe, epochs=2, augment={"flip": 0.5})


@pytest.mark.slow
@pytest.mark.parametrize("plan", [SINGLE, LoopPlan("scan", "vmap")])
def test_streamed_training_has_the_same_bits(mlp, short, dataset, large, plan):
    assert isinstance(place_train_split(large), Split)
    assert not isinstance(place_train_split(dataset), Split)
    there, here = (train(mlp, data, short, RUNS, plan=plan) for data in (dataset, large))
    assert same(there, here)
    assert not same(here["a"].variables, here["b"].variables)


def test_a_stream_is_taken_up_in_mid_epoch(mlp, short, dataset, large, tmp_path):
    """Stopped after each of four steps; the saved states' step is the position in the stream."""

    def stop(done: int, total: int, words: str) -> None:
        signal.raise_signal(signal.SIGINT)

    resume = partial(train, mlp, large, short, RUNS, plan=SINGLE, workdir=tmp_path)
    for step in (1, 2, 3, 4):
        with pytest.raises(KeyboardInterrupt):
            resume(progress=stop)
        assert (tmp_path / "checkpoints" / str(step)).is_dir()
    assert same(resume(), train(mlp, dataset, short, RUNS, plan=SINGLE))


def test_only_the_coming_samples_are_read_in_the_order_of_the_epoch(dataset):
    rng = np.random.default_rng(0)
    orders = jax.numpy.asarray(np.stack([rng.permutation(SAMPLES) for _ in "ab"]), "int32")
    parts = list(feed_dispatches(dataset.train, orders, first=8, size=16))
    assert len(parts) == 2  # of 42 samples that are left
    for number, ((images, labels), places) in enumerate(parts):
        start = 8 + 16 * number
        rows = orders[:, start : start + 16]
        np.testing.assert_array_equal(images, dataset.train.images[rows])
        np.testing.assert_array_equal(labels, dataset.train.labels[rows])
        np.testing.assert_array_equal(places[:, start : start + 16], [range(16)] * 2)


def test_reads_are_under_way_before_they_are_asked_for():
    begun = threading.Event()
    reads = read_ahead(lambda number: (number == 2 and begun.set()) or number, 0, 5)
    assert next(reads) == 0
    assert begun.wait(10)
    assert list(reads) == [1, 2, 3, 4]


def test_what_is_streamed_is_decided_by_size(dataset, monkeypatch):
    assert [
        stream.is_streamed(dataset.train, dataclasses.replace(dataset, resident_mb=mb))
        for mb in (0, 1)
    ] == [True, False]
    monkeypatch.setattr(stream, "_memory", lambda: 4 * dataset.train.images.nbytes)
    assert not stream.is_streamed(dataset.train, dataset)
    monkeypatch.setattr(stream, "_memory", lambda: 4 * dataset.train.images.nbytes - 4)
    assert stream.is_streamed(dataset.train, dataset)
