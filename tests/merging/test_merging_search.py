"""Coefficients searched in one program, statistics against plain sums, permutations first."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from llfc_jax import merging
from llfc_jax.errors import DataError, MergeError
from llfc_jax.merging import merge, search
from llfc_jax.symmetry import permutation_spec

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4)).astype(np.float32)
Y = np.arange(12) % 3
BATCHES = [(X[:8], Y[:8]), (X[8:], Y[8:])]


class Net(linen.Module):
    """Dense layers, one of them used twice."""

    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Dense(5, name="first")(x))
        again = linen.Dense(5, name="again")
        return linen.Dense(3, name="last")(linen.relu(again(linen.relu(again(x)))))


def variables(count):
    return [Net().init(jax.random.key(i), X) for i in range(count)]


def loss(weights):
    return jnp.square(weights["w"] - 1).sum()


BASE = {"w": np.zeros(6, np.float32)}
MODELS = [{"w": RNG.normal(size=6).astype(np.float32)} for _ in range(3)]


@pytest.mark.parametrize("batch_size", [None, 4])
def test_every_point_is_the_loss_of_that_merge(batch_size):
    grid = {"density": [0.2, 0.5, 1.0], "scale": [0.0, 0.5, 1.0, 2.0]}
    found = search(MODELS, loss, grid, BASE, "ties", batch_size=batch_size)
    by_hand = [
        float(loss(merge(MODELS, BASE, "ties", density=density, scale=scale)))
        for density in grid["density"]
        for scale in grid["scale"]
    ]
    np.testing.assert_allclose(found.loss, by_hand, rtol=1e-5)
    assert found.best == np.argmin(by_hand)
    best = found.rule
    assert float(loss(merge(MODELS, BASE, best))) == pytest.approx(min(by_hand), rel=1e-5)
    assert found.points[1] == "density=0.2, scale=0.5"
    assert len(found.records()) == 12


@pytest.mark.parametrize(
    ("rule", "grid"),
    [
        ("weighted", {"weights": [[1, 0, 0], [0, 1, 1], [1, 1, 2]]}),
        ("task_arithmetic", {"scale": [[1, 0, 0.5], [0.3, 0.3, 0.3]]}),
        ("breadcrumbs", {"drop_small": [0.1, 0.5], "drop_large": [0.0, 0.2]}),
        ("dare", {"drop": [0.1, 0.5, 0.9]}),
        ("della", {"drop": [0.2, 0.5], "spread": [0.0, 0.3]}),
    ],
)
def test_every_rule_with_coefficients_can_be_searched(rule, grid):
    found = search(MODELS, loss, grid, BASE, rule, together=True)
    for i, value in enumerate(found.loss):
        at = {n: tuple(v[i]) if np.ndim(v[i]) else float(v[i]) for n, v in grid.items()}
        assert value == pytest.approx(float(loss(merge(MODELS, BASE, rule, **at))), rel=1e-4)


def test_slerp_is_searched_over_its_arc():
    found = search(MODELS[:2], loss, {"t": np.linspace(0, 1, 5)}, rule="slerp", scope="model")
    for t, value in zip(np.linspace(0, 1, 5), found.loss, strict=True):
        merged = merge(MODELS[:2], rule="slerp", t=t, scope="model")
        assert value == pytest.approx(float(loss(merged)), rel=1e-5)


def test_searches_that_cannot_work_are_refused():
    for grid, words, rule in (
        ({}, "the grid is empty", "ties"),
        ({"densty": [0.1]}, "did you mean 'density'", "ties"),
        ({"densty": [0.1]}, "did you mean 'density'", merging.Ties()),
        ({"density": [0.1, 3.0]}, "between 0 and 1", "ties"),
        ({"scope": ["leaf"]}, "must be numbers", "ties"),
        ({"weights": [[1, 2]]}, "2 numbers for 3 models", "weighted"),
        ({"scale": [np.nan]}, "scale must be finite", "task_arithmetic"),
    ):
        with pytest.raises(MergeError, match=words):
            search(MODELS, loss, grid, BASE, rule)
    with pytest.raises(MergeError, match="finite at no point"):
        search(MODELS, lambda _: jnp.nan, {"scale": [1.0, 2.0]}, BASE)
    with pytest.raises(MergeError, match="no program"):
        search(MODELS, loss, {"seed": [1]}, BASE, merging.GreedySoup(loss))


@pytest.mark.slow
def test_the_fisher_diagonal_is_the_expected_squared_slope():
    (model,) = variables(1)

    @jax.jit
    @jax.value_and_grad
    def log_p(leaves, x, c):
        return jax.nn.log_softmax(Net().apply(leaves, x[None])[0])[c]

    expected = jax.tree.map(np.zeros_like, model)
    for x in X:
        for c in range(3):
            value, slopes = log_p(model, x, c)
            p = np.exp(value)
            expected = jax.tree.map(lambda e, s, p=p: e + p * s**2 / 12, expected, slopes)
    found = merging.fisher_diagonal(Net(), model, BATCHES)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=2e-4, atol=1e-8), found,
                 expected)  # fmt: skip
    empirical = merging.fisher_diagonal(Net(), model, BATCHES, labels="data")
    by_hand = sum(
        log_p(model, x, y)[1]["params"]["last"]["bias"] ** 2 / 12 for x, y in zip(X, Y, strict=True)
    )
    np.testing.assert_allclose(empirical["params"]["last"]["bias"], by_hand, rtol=1e-4)
    with pytest.raises(DataError, match="no batch"):
        merging.fisher_diagonal(Net(), model, [])


def test_input_grams_are_those_of_what_layers_are_given():
    (model,) = variables(1)
    found = merging.input_grams(Net(), model, BATCHES)
    assert set(found) == {f"params/{name}/kernel" for name in ("first", "again", "last")}
    x = X.astype(np.float64)
    np.testing.assert_allclose(found["params/first/kernel"].matrix, x.T @ x / 12, rtol=1e-5)
    first, again = (jax.tree.map(np.asarray, model["params"][n]) for n in ("first", "again"))
    h = np.maximum(x @ first["kernel"] + first["bias"], 0)
    h2 = np.maximum(h @ again["kernel"] + again["bias"], 0)
    both = (h.T @ h + h2.T @ h2) / 12
    np.testing.assert_allclose(found["params/again/kernel"].matrix, both, rtol=1e-4, atol=1e-6)
    assert found["params/again/kernel"].axes == (0,)
    with pytest.raises(DataError, match="no batch"):
        merging.input_grams(Net(), model, [])


def test_input_grams_know_where_inputs_lie_in_a_weight():
    w = {"heads": RNG.normal(size=(4, 2, 3)), "out": RNG.normal(size=(2, 3, 4)),
         "turned": RNG.normal(size=(3, 4))}  # fmt: skip
    w = {name: leaf.astype(np.float32) for name, leaf in w.items()}

    def apply(w, x):
        h = jnp.einsum("nd,dhk->nhk", x, w["heads"])
        return jnp.einsum("nhk,hkd->nd", jnp.maximum(h, 0), w["out"]) @ w["turned"].T

    found = merging.input_grams(apply, w, [(X, Y)])
    assert {name: gram.axes for name, gram in found.items()} == {
        "heads": (0,), "out": (0, 1), "turned": (1,)}  # fmt: skip
    h = np.maximum(np.einsum("nd,dhk->nhk", X, w["heads"]), 0).reshape(12, -1)
    np.testing.assert_allclose(found["out"].matrix, h.T @ h / 12, rtol=1e-4, atol=1e-5)
    other = jax.tree.map(lambda leaf: leaf + 1, w)
    grams = [merging.input_grams(apply, one, [(X, Y)]) for one in (w, other)]
    merged = merge([w, other], rule="regmean", statistics=grams, shrink=1.0)

    # The layer's outputs on each model's own inputs are fitted at least as well as by the mean.
    def misfit(tree):
        gaps = [tree["turned"] - one["turned"] for one in (w, other)]
        return sum(np.trace(gap @ of["turned"].matrix @ gap.T) for gap, of in
                   zip(gaps, grams, strict=True))  # fmt: skip

    assert misfit(merged) <= misfit(merge([w, other])) + 1e-6


def test_permutations_come_first():
    a = Net().init(jax.random.key(0), X)
    spec = permutation_spec(Net(), a, X)
    moved = [spec.apply(spec.random(jax.random.key(i)), a) for i in (1, 2)]
    found = merge([a, *moved], rule="git_rebasin", spec=spec)
    np.testing.assert_allclose(Net().apply(found, X), Net().apply(a, X), atol=1e-5)
    assert not np.allclose(Net().apply(merge([a, *moved]), X), Net().apply(a, X), atol=1e-2)
    low = [jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree) for tree in (a, moved[0])]
    assert merge(low, rule="git_rebasin", spec=spec)["params"]["last"]["bias"].dtype == jnp.bfloat16
