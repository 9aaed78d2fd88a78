"""Fine-tuning: what each copy of a base is trained on, and where the base comes from."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny import SAMPLES, make_dataset, same

from llfc_jax import checkpoints
from llfc_jax.errors import ConfigError, DataError, LlfcError, ModeError
from llfc_jax.parallel.loops import LoopPlan
from llfc_jax.training import FineTuning, Trial, Variant, list_runs, train_pairs, train_trials
from llfc_jax.training.finetuning import build_finetuning, join_variants, rotate
from llfc_jax.training.loop import _draw_orders
from llfc_jax.training.state import create_state, stack
from llfc_jax.training.step import make_setup

PLAN = LoopPlan("scan", "loop")
TASKS = (Variant(classes=(0, 1)), Variant(labels=(1, 2, 0), rotate=90))
HALVES = FineTuning(pretrain=Variant(share=(0.0, 0.5)), tasks=TASKS)


class Stop(Exception):
    """A crash."""


@pytest.fixture(scope="module")
def tuned(mlp, dataset, recipe):
    return train_pairs(mlp, dataset, recipe, ("finetune_k1",), 3, HALVES, plan=PLAN)["finetune_k1"]


def test_variants_cut_what_they_say():
    dataset = make_dataset()
    x, y = dataset.train.images, dataset.train.labels
    half = Variant(share=(0.5, 1.0)).cut(dataset)
    np.testing.assert_array_equal(half.train.images, x[25:])
    np.testing.assert_array_equal(half.test.labels, dataset.test.labels[25:])
    some = Variant(share=(0.2, 0.8), classes=(2, 0), labels=(5 % 3, 0, 1)).cut(dataset)
    kept = [i for i in range(10, 40) if y[i] in (0, 2)]
    np.testing.assert_array_equal(some.train.images, x[kept])
    np.testing.assert_array_equal(some.train.labels, [{0: 2, 2: 1}[y[i]] for i in kept])
    assert Variant(share=(0.2, 0.8), classes=(2, 0)).count(dataset.train) == len(kept)
    assert Variant().cut(dataset) is dataset
    assert Variant(learning_rate=1.0, freeze=("x",)).data == Variant()


def test_images_turn_as_numpy_turns_them_and_by_any_angle():
    x = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 2), dtype=np.uint8)
    for turns in (-1, 1, 2, 5):
        np.testing.assert_array_equal(rotate(x, 90 * turns), np.rot90(x, turns, (1, 2)))
    bump = np.zeros((1, 9, 9, 1), np.uint8)
    bump[0, 4, 7] = 200  # to the right of the centre; counter-clockwise by 45: up and right
    there = np.argwhere(rotate(bump, 45.0)[0, ..., 0] > 60)
    assert len(there)
    assert (there[:, 0] < 4).all()
    assert (there[:, 1] > 4).all()
    assert rotate(bump, 45.0).dtype == np.uint8
    with pytest.raises(DataError, match="rotate needs images"):
        rotate(x.reshape(4, -1), 30)


def test_joined_data_hold_equal_variants_once():
    dataset = make_dataset()
    joined = join_variants(
        dataset, (*HALVES.variants, dataclasses.replace(TASKS[0], freeze=("a",)))
    )
    (start, count), first, second, again = joined.ranges
    assert (start, count) == (0, 25)
    assert first == again
    parts = [HALVES.pretrain, *TASKS]
    for (start, count), variant in zip((joined.ranges[0], first, second), parts, strict=True):
        cut = variant.cut(dataset).train
        np.testing.assert_array_equal(joined.dataset.train.images[start:][:count], cut.images)
        np.testing.assert_array_equal(joined.dataset.train.labels[start:][:count], cut.labels)


def test_every_order_is_of_the_variant_alone(mlp, dataset, recipe):
    joined = join_variants(dataset, HALVES.variants)
    setup = make_setup(mlp, recipe, joined.dataset, None, None, HALVES, joined.ranges)
    assert setup.samples == 25
    assert setup.steps == 3
    states = [
        dataclasses.replace(
            create_state(mlp, recipe, jax.random.key(5), dataset.shape, setup.steps),
            variant=np.int32(i),
        )
        for i in range(3)
    ]
    orders = np.asarray(_draw_orders(setup, stack(states)))
    for order, (start, count) in zip(orders, joined.ranges, strict=True):
        assert len(set(order)) == len(order) == 25
        assert (order >= start).all()
        assert (order < start + count).all()
    assert sorted(orders[0]) == list(range(25))
    assert list(orders[0]) != sorted(orders[0])


def test_a_fine_tuning_is_a_training_of_its_own_from_the_base(
    mlp, dataset, recipe, tuned, tmp_path
):
    """The base trained alone, written, and read again: the first epoch's steps by hand in optax."""
    import optax

    still = dataclasses.replace(recipe, schedule="constant", epochs=2, weight_decay=0.0)
    tasks = (Variant(), Variant(learning_rate=0.2, freeze=("params/Dense_0",)))
    pair = train_pairs(
        mlp, dataset, still, ("finetune_k1",), 3, FineTuning(tasks=tasks), plan=PLAN
    )["finetune_k1"]
    first = train_pairs(mlp, dataset, still, ("spawn_k1",), 3, plan=PLAN)["spawn_k1"]
    assert pair.base is not None
    frozen = "Dense_0"
    names = sorted(pair.base["params"])
    assert frozen in names
    assert same(pair.base["params"][frozen], pair.b["params"][frozen])
    assert not same(pair.base["params"][frozen], pair.a["params"][frozen])
    assert not same(pair.base["params"][names[-1]], pair.b["params"][names[-1]])
    assert pair.history.loss[0, 0] == pair.history.loss[1, 0]
    # By hand: a from the base, in the order that its key gives, with momentum that starts at zero.
    joined = join_variants(dataset, FineTuning(tasks=tasks).variants)
    setup = make_setup(mlp, still, joined.dataset, None, None, FineTuning(tasks=tasks),
                       joined.ranges)  # fmt: skip
    key = jax.random.fold_in(jax.random.key(3), 0)
    trunk = create_state(mlp, still, key, dataset.shape, setup.steps)
    from llfc_jax.training import fork_state

    at = dataclasses.replace(trunk, step=np.int32(setup.steps))
    branch = dataclasses.replace(fork_state(at, 0), variant=np.int32(1))
    order = np.asarray(_draw_orders(setup, stack([branch])))[0]
    params, sgd = pair.base["params"], optax.sgd(0.05, 0.9)
    state = sgd.init(params)
    x = (dataset.train.images.astype(np.float32) / 255 - 0.3) / np.float32(0.2)

    def loss(params, rows):
        logits = mlp.apply({"params": params}, x[rows])
        labels = dataset.train.labels[rows]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    for i in range(setup.steps):
        gradient = jax.grad(loss)(params, order[8 * i : 8 * i + 8])
        update, state = sgd.update(gradient, state, params)
        params = optax.apply_updates(params, update)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, atol=2e-5), params, pair.a["params"])
    assert first.base is None


