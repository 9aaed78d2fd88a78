"""Spawning is true: a shared trunk, branches of their own, controls that share nothing."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny import same

from llfc_jax.errors import ConfigError
from llfc_jax.parallel.loops import LoopPlan
from llfc_jax.training import (
    PAIR_KINDS,
    Rates,
    Recipe,
    TrainingRun,
    Trial,
    fork_state,
    list_runs,
    pair_kind,
    pair_kinds,
    parse_pair_name,
    train,
    train_pairs,
    train_seeds,
    train_trials,
)
from llfc_jax.training.history import make_history
from llfc_jax.training.loop import Pace, gather_states, place_states, run_epoch
from llfc_jax.training.state import create_state, stack, unstack
from llfc_jax.training.step import make_setup

PAIRS = ("spawn_k0", "spawn_k2", "spawn_k4", "independent")
PLAN = LoopPlan("scan", "loop")


@pytest.fixture(scope="module")
def trained(small, dataset, recipe):
    return train_pairs(small, dataset, recipe, PAIRS, seed=3, plan=PLAN)


def test_a_spawned_pair_is_a_trunk_continued_twice(small, dataset, recipe, trained):
    """By hand: train a trunk for 2 epochs, fork, train each branch alone for 2 more."""
    task = make_setup(small, recipe, dataset)
    data = jax.device_put((dataset.train.images, dataset.train.labels))

    def continued(state, epochs):
        groups = place_states(stack([state]), PLAN)
        for _ in range(epochs):
            list(run_epoch(task, PLAN, data, groups, 0, Pace()))
        return unstack(gather_states(groups))[0]

    key = jax.random.fold_in(jax.random.key(3), 0)
    trunk = continued(create_state(small, recipe, key, dataset.shape, task.steps), 2)
    a, b = (continued(fork_state(trunk, branch), 2) for branch in (0, 1))
    pair = trained["spawn_k2"]
    assert same(pair.a, a.variables)
    assert same(pair.b, b.variables)
    assert not same(pair.a, pair.b)
    assert same(a.opt_state[1], a.opt_state[1])
    assert int(a.step) == 24


def test_histories_are_shared_up_to_the_fork(trained, recipe):
    for pair, shared in (("spawn_k0", 0), ("spawn_k2", 2), ("spawn_k4", 4), ("independent", 0)):
        loss = trained[pair].history.loss
        assert loss.shape == (2, recipe.epochs)
        assert (loss[0] == loss[1]).tolist() == [e < shared for e in range(recipe.epochs)]
    k2, k4 = (trained[pair].history.loss for pair in ("spawn_k2", "spawn_k4"))
    np.testing.assert_array_equal(k2[0, :2], k4[0, :2])
    assert same(trained["spawn_k4"].a, trained["spawn_k4"].b)
    records = trained["spawn_k2"].history.records()
    assert [r["epoch"] for r in records if r["run"] == "b"] == [1, 2, 3, 4]


def test_streams_differ_between_branches_forks_controls_and_seeds():
    runs = list_runs(("spawn_k0", "spawn_k2", "independent"), 0, 4) + list_runs(
        ("independent",), 1, 4
    )
    assert len({run.name for run in runs}) == len(runs)
    roots = [run.key() for run in runs if run.trunk is None]
    assert len({np.asarray(jax.random.key_data(key)).tobytes() for key in roots}) == 5


def test_controls_start_from_other_weights_and_spawned_pairs_from_the_same(small, dataset):
    """With a vanishing rate, training ends where it began."""
    still = Recipe(epochs=1, batch_size=8, learning_rate=1e-30, weight_decay=0.0)
    out = train_pairs(small, dataset, still, ("spawn_k0", "spawn_k1", "independent"), plan=PLAN)
    kernels = {
        name: [np.asarray(end["params"]["Dense_0"]["kernel"]) for end in (pair.a, pair.b)]
        for name, pair in out.items()
    }
    assert same(*kernels["spawn_k0"])
    assert same(kernels["spawn_k0"], kernels["spawn_k1"])
    assert len({k.tobytes() for k in (*kernels["independent"], kernels["spawn_k0"][0])}) == 3


def test_a_pair_does_not_depend_on_which_others_are_trained(small, dataset, recipe, trained):
    alone = train_pairs(small, dataset, recipe, ("spawn_k2",), seed=3, plan=PLAN)
    assert same(alone["spawn_k2"].a, trained["spawn_k2"].a)
    several = train_seeds(small, dataset, recipe, ("spawn_k2",), seeds=(1, 3), plan=PLAN)
    assert same(several[3]["spawn_k2"].b, trained["spawn_k2"].b)
    assert not same(several[1]["spawn_k2"].b, trained["spawn_k2"].b)


def test_progress_counts_every_step_of_every_run(mlp, dataset, recipe):
    seen = []
    train_pairs(
        mlp, dataset, recipe, ("spawn_k2", "independent"), progress=lambda *a: seen.append(a)
    )
    done, totals, words = zip(*seen, strict=True)
    # 2 epochs of the trunk and the controls, then 2 of the branches and the controls.
    assert set(totals) == {(2 * 3 + 2 * 4) * 6}
    assert list(done) == sorted(set(done))
    assert done[-1] == totals[0]
    assert words[-1].startswith("epoch 4 of 4, loss 0.")


def test_divergence_is_told_and_the_rest_goes_on(mlp, dataset):
    wild = Recipe(epochs=3, batch_size=8, learning_rate=1e30, schedule="constant")
    words = []
    pair = train_pairs(
        mlp, dataset, wild, ("independent",), progress=lambda done, total, w: words.append(w)
    )["independent"]
    assert words[-1] == "epoch 3 of 3, all diverged"
    assert pair.diverged == (
        "independent: a diverged in epoch 1, b diverged in epoch 1; lower train.learning_rate"
    )
    assert np.isnan(pair.history.loss).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(pair.a))


def test_history_marks_only_what_diverged(mlp, dataset, recipe):
    states = train(
        mlp, dataset, recipe, [TrainingRun("x", (0,), end=4), TrainingRun("y", (1,), end=4)]
    )
    told = make_history(states, steps_per_epoch=6, batch_size=8)
    assert told.diverged.tolist() == [0, 0]
    assert ((told.accuracy > 0) & (told.accuracy <= 1)).all()
    np.testing.assert_allclose(told.accuracy[0] * 48, states["x"].correct)


@pytest.mark.parametrize(
    ("name", "fork"), [("spawn_k0", 0), ("spawn_k12", 12), ("independent", None)]
)
def test_pair_names(name, fork):
    assert parse_pair_name(name, epochs=12).shared_epochs == fork


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("spawn_k13", "forks after the end of training (12 epochs)"),
        ("spawn_k-1", "unknown pair"),
        ("spawn_k01", "unknown pair"),
        ("spawn_k", "unknown pair"),
        ("spawn_1", "unknown pair"),
        ("independant", "unknown pair 'independant'"),
        ("spawn_k1 ", "unknown pair"),
        (3, "unknown pair 3"),
    ],
)
def test_bad_pair_names_give_one_line(name, words):
    with pytest.raises(ConfigError) as caught:
        parse_pair_name(name, epochs=12)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_of_pairs_and_seeds_are_checked(mlp, dataset, recipe):
    for pairs in ((), ("independent", "independent")):
        with pytest.raises(ConfigError, match="one or more different names"):
            train_pairs(mlp, dataset, recipe, pairs)
    with pytest.raises(ConfigError, match="different integers"):
        train_seeds(mlp, dataset, recipe, ("independent",), seeds=(1, 1))


@pytest.mark.slow
def test_trials_of_several_rates_train_together_as_each_would_alone(mlp, dataset, recipe):
    """Rates are data of a replica: bit for bit where replicas take turns, rounding where not."""
    trials = [
        Trial(dataclasses.replace(recipe, learning_rate=rate, weight_decay=decay), ("spawn_k1",))
        for rate, decay in ((0.05, 0.0), (0.02, 1e-2), (1e30, 1e-4))
    ]
    alone = [train_trials(mlp, dataset, [trial], plan=PLAN)[0]["spawn_k1"] for trial in trials]
    for plan in (PLAN, LoopPlan("scan", "vmap")):
        among = [pairs["spawn_k1"] for pairs in train_trials(mlp, dataset, trials, plan=plan)]
        assert [bool(pair.diverged) for pair in among] == [False, False, True]
        for one, other in zip(among[:2], alone[:2], strict=True):
            if plan is PLAN:
                assert same((one.a, one.b), (other.a, other.b))
            jax.tree.map(
                lambda p, q: np.testing.assert_allclose(p, q, atol=1e-6),
                (one.a, one.b, one.history.loss),
                (other.a, other.b, other.history.loss),
            )
    assert not same(among[0].a, among[1].a)


def test_trials_that_differ_in_their_pairs_share_their_trunk(mlp, dataset, recipe):
    steps = []
    trials = [Trial(recipe, pairs, 3) for pairs in (("spawn_k1", "independent"), ("spawn_k3",))]
    found = train_trials(
        mlp, dataset, trials, plan=PLAN, progress=lambda done, total, words: steps.append(total)
    )
    # One trunk of 3 epochs, two branches of 3, two of 1 and two controls of 4, 6 steps each.
    assert set(steps) == {(3 + 2 * 3 + 2 * 1 + 2 * 4) * 6}
    whole = train_pairs(mlp, dataset, recipe, ("spawn_k1", "independent", "spawn_k3"), 3, plan=PLAN)
    assert [list(pairs) for pairs in found] == [["spawn_k1", "independent"], ["spawn_k3"]]
    for pairs in found:
        for name, pair in pairs.items():
            assert same((pair.a, pair.b), (whole[name].a, whole[name].b))


def test_trials_of_different_recipes_are_refused(mlp, dataset, recipe):
    other = dataclasses.replace(recipe, momentum=0.5)
    for trials in ([], [Trial(recipe), Trial(other)]):
        with pytest.raises(ConfigError, match="learning_rate and weight_decay"):
            train_trials(mlp, dataset, trials)


def test_a_kind_of_pair_is_added_by_one_class(mlp, dataset, recipe, monkeypatch):
    """A network, and a copy of it that leaves it after some epochs at a smaller rate."""
    monkeypatch.setattr(pair_kinds.registry, "PAIR_KINDS", dict(PAIR_KINDS))

    @pair_kind("slower_k<epoch>")
    @dataclasses.dataclass(frozen=True)
    class Slower:
        epoch: int

        def check(self, epochs):
            pass

        def make_runs(self, name, origin):
            a, b = (f"{origin.root}/{name}/{mode}" for mode in "ab")
            slow = Rates(1e-30, 0.0)
            return [
                TrainingRun(a, (origin.seed, 3), end=origin.epochs),
                TrainingRun(b, (0,), a, start=self.epoch, end=origin.epochs, rates=slow),
            ]

    made = train_pairs(mlp, dataset, recipe, ("slower_k2", "independent"), plan=PLAN)
    pair = made["slower_k2"]
    assert (pair.history.loss[0] == pair.history.loss[1]).tolist() == [True, True, False, False]
    alone = train(mlp, dataset, recipe, [TrainingRun("a", (0, 3), end=4)], plan=PLAN)["a"]
    assert same(pair.a, alone.variables)
    with pytest.raises(ConfigError, match="or 'slower_k<epoch>'"):
        train_pairs(mlp, dataset, recipe, ("slower",))
