"""Cross-task linearity against plain float64, and where it must be exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax import measures
from llfc_jax.errors import ConfigError, ModeError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 5)).astype(np.float32)
NAMES = ("l0", "l1", "l2")
ALPHAS = (0.0, 0.25, 0.5, 1.0)


def apply(w, x):
    for name in NAMES[:-1]:
        x = jnp.maximum(x @ w[name], 0)
    return x @ w[NAMES[-1]]


def linear(w, x):
    return x @ w["l0"]


def make(seed):
    rng = np.random.default_rng(seed)
    shapes = {"l0": (5, 8), "l1": (8, 8), "l2": (8, 3)}
    return {n: (rng.normal(size=s) / np.sqrt(s[0])).astype("f4") for n, s in shapes.items()}


BASE = make(0)
A, B = (jax.tree.map(lambda p, q: (p + 0.3 * q).astype("f4"), BASE, make(s)) for s in (1, 2))
Y = np.asarray(apply(A, X)).argmax(-1)
BATCHES = [(X[:20], Y[:20]), (X[20:], Y[20:])]


def run64(w):
    """Features of every layer before its activation, in float64."""
    w, h, found = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), w), X.astype(float), []
    for name in NAMES:
        found.append(h @ w[name])
        h = np.maximum(found[-1], 0)
    return found


def mix64(weights, *trees):
    return jax.tree.map(lambda *leaves: sum(w * np.float64(p) for w, p in zip(weights, leaves,
                        strict=True)), *trees)  # fmt: skip


def compare64(u, v):
    """1 - cos and c of the samples that have them: where all units are dead there is no angle."""
    uv, uu, vv = ((p * q).sum(1) for p, q in ((u, v), (u, u), (v, v)))
    both, some = (uu > 0) & (vv > 0), vv > 0
    return 1 - uv[both] / np.sqrt(uu[both] * vv[both]), uv[some] / vv[some]


def judge64(logits):
    logits = logits - logits.max(-1, keepdims=True)
    loss = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(Y)), Y]
    return loss.mean(), np.mean(logits.argmax(-1) != Y)


def test_every_number_is_that_of_float64():
    found = measures.ctl(apply, A, B, BATCHES, base=BASE, alphas=ALPHAS, sites="linear")
    assert found.layers == NAMES
    of_base, p, q = run64(BASE), run64(A), run64(B)
    for i, alpha in enumerate(ALPHAS):
        middle = run64(mix64((alpha, 1 - alpha), A, B))
        added = run64(mix64((1 - 2 * alpha, alpha, alpha), BASE, A, B))
        for k in range(3):
            distance, c = compare64(middle[k], alpha * p[k] + (1 - alpha) * q[k])
            assert found.distance[k, i] == pytest.approx(distance.mean(), rel=1e-3, abs=1e-7)
            assert found.distance_std[k, i] == pytest.approx(distance.std(ddof=1), rel=1e-3,
                                                             abs=1e-7)  # fmt: skip
            assert found.coefficient[k, i] == pytest.approx(c.mean(), rel=1e-4)
            target = of_base[k] + alpha * (p[k] - of_base[k]) + alpha * (q[k] - of_base[k])
            distance, c = compare64(added[k], target)
            assert found.addition[k, i] == pytest.approx(distance.mean(), rel=1e-3, abs=1e-7)
            assert found.addition_coefficient[k, i] == pytest.approx(c.mean(), rel=1e-4)
        for name, logits in (
            ("", middle[-1]),
            ("ensemble_", alpha * p[-1] + (1 - alpha) * q[-1]),
            ("addition_", added[-1]),
        ):
            loss, error = judge64(logits)
            assert getattr(found, f"{name}loss")[i] == pytest.approx(loss, rel=1e-4)
            assert getattr(found, f"{name}error")[i] == pytest.approx(error, abs=1e-9)
    for k in range(3):
        assert found.baseline[k] == pytest.approx(compare64(p[k], q[k])[0].mean(), rel=1e-4)
    metrics = measures.CTL().summary_metrics(found)
    assert metrics["ctl_worst"] == pytest.approx(np.max(found.distance[1:, 2]))
    assert metrics["ctl_median"] == pytest.approx(np.median(found.distance[1:, 2]))
    assert metrics["ctl_addition"] == pytest.approx(np.median(found.addition[1:, -1]))
    assert metrics["ctl_ensemble"] == pytest.approx(found.loss[2] - found.ensemble_loss[2])
    assert metrics["ctl_ratio"] == pytest.approx(np.median(found.ratio()[1:]))


def test_it_is_llfc_and_the_ensemble():
    """What both have in common is the same to the bit; the mean of task vectors is the middle."""
    found = measures.ctl(apply, A, B, BATCHES, base=BASE, alphas=ALPHAS)
    llfc = measures.llfc(apply, A, B, BATCHES, alphas=ALPHAS)
    ensemble = measures.ensemble(apply, A, B, BATCHES, alphas=ALPHAS)
    for name in ("distance", "distance_std", "coefficient", "baseline"):
        np.testing.assert_allclose(getattr(found, name), getattr(llfc, name), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(found.loss, ensemble.loss, rtol=1e-6)
    np.testing.assert_array_equal(found.ensemble_error, ensemble.ensemble_error)
    half = ALPHAS.index(0.5)
    np.testing.assert_allclose(found.addition[:, half], found.distance[:, half], atol=1e-6)
    assert np.abs(found.addition[:, 0]).max() < 1e-6  # λ = 0 is the base itself


def test_without_a_base_there_is_no_addition():
    found = measures.ctl(apply, A, B, BATCHES, alphas=ALPHAS)
    assert np.isnan(found.addition).all()
    assert np.isnan(found.addition_loss).all()
    assert np.isfinite(found.distance).all()
    assert len(found.records()) == len(found.layers) * len(found.alphas)
    assert found.plot("ctl_layers") is not None


def test_one_end_that_knows_the_task_is_enough():
    """b was trained on another task: LLFC says nothing there, CTL does."""
    flipped = {**B, "l2": -B["l2"]}
    labels = np.asarray(apply(A, X)).argmax(-1)
    data = [(X[:20], labels[:20]), (X[20:], labels[20:])]
    assert not np.asarray(measures.llfc(apply, A, flipped, data, alphas=ALPHAS).informative).any()
    assert np.asarray(measures.ctl(apply, A, flipped, data, base=BASE, alphas=ALPHAS).informative)[
        1:
    ].any()
    same = measures.ctl(apply, A, A, data, base=BASE, alphas=ALPHAS)
    assert not np.asarray(same.informative).any()
    assert np.isnan(measures.CTL().summary_metrics(same)["ctl_worst"])


def test_a_linear_network_is_linear_in_every_sense():
    base, a, b = ({"l0": RNG.normal(size=(5, 3)).astype("f4")} for _ in range(3))
    found = measures.ctl(linear, a, b, BATCHES, base=base, alphas=(-1.0, 0.3, 2.0),
                         extrapolate=True)  # fmt: skip
    assert np.nanmax(found.distance) < 1e-9
    assert np.nanmax(found.addition) < 1e-9
    np.testing.assert_allclose(found.addition_coefficient, 1, rtol=1e-5)
    np.testing.assert_allclose(found.loss, found.ensemble_loss, rtol=1e-5)


def test_the_worse_task_stands_for_both():
    one = {"ctl_worst": 0.1, "ctl_median": 0.2, "ctl_ratio": 5.0, "ctl_ensemble": 0.0,
           "ctl_addition": 0.3}  # fmt: skip
    other = {**one, "ctl_worst": 0.4, "ctl_ratio": 9.0}
    joined = measures.CTL().join_splits([one, other])
    assert joined == {**one, "ctl_worst": 0.4}
    nothing = dict.fromkeys(one, np.nan)
    assert measures.CTL().join_splits([one, nothing]) == one
    assert np.isnan(measures.CTL().join_splits([nothing, nothing])["ctl_ratio"])


def test_mistakes_are_one_line():
    with pytest.raises(ModeError, match="not modes of one network"):
        measures.ctl(apply, A, B, BATCHES, base={"l0": BASE["l0"]})
    with pytest.raises(ConfigError, match="ctl has no `renormalise`"):
        measures.ctl(apply, A, B, BATCHES, renormalise="repair")
