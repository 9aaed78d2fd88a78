"""Every task against plain float64 NumPy, on a random network; padding never counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from padded_text import attend, language_weights, padded

from llfc_jax import measures, tasks
from llfc_jax.errors import ConfigError

ALPHAS = (0.0, 0.5, 1.0)
RNG = np.random.default_rng(0)


def weights(seed: int, inputs: int = 5, outputs: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"in": (inputs, 8), "out": (8, outputs)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def apply(w, x):
    return jnp.tanh(x @ w["in"]) @ w["out"]


def exact(a, b, x, alpha):
    w = {name: alpha * a[name].astype(float) + (1 - alpha) * b[name].astype(float) for name in a}
    return np.tanh(x.astype(float) @ w["in"]) @ w["out"]


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def cross_entropy(z, y):
    return -np.take_along_axis(log_softmax(z), y[..., None], -1)[..., 0]


def entropy(share):
    share = share[share > 0]
    return -(share * np.log(share)).sum()


def batches(*arrays, size=7):
    return [tuple(a[i : i + size] for a in arrays) for i in range(0, len(arrays[0]), size)]


def measure(task, data, network=apply, **kinds):
    a, b = weights(0, **kinds), weights(1, **kinds)
    found = measures.lmc(network, a, b, data, alphas=ALPHAS, task=task)
    return found, a, b


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


def test_classification_with_a_label_that_does_not_count():
    x, y = RNG.normal(size=(23, 5)).astype(np.float32), RNG.integers(0, 4, 23)
    y[3] = y[20] = -100
    found, a, b = measure({"name": "classification", "ignore": -100}, batches(x, y))
    kept = y >= 0
    for i, alpha in enumerate(ALPHAS):
        z = exact(a, b, x, alpha)[kept]
        close(found.loss[i], cross_entropy(z, y[kept]).mean())
        close(found.error[i], (z.argmax(-1) != y[kept]).mean())
    assert found.samples == 21


@pytest.mark.parametrize("shape", [(6,), (3, 4)])
def test_tokens_and_pixels(shape):
    x = RNG.normal(size=(11, *shape, 5)).astype(np.float32)
    y = RNG.integers(0, 4, (11, *shape))
    y[RNG.random(y.shape) < 0.3] = -100
    found, a, b = measure("tokens" if len(shape) == 1 else "dense", batches(x, y))
    kept = y >= 0
    for i, alpha in enumerate(ALPHAS):
        z = exact(a, b, x, alpha)
        loss = cross_entropy(z[kept], y[kept]).mean()
        close(found.loss[i], loss)
        close(found.error[i], (z.argmax(-1) != y)[kept].mean())
        if len(shape) == 1:
            close(found.metrics["perplexity"][i], np.exp(loss))
            close(found.metrics["bits"][i], loss / np.log(2))
        else:
            given, known = z.argmax(-1)[kept], y[kept]
            both = [((given == k) & (known == k)).sum() for k in range(4)]
            either = [((given == k) | (known == k)).sum() for k in range(4)]
            close(found.metrics["iou"][i], np.mean(np.divide(both, either)))
    share = np.bincount(y[kept], minlength=4) / kept.sum()
    close(found.trivial, entropy(share))
    assert found.samples == kept.sum()


def test_multilabel():
    x, y = RNG.normal(size=(23, 5)).astype(np.float32), RNG.integers(0, 2, (23, 4))
    found, a, b = measure("multilabel", batches(x, y))
    for i, alpha in enumerate(ALPHAS):
        p = 1 / (1 + np.exp(-exact(a, b, x, alpha)))
        close(found.loss[i], -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())
        close(found.error[i], ((p > 0.5) != y).mean())
        close(found.metrics["exact"][i], ((p > 0.5) == y).all(1).mean())
    close(found.trivial, np.mean([entropy(np.array([s, 1 - s])) for s in y.mean(0)]))


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("loss", ["squared", "absolute"])
def test_regression(loss, outputs):
    x = RNG.normal(size=(23, 5)).astype(np.float32)
    y = (3 + RNG.normal(size=(23, outputs))).astype(np.float32)
    y = y[:, 0] if outputs == 1 else y  # outputs [n, 1] fit targets [n]
    data = batches(x, y)
    found, a, b = measure({"name": "regression", "loss": loss}, data, outputs=outputs)
    for i, alpha in enumerate(ALPHAS):
        gap = exact(a, b, x, alpha).reshape(y.shape) - y
        close(found.metrics["mae"][i], np.abs(gap).mean())
        close(found.metrics["mse"][i], (gap**2).mean())
        close(found.loss[i], found.metrics["mse" if loss == "squared" else "mae"][i])
        close(found.metrics["r2"][i], 1 - (gap**2).sum() / ((y - y.mean(0)) ** 2).sum())
    assert np.isnan(found.error).all()
    assert found.main == "loss"
    if loss == "squared":
        close(found.trivial, ((y - y.mean(0)) ** 2).mean())


def towers(w, x):
    return x["image"] @ w["in"], x["text"] @ w["in"]


def test_two_towers_are_judged_within_their_batch():
    image, text = RNG.normal(size=(2, 22, 5)).astype(np.float32)
    text = image + text / 4
    data = [({"image": p, "text": q}, np.arange(len(p))) for p, q in batches(image, text, size=8)]
    found, a, _ = measure("contrastive", data, towers)
    losses, right = [], []
    for x, _ in data:
        p, q = (x[k].astype(float) @ a["in"].astype(float) for k in ("image", "text"))
        p, q = (e / np.linalg.norm(e, axis=1, keepdims=True) for e in (p, q))
        similar = p @ q.T
        own = np.arange(len(p))
        both = (cross_entropy(s / 0.07, own) for s in (similar, similar.T))
        losses += list(sum(both) / 2)
        right += list(similar.argmax(1) == own)
    np.testing.assert_allclose(found.loss[2], np.mean(losses), rtol=1e-4)
    close(found.error[2], 1 - np.mean(right))


def test_ones_own_task_is_a_loss_and_what_else_one_wants():
    class_weights = np.array([1.0, 2, 3, 4])

    def weighted(outputs, targets, mask):
        logs = jax.nn.log_softmax(outputs)
        taken = jnp.take_along_axis(logs, targets[:, None], 1)[:, 0]
        return -taken * jnp.asarray(class_weights)[targets]

    def top2(outputs, targets, mask):
        return (jax.lax.top_k(outputs, 2)[1] == targets[:, None]).any(1)

    task = tasks.Task(loss=weighted, metrics={"top2": top2}, columns={"top2": "top 2"})
    x, y = RNG.normal(size=(23, 5)).astype(np.float32), RNG.integers(0, 4, 23)
    found, a, b = measure(task, batches(x, y))
    z = exact(a, b, x, 1.0)
    close(found.loss[2], (cross_entropy(z, y) * class_weights[y]).mean())
    close(found.metrics["top2"][2], (np.argsort(z, 1)[:, -2:] == y[:, None]).any(1).mean())
    rows = found.records()
    assert {"top2", "loss", "loss_barrier_max"} <= set(rows[0])
    assert task == tasks.Task(loss=weighted, metrics={"top2": top2}, columns={"top2": "top 2"})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("tokns", "did you mean 'tokens'"),
        ({"name": "tokens", "ignor": 3}, "did you mean 'ignore'"),
        ({"name": "regression", "loss": "cubic"}, "cubic"),
        ({"name": "contrastive", "temperature": 0}, "above 0"),
        (3, "task"),
    ],
)
def test_a_task_that_there_is_not(given, words):
    with pytest.raises(ConfigError, match=words):
        tasks.build(given)
    for wrong in ({"loss": 3}, {"loss": len, "metrics": {"loss": len}}):
        with pytest.raises(ConfigError):
            tasks.Task(**wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("per", "names"),
    [
        ("sample", ("lmc", "llfc", "weak_additivity", "spectrum")),
        ("token", ("commutativity", "theorem1", "cka")),
    ],
)
def test_padding_never_counts(per, names):
    a, b = language_weights(0), language_weights(1)
    options = measures.EvalOptions(alphas=ALPHAS, task="tokens", per=per)
    found = [
        measures.PairEvaluator(attend, a, b, padded(to=to), options).measure(
            [measures.build(name) for name in names]
        )
        for to in (6, 12)
    ]
    for name in names:
        few, many = (result[name].records() for result in found)
        assert len(few) == len(many) > 0
        for p, q in zip(few, many, strict=True):
            for column, value in p.items():
                if isinstance(value, float):
                    alike = pytest.approx(q[column], rel=2e-3, abs=3e-6, nan_ok=True)
                    assert value == alike, (name, column)
                else:
                    assert value == q[column], (name, column)


def test_features_per_token_are_those_of_each_token():
    a, b = language_weights(0), language_weights(1)
    data = padded()
    found = measures.llfc(attend, a, b, data, alphas=(0.5,), task="tokens", per="token")
    middle = {k: (a[k] + b[k]) / 2 for k in a}
    hidden = [[], [], []]
    for batch in data:
        for rows, w in zip(hidden, (a, b, middle), strict=True):
            ids, mask = batch["input_ids"], batch["attention_mask"]
            h = w["embed"].astype(float)[ids]
            weight = mask[..., None].astype(float)
            mean = (h * weight).sum(1, keepdims=True) / weight.sum(1, keepdims=True)
            rows.append(((h + mean) @ w["in"])[mask])
    p, q, m = map(np.concatenate, hidden)
    mixed = (p + q) / 2
    cosine = (m * mixed).sum(1) / np.linalg.norm(m, axis=1) / np.linalg.norm(mixed, axis=1)
    i = found.layers.index("in")
    close(found.distance[i, found.alphas.index(0.5)], (1 - cosine).mean())
    assert found.samples == len(p)
