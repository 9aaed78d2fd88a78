"""The step against plain JAX, the order of the data, and what the ways of running it share."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import BATCH, CLASSES, SAMPLES, same

from llfc_jax import networks
from llfc_jax.data import Split, normalise
from llfc_jax.errors import ConfigError, DataError
from llfc_jax.parallel.loops import LoopPlan
from llfc_jax.training import Recipe, TrainingRun, create_state, train
from llfc_jax.training.loop import Pace, _draw_orders, gather_states, place_states, run_epoch
from llfc_jax.training.state import DROPOUT, ORDER, stack, unstack
from llfc_jax.training.step import make_setup, take_step

SCAN, PYTHON = LoopPlan("scan", "loop"), LoopPlan("python", "loop")


def begin(module, recipe, dataset, seeds=(0,)):
    task = make_setup(module, recipe, dataset)
    keys = [jax.random.key(seed) for seed in seeds]
    return task, stack(
        [create_state(module, recipe, key, dataset.shape, task.steps) for key in keys]
    )


def one_epoch(task, plan, dataset, states, first=0, until=None, pace=None):
    """The states after (the rest of) an epoch, on the host."""
    groups = place_states(states, plan)
    data = jax.device_put((dataset.train.images, dataset.train.labels))
    for done in run_epoch(task, plan, data, groups, first, pace or Pace()):
        if done == until:
            break
    return gather_states(groups)


def test_an_epoch_is_plain_optax_over_the_normalised_batches(small, recipe, dataset):
    """Written out once more without the library: loss, update, statistics, history."""
    task, states = begin(small, recipe, dataset)
    ours = unstack(one_epoch(task, PYTHON, dataset, states))[0]
    key = jax.random.key(0)
    order = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, ORDER), 0), SAMPLES)
    optimiser = optax.chain(
        optax.add_decayed_weights(recipe.weight_decay),
        optax.sgd(optax.cosine_decay_schedule(0.05, 4 * 6), 0.9),
    )
    start = unstack(states)[0].variables
    params, statistics = start["params"], start["batch_stats"]
    memory, losses, correct = optimiser.init(params), [], 0

    @jax.jit
    def loss(params, statistics, x, y, key):
        logits, after = small.apply(
            {"params": params, "batch_stats": statistics},
            x,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)
        return -chosen.mean(), (after["batch_stats"], (logits.argmax(-1) == y).sum())

    for number in range(6):
        rows = np.asarray(order[number * BATCH : (number + 1) * BATCH])
        x = (dataset.train.images[rows] / np.float32(255) - np.float32(0.3)) / np.float32(0.2)
        drop = jax.random.fold_in(jax.random.fold_in(key, DROPOUT), number)
        (value, (statistics, right)), grads = jax.value_and_grad(loss, has_aux=True)(
            params, statistics, x, dataset.train.labels[rows], drop
        )
        updates, memory = optimiser.update(grads, memory, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(value))
        correct += int(right)
    theirs = {"params": params, "batch_stats": statistics}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours.variables, theirs
    )
    np.testing.assert_allclose(ours.loss[0], sum(losses), rtol=1e-5)
    assert ours.correct.tolist() == [correct, 0, 0, 0]
    assert ours.step == 6


def test_every_epoch_and_replica_has_its_own_order(mlp, recipe, dataset):
    task, states = begin(mlp, recipe, dataset, seeds=(0, 1))
    assert task.steps == 6
    first = np.asarray(_draw_orders(task, states))
    later = np.asarray(_draw_orders(task, dataclasses.replace(states, step=states.step + 6)))
    within = np.asarray(_draw_orders(task, dataclasses.replace(states, step=states.step + 5)))
    for order in (*first, *later):
        assert sorted(order.tolist()) == list(range(SAMPLES))
    assert len({order.tobytes() for order in (*first, *later)}) == 4
    np.testing.assert_array_equal(first, within)


@pytest.mark.parametrize("plan", [SCAN, PYTHON])
def test_where_dispatches_are_cut_changes_no_bit(mlp, recipe, dataset, plan):
    task, states = begin(mlp, recipe, dataset)
    whole = one_epoch(task, plan, dataset, states, pace=Pace(64))
    half = one_epoch(task, plan, dataset, states, until=None if plan == SCAN else 3, pace=Pace(3))
    if plan == PYTHON:
        assert half.step.tolist() == [3]
        half = one_epoch(task, plan, dataset, half, first=3)
    assert same(whole, half)


def test_a_scan_takes_up_what_single_steps_left_in_mid_epoch(mlp, recipe, dataset):
    """As on a GPU after a CPU; four of the six steps are left, which no stride of six divides."""
    task, states = begin(mlp, recipe, dataset)
    half = one_epoch(task, PYTHON, dataset, states, until=2, pace=Pace(2))
    whole = one_epoch(task, SCAN, dataset, half, first=2)
    assert whole.step.tolist() == [6]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        whole.variables,
        one_epoch(task, PYTHON, dataset, states).variables,
    )


@pytest.mark.slow
def test_all_plans_train_alike(mlp, recipe, dataset):
    runs = [TrainingRun(name, (seed,), end=4) for seed, name in enumerate("abc")]
    plans = [
        LoopPlan(steps, replicas) for steps in ("scan", "python") for replicas in ("loop", "vmap")
    ]
    results = [train(mlp, dataset, recipe, runs, plan=plan) for plan in plans]
    for result in results[1:]:
        for name in "abc":
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
                result[name].variables,
                results[0][name].variables,
            )
    assert not same(results[0]["a"].variables, results[0]["b"].variables)


def test_it_learns(mlp, dataset):
    recipe = Recipe(
        epochs=12, batch_size=10, optimizer="adam", learning_rate=0.02, weight_decay=0.0
    )
    state = train(mlp, dataset, recipe, [TrainingRun("a", (0,), end=12)])["a"]
    assert state.correct[-1] > 45
    assert state.loss[-1] < state.loss[0] / 2
    logits = mlp.apply(state.variables, normalise(dataset.test.images, dataset.mean, dataset.std))
    assert (logits.argmax(-1) == dataset.test.labels).mean() > 0.85


def test_a_replica_that_diverges_stops_and_leaves_the_others_alone(mlp, recipe, dataset):
    task, states = begin(mlp, recipe, dataset, seeds=(0, 1))
    broken = jax.tree.map(np.array, states)
    broken.variables["params"]["Dense_1"]["kernel"][1] = np.float32(3e38)
    for plan in (LoopPlan("scan", "vmap"), SCAN):
        healthy = one_epoch(task, plan, dataset, states)
        after = one_epoch(task, plan, dataset, broken)
        assert after.alive.tolist() == [True, False]
        assert after.step.tolist() == [6, 0]
        good, bad = unstack(after)
        assert same(good, unstack(healthy)[0])
        assert same(bad.variables, unstack(broken)[1].variables)
        assert not bad.loss.any()


@pytest.mark.slow
def test_recipe_options_reach_the_step(mlp, recipe, dataset):
    """Smoothing, clipping, augmentation and compute type each change the step, and only so far."""

    def after(**changes):
        changed = dataclasses.replace(recipe, **changes)
        task, states = begin(mlp, changed, dataset)
        data = (jnp.asarray(dataset.train.images), jnp.asarray(dataset.train.labels))
        run = jax.jit(lambda state: take_step(task, data, jnp.arange(SAMPLES), state))
        return run(unstack(states)[0])

    plain = after()
    rough = after(compute_dtype="bfloat16")
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(rough.variables))
    np.testing.assert_allclose(rough.loss[0], plain.loss[0], rtol=0.02)
    assert not np.array_equal(rough.loss, plain.loss)
    logits = plain.loss[0], after(label_smoothing=0.3).loss[0]
    assert logits[0] != logits[1]
    for changes in ({"augment": {"flip": 1.0}}, {"clip_norm": 1e-3}):
        assert not same(after(**changes).variables["params"], plain.variables["params"])
    assert same(after(augment={"flip": 0.0}), plain)


def test_what_does_not_fit_gives_one_line(mlp, recipe, dataset):
    big = dataclasses.replace(recipe, batch_size=51)
    with pytest.raises(ConfigError, match="batch_size 51 is more than the 50 training images"):
        make_setup(mlp, big, dataset)
    runs = [TrainingRun("a", (0,), end=4)]
    with pytest.raises(ConfigError, match="'made' has 3 classes"):
        train(networks.build("mlp", 2), dataset, recipe, runs)
    with pytest.raises(DataError, match="lenet5 needs images"):
        train(networks.build("lenet5", CLASSES), dataset, recipe, runs)
    flat = dataclasses.replace(
        dataset,
        train=Split(dataset.train.images.reshape(SAMPLES, -1), dataset.train.labels),
        test=Split(dataset.test.images.reshape(SAMPLES, -1), dataset.test.labels),
    )
    assert train(mlp, flat, dataclasses.replace(recipe, epochs=1), [TrainingRun("a", (0,), end=1)])
    with pytest.raises(ConfigError, match="augment needs images"):
        make_setup(mlp, dataclasses.replace(recipe, augment={"flip": 0.5}), flat)
    with pytest.raises(ConfigError, match="checkpoint_every"):
        train(mlp, dataset, recipe, runs, checkpoint_every=0)