def test_a_pair_does_not_depend_on_which_others_are_trained(mlp, dataset, recipe, tuned):
    three = dataclasses.replace(HALVES, tasks=(*TASKS, Variant()))
    pairs = ("finetune_k1", "finetune_k1_0_2", "finetune_k1_2_1")
    found = train_pairs(mlp, dataset, recipe, pairs, 3, three, plan=PLAN)
    assert same((found[pairs[0]].a, found[pairs[0]].b), (tuned.a, tuned.b))
    assert same(found[pairs[1]].a, tuned.a)
    assert same(found[pairs[2]].b, tuned.b)
    assert same(found[pairs[1]].b, found[pairs[2]].a)
    assert len(list_runs(pairs, 3, 4, None, three)) == 4
    together = train_pairs(mlp, dataset, recipe, pairs, 3, three, plan=LoopPlan("scan", "vmap"))
    for p, q in zip(*(jax.tree.leaves(of[pairs[0]].b) for of in (found, together)), strict=True):
        np.testing.assert_allclose(p, q, atol=1e-5)


def test_data_that_are_streamed_give_the_same_bits(mlp, dataset, recipe, tuned):
    streamed = dataclasses.replace(dataset, resident_mb=0)
    pair = train_pairs(mlp, streamed, recipe, ("finetune_k1",), 3, HALVES, plan=PLAN)["finetune_k1"]
    assert same((pair.a, pair.b, pair.base), (tuned.a, tuned.b, tuned.base))


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_broken_run_goes_on_with_the_same_bits(mlp, dataset, recipe, tuned, tmp_path, calls):
    """Broken before, at and after the end of pretraining; what is trained on knows its base."""
    seen = []

    def crash(done, total, words):
        seen.append(done)
        if len(seen) == calls:
            raise Stop

    options = {"workdir": tmp_path, "checkpoint_seconds": 0, "plan": PLAN}
    with pytest.raises(Stop):
        train_pairs(mlp, dataset, recipe, ("finetune_k1",), 3, HALVES, progress=crash, **options)
    pair = train_pairs(mlp, dataset, recipe, ("finetune_k1",), 3, HALVES, **options)["finetune_k1"]
    assert same((pair.a, pair.b, pair.base), (tuned.a, tuned.b, tuned.base))
    assert pair.history.loss.tolist() == tuned.history.loss.tolist()
    other = dataclasses.replace(
        HALVES, tasks=(TASKS[0], dataclasses.replace(TASKS[1], learning_rate=0.1))
    )
    with pytest.raises(LlfcError, match=r"finetuning\.tasks"):
        train_pairs(mlp, dataset, recipe, ("finetune_k1",), 3, other, **options)


