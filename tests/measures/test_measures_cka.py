"""Linear CKA and Procrustes distance against plain float64 formulas, and their invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax import measures
from llfc_jax.errors import ConfigError
from llfc_jax.experiments import settings

RNG = np.random.default_rng(4)
X = (3 + RNG.normal(size=(50, 6))).astype(np.float32)  # far from centred
Y = RNG.integers(0, 3, 50)


def weights(seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=s).astype(np.float32) for s in ((6, 7), (7, 8), (8, 3))]


def apply(w, x):
    return jax.nn.relu(jax.nn.relu(x @ w[0]) @ w[1] + 5.0) @ w[2]


def features(w):
    w = [m.astype(float) for m in w]
    first = X.astype(float) @ w[0]
    second = np.maximum(first, 0) @ w[1]
    return [first, second, np.maximum(second + 5, 0) @ w[2]]


def cka(p, q):
    p, q = p - p.mean(0), q - q.mean(0)
    return np.linalg.norm(p.T @ q) ** 2 / np.linalg.norm(p.T @ p) / np.linalg.norm(q.T @ q)


def procrustes(p, q):
    p, q = ((f - f.mean(0)) / np.linalg.norm(f - f.mean(0)) for f in (p, q))
    u, _, v = np.linalg.svd(p.T @ q)
    return np.linalg.norm(p @ (u @ v) - q) ** 2


def measure(a, b, size=16):
    batches = [(X[i : i + size], Y[i : i + size]) for i in range(0, 50, size)]
    return measures.cka(apply, a, b, batches)


def test_both_are_those_of_plain_formulas():
    a, b = weights(0), weights(1)
    found = measure(a, b)
    of_a, of_b, half = map(features, (a, b, [(p + q) / 2 for p, q in zip(a, b, strict=True)]))
    for i, (p, q, m) in enumerate(zip(of_a, of_b, half, strict=True)):
        pairs = {"a, b": (p, q), "middle, a": (m, p), "middle, b": (m, q),
                 "middle, mixture": (m, (p + q) / 2)}  # fmt: skip
        for j, name in enumerate(found.compared):
            assert found.cka[i, j] == pytest.approx(cka(*pairs[name]), abs=2e-6)
            assert found.procrustes[i, j] == pytest.approx(procrustes(*pairs[name]), abs=5e-6)
    again = measure(a, b, size=50)  # however the data are cut
    np.testing.assert_allclose(again.cka, found.cka, atol=2e-6)


def test_they_see_through_permutations_where_the_cosine_does_not():
    a = weights(0)
    order = RNG.permutation(7)
    b = [a[0][:, order], a[1][order], a[2]]
    found = measure(a, b)
    np.testing.assert_allclose(found.cka[:, 0], 1, atol=1e-5)
    np.testing.assert_allclose(found.procrustes[:, 0], 0, atol=1e-5)
    assert measures.llfc(apply, a, b, [(X, Y)], alphas=(0.5,)).baseline[0] > 0.05


def test_features_that_never_change_have_neither():
    a = [np.zeros_like(w) for w in weights(0)]
    found = measure(a, weights(1))
    assert np.isnan(found.cka[0, 0])


def test_it_is_taken_where_it_is_named():
    assert "cka" not in settings.EVERY_MEASURE
    with pytest.raises(ConfigError, match="no `renormalise`"):
        measures.cka(apply, weights(0), weights(1), [(X, Y)], renormalise="reset")
    assert jnp.isfinite(
        measures.build("cka").summary_metrics(measure(weights(0), weights(1)))["cka_ends"]
    )
