"""Where a merge breaks: against plain float64, and on merges that are broken in a known place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax.errors import DataError, MergeError
from llfc_jax.merging import Diagnosis, MergeOptions, TaskArithmetic, diagnose, merge
from llfc_jax.tasks import Task

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 5)).astype(np.float32)
NAMES = ("l0", "l1", "l2")


def apply(w, x):
    for name in NAMES[:-1]:
        x = jnp.maximum(x @ w[name], 0)
    return x @ w[NAMES[-1]]


def make(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    shapes = {"l0": (5, 8), "l1": (8, 8), "l2": (8, 3)}
    return {n: (scale * rng.normal(size=s) / np.sqrt(s[0])).astype("f4") for n, s in shapes.items()}


def near(base, size, seed):
    return jax.tree.map(lambda p, q: (p + size * q).astype("f4"), base, make(seed))


BASE = make(0)
MODELS = [near(BASE, 0.2, 1), near(BASE, 0.2, 2)]
Y = np.asarray(apply(BASE, X)).argmax(-1)
BATCHES = [(X[:20], Y[:20]), (X[20:], Y[20:])]


def run64(w, x):
    """Features of every layer before its activation, in float64."""
    w, h, found = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), w), x.astype(float), []
    for name in NAMES:
        found.append(h @ w[name])
        h = np.maximum(found[-1], 0)
    return found


def loss64(logits, y):
    logits = logits - logits.max(-1, keepdims=True)
    return np.mean(np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(y)), y])


def cosine64(u, v):
    some = np.abs(u).any(1) & np.abs(v).any(1)
    u, v = u[some], v[some]
    return np.mean(1 - (u * v).sum(1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1))


def test_every_number_is_that_of_float64():
    found = diagnose(apply, MODELS, BATCHES, ["mean", TaskArithmetic(2.0)], BASE)
    merges = [merge(MODELS), merge(MODELS, BASE, TaskArithmetic(2.0))]
    p, q = (run64(model, X) for model in MODELS)
    assert found.layers == NAMES
    assert found.rules == ("mean", "task_arithmetic(scale=2)")
    for i, merged in enumerate(merges):
        of = run64(merged, X)
        assert found.loss[i, 0] == pytest.approx(loss64(of[-1], Y), rel=1e-4)
        assert found.accuracy[i, 0] == pytest.approx((of[-1].argmax(-1) == Y).mean())
        for k, name in enumerate(NAMES):
            expected = cosine64(of[k], (p[k] + q[k]) / 2)
            assert found.distance[i, k, 0] == pytest.approx(expected, rel=1e-3, abs=1e-6)
            for m, model in enumerate(MODELS):
                swapped = run64({**merged, name: model[name]}, X)[-1]
                assert found.replaced[i, k, m, 0] == pytest.approx(loss64(swapped, Y), rel=1e-4)
    for k in range(3):
        assert found.baseline[k, 0] == pytest.approx(cosine64(p[k], q[k]), rel=1e-4)
    for m, of in enumerate((p, q)):
        assert found.model_loss[m, 0] == pytest.approx(loss64(of[-1], Y), rel=1e-4)
    mixture = (p[-1] + q[-1]) / 2
    assert found.ensemble_loss[0] == pytest.approx(loss64(mixture, Y), rel=1e-4)
    assert found.ensemble_accuracy[0] == pytest.approx((mixture.argmax(-1) == Y).mean())
    assert found.distance[0, 0, 0] < 1e-6  # the first layer is linear in the weights
    assert len(found.records()) == 2 * 1 * 3 * 2
    assert found.plot() is not None


def test_equal_models_hold_and_a_broken_layer_is_named():
    text = str(diagnose(apply, [BASE, BASE], BATCHES, ["mean"]))
    assert "mean: loss" in text
    assert "The merge holds." in text
    order = np.arange(8)[::-1]  # the hidden units of one model in another order
    turned = {"l0": BASE["l0"], "l1": BASE["l1"][:, order], "l2": BASE["l2"][order]}
    sharp = [{**model, "l2": 8 * model["l2"]} for model in (BASE, turned)]
    found = diagnose(apply, sharp, BATCHES, ["mean"])
    assert found.distance[0, 0, 0] < 1e-6
    assert found.distance[0, 2, 0] > 0.1
    (sentence,) = found.sentences()
    assert "the mean of the models' outputs " in sentence
    assert ". It breaks: taking one layer from one of the models helps most at " in sentence
    # Half of one model's hidden units in another order, and the layers after it as they were: the
    # merge is at fault there, and nowhere else.
    far = {**sharp[0], "l1": sharp[0]["l1"][:, order]}
    found = diagnose(apply, [sharp[0], far], BATCHES, ["mean"])
    assert found.cost[0].mean(-1).argmax() == 1
    bad = {**BASE, "l2": -BASE["l2"]}
    found = diagnose(apply, [BASE, bad], BATCHES, ["mean"])
    (sentence,) = found.sentences()
    assert "the cause lies in the models" in sentence
    (sentence,) = diagnose(apply, [sharp[0], far], BATCHES, ["mean"]).sentences()
    assert "l1" in sentence or "in the models" in sentence


def test_tasks_with_heads_of_their_own():
    heads = [
        {**m, "l2": RNG.normal(size=(8, n)).astype("f4")}
        for m, n in zip(MODELS, (3, 4), strict=True)
    ]
    tasks = {"one": BATCHES, "two": BATCHES}
    found = diagnose(apply, heads, tasks, ["mean"], options=MergeOptions(skip=("l2",)))
    merged = merge(heads, options=MergeOptions(skip=("l2",)))
    for t, head in enumerate(heads):
        of = run64({**merged, "l2": head["l2"]}, X)[-1]
        assert found.loss[0, t] == pytest.approx(loss64(of, Y), rel=1e-4)
        own = run64(head, X)[-1]
        assert found.model_loss[t, t] == pytest.approx(loss64(own, Y), rel=1e-4)
    with pytest.raises(MergeError, match="needs a task of its own"):
        diagnose(apply, heads, BATCHES, ["mean"], options=MergeOptions(skip=("l2",)))


def test_own_losses_and_correlation():
    task = Task(loss=lambda outputs, targets, mask: jnp.square(outputs[:, 0] - targets))

    targets = RNG.normal(size=30).astype("f4")
    rules = ["mean", *(TaskArithmetic(s) for s in (0.0, 1.0, 4.0, 20.0))]
    found = diagnose(apply, MODELS, [(X, targets)], rules, BASE, task=task)
    out = run64(merge(MODELS), X)[-1][:, 0]
    assert found.loss[0, 0] == pytest.approx(np.mean((out - targets) ** 2), rel=1e-4)
    assert np.isnan(found.accuracy).all()
    assert 0.5 < found.rank_correlation <= 1
    assert "Rank correlation" in str(found)


def test_tokens_and_labels_that_do_not_count():
    def language(w, x):
        return jax.nn.one_hot(x, 5) @ w["embed"] @ w["out"]

    models = [{"embed": RNG.normal(size=(5, 4)).astype("f4"),
               "out": RNG.normal(size=(4, 5)).astype("f4")} for _ in range(2)]  # fmt: skip
    x = RNG.integers(0, 5, (6, 7))
    y = np.where(RNG.random((6, 7)) < 0.3, -100, np.roll(x, -1, 1))
    found = diagnose(language, models, [(x, y)], ["mean"], task="tokens")
    merged = merge(models)
    logits = np.eye(5)[x] @ np.float64(merged["embed"]) @ np.float64(merged["out"])
    counts = y >= 0
    assert found.loss[0, 0] == pytest.approx(loss64(logits[counts], y[counts]), rel=1e-4)


def test_what_cannot_be_diagnosed_is_refused():
    with pytest.raises(DataError, match="task 'task': there is no batch to measure on"):
        diagnose(apply, MODELS, [], ["mean"])
    with pytest.raises(MergeError, match="pass base="):
        diagnose(apply, MODELS, BATCHES, ["ties"])
    with pytest.raises(MergeError, match="did you mean 'mean'"):
        diagnose(apply, MODELS, BATCHES, ["maen"])


def test_a_paragraph_groups_merges_by_what_became_of_them():
    """Four merges: two hold, one does as badly as the mean of the outputs, one is not a number."""
    loss = np.array([[0.11, 0.1], [0.12, 0.1], [2.0, 2.0], [np.nan, np.nan]])
    found = Diagnosis(
        rules=("mean", "slerp", "ties", "dare"),
        tasks=("first", "second"),
        layers=("in", "out"),
        models=("models[0]", "models[1]"),
        loss=loss,
        accuracy=np.full((4, 2), 0.9),
        model_loss=np.array([[0.1, 3.0], [3.0, 0.1]]),
        model_accuracy=np.full((2, 2), 0.9),
        ensemble_loss=np.array([2.0, 2.0]),
        ensemble_accuracy=np.full(2, 0.5),
        distance=np.zeros((4, 2, 2)),
        baseline=np.ones((2, 2)),
        replaced=loss[:, None, None].repeat(2, 1).repeat(2, 2) - 0.5,
    )
    assert [found.outcome(i) for i in range(4)] == ["holds", "holds", "models", "breaks"]
    text = found.paragraph()
    assert "the best model of each task has a loss of 0.1, the mean of the models'" in text
    assert "`mean` (0.105) and `slerp` (0.11) hold. " in text
    assert "`ties` (2)" in text
    assert "`dare` (nan) breaks, and taking a single layer from one of the models does not" in text
    assert np.isnan(found.rank_correlation)