def test_a_base_is_read_from_files_and_from_workdirs(mlp, dataset, recipe, tuned, tmp_path):
    workdir, file = tmp_path / "base", tmp_path / "base.safetensors"
    options = {"plan": PLAN, "workdir": workdir}
    made = train_pairs(mlp, dataset, recipe, ("spawn_k1", "independent"), 0, **options)
    checkpoints.save(file, made["independent"].b)
    for where, run in ((file, None), (workdir, "0/independent/b")):
        given = FineTuning(base=str(where), run=run, tasks=TASKS)
        pair = train_pairs(mlp, dataset, recipe, ("finetune_k0",), 1, given, plan=PLAN)
        assert same(pair["finetune_k0"].base, made["independent"].b)
        assert not same(pair["finetune_k0"].base, pair["finetune_k0"].a)
    first = FineTuning(base=str(workdir), tasks=TASKS)
    pair = train_pairs(mlp, dataset, recipe, ("finetune_k0",), 1, first, plan=PLAN)["finetune_k0"]
    assert same(pair.base, made["spawn_k1"].a)
    for wrong, error in (
        (dataclasses.replace(first, run="0/spawn_k2/a"), "unknown run"),
        (FineTuning(base=str(file), run="x"), "no working directory"),
        (FineTuning(base=str(tmp_path / "nothing.npz")), "there is no"),
    ):
        with pytest.raises(DataError, match=error):
            train_pairs(mlp, dataset, recipe, ("finetune_k0",), 1, wrong, plan=PLAN)


def test_heads_start_afresh_and_may_have_other_shapes(mlp, dataset, recipe, tmp_path):
    params = create_state(mlp, recipe, jax.random.key(8), dataset.shape, 6).variables["params"]
    head = sorted(params)[-1]
    wider = {
        **params,
        head: {k: np.zeros((*v.shape[:-1], 7), "f4") for k, v in params[head].items()},
    }
    checkpoints.save(tmp_path / "wide.npz", {"params": wider})
    still = dataclasses.replace(recipe, epochs=1, learning_rate=1e-30, weight_decay=0.0)
    given = FineTuning(base=str(tmp_path / "wide.npz"), heads=(f"params/{head}",))
    pair = train_pairs(mlp, dataset, still, ("finetune_k0",), 1, given, plan=PLAN)["finetune_k0"]
    trunk = sorted(params)[0]
    assert same(pair.a["params"][trunk]["kernel"], params[trunk]["kernel"])
    assert pair.a["params"][head]["kernel"].shape == params[head]["kernel"].shape
    assert not same(pair.a["params"][head], pair.b["params"][head])
    without = dataclasses.replace(given, heads=())
    with pytest.raises(ModeError, match="does not fit"):
        train_pairs(mlp, dataset, still, ("finetune_k0",), 1, without, plan=PLAN)


def test_mistakes_are_one_line_before_training(mlp, dataset, recipe):
    cases = [
        (("finetune_k4",), FineTuning(), "leaves no epoch"),
        (("finetune_k1_0_2",), FineTuning(), "names a task that there is not"),
        (("finetune_k1_1_1",), FineTuning(), "two fine-tunings"),
        (("finetune_k1", "spawn_k1"), FineTuning(), "by themselves"),
        (("finetune_k1",), FineTuning(tasks=(Variant(classes=(7,)), Variant())), "no sample"),
        (("finetune_k1",), FineTuning(tasks=(Variant(labels=(1, 0)), Variant())), "must be 3"),
        (("finetune_k1",), FineTuning(tasks=(Variant(labels=(1, 0, 9)), Variant())), "0 to 2"),
        (("finetune_k1",), FineTuning(tasks=(Variant(freeze=("dens",)), Variant())), "freeze"),
        (("finetune_k1",), FineTuning(tasks=(Variant(share=(0.0, 0.1)), Variant())), "batch_size"),
    ]  # fmt: skip
    for pairs, given, words in cases:
        with pytest.raises(LlfcError, match=words) as caught:
            train_trials(mlp, dataset, [Trial(recipe, pairs, 0, given)], plan=PLAN)
        assert "\n" not in str(caught.value)
    for values, words in (
        ({"tasks": {"classes": (1,)}}, "tuple of groups"),
        ({"tasks": [{"clases": (1,)}]}, r"tasks\[0\].*did you mean 'classes'"),
        ({"pretrain": {"share": (0.5, 0.5)}}, r"pretrain\.share"),
        ({"pretrain": {"rotate": "left"}}, "rotate must be float"),
        ({"pretrain": {"learning_rate": 0.0}}, "above 0"),
        ({"bas": "x"}, "did you mean 'base'"),
    ):
        with pytest.raises(ConfigError, match=words):
            build_finetuning(values)
    made = build_finetuning({"tasks": [{"classes": [1, 2]}, Variant()], "pretrain": {"rotate": 30}})
    assert made.tasks == (Variant(classes=(1, 2)), Variant())
    assert made.pretrain.rotate == 30.0
    assert SAMPLES == 50
