"""Pairs for which the answer is known: both conditions hold, one of them fails, or A is B."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from oracle import ALPHAS, UNITS

from llfc_jax import measures

APPLY = oracle.network(oracle.MLP)
# Hidden units of both hidden layers: those that only a uses, only b uses, both use, nobody uses.
OF_A, OF_B, OF_BOTH, DEAD = (slice(4 * i, 4 * i + 4) for i in range(4))
MIDDLE = ALPHAS.index(0.5)


def positive(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.uniform(0.2, 1, shape).astype(np.float32)


def exact_pair() -> tuple[Any, Any, Any]:
    """Both conditions hold at every layer, though weights and features differ throughout.

    First hidden layer: a's own units and b's own do not overlap, so every unit is on in at most
    one of them or alike in both: the ReLU adds up. Second: all pre-activations are positive, but
    for units that are negative in both. Wherever features differ the weights that read them are
    alike, and the other way round: the layers commute.
    """
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(6, 4)).astype(np.float32)
    middle = positive(rng, UNITS, UNITS)
    middle[:, DEAD] *= -1
    last = rng.normal(size=(UNITS, 4)).astype(np.float32)
    shift = np.where(np.arange(UNITS) < 12, 0.1, -0.1).astype(np.float32)
    ends = []
    for own in (OF_A, OF_B):
        first, bias = np.zeros((6, UNITS), np.float32), np.zeros(UNITS, np.float32)
        first[:, own] = rng.normal(size=(6, 4))
        bias[own] = rng.normal(size=4)
        first[:, OF_BOTH] = shared
        second, out = middle.copy(), last.copy()
        second[OF_BOTH, :12] = positive(rng, 4, 12)  # reads what is alike in both
        out[DEAD] = rng.normal(size=(4, 4))  # reads what is zero in both
        ends.append([(first, bias), (second, shift), (out, positive(rng, 4))])
    return *ends, rng


def breaking_weak_additivity() -> tuple[Any, Any]:
    """The second layer's units get mixed signs; its weights stay alike, so it still commutes."""
    a, b, rng = exact_pair()
    mixed = rng.normal(size=(UNITS, UNITS)).astype(np.float32)
    last = rng.normal(size=(UNITS, 4)).astype(np.float32)
    return tuple([w[0], (mixed, w[1][1]), (last, w[2][1])] for w in (a, b))  # pyright: ignore


def breaking_commutativity() -> tuple[Any, Any]:
    """The last layer's weights differ where its inputs do; no ReLU follows."""
    a, b, rng = exact_pair()
    return tuple(
        [*w[:2], (rng.normal(size=(UNITS, 4)).astype(np.float32), w[2][1])] for w in (a, b)
    )  # pyright: ignore


BATCHES = oracle.split(oracle.data(oracle.MLP, 40))


def measure_all(a: Any, b: Any) -> dict[str, Any]:
    """The measures of LLFC and its conditions, in one pass; all tests share one program."""
    names = ("lmc", "llfc", "theorem1", "weak_additivity", "commutativity", "ensemble")
    options = measures.EvalOptions(alphas=ALPHAS)
    pair = measures.PairEvaluator(APPLY, a, b, BATCHES, options)
    return pair.measure(measures.build_all(names, options))


def test_both_conditions_give_llfc_to_float_precision():
    a, b, _ = exact_pair()
    results = measure_all(a, b)
    found = results["llfc"]
    assert (np.asarray(found.baseline) > 1e-3).all()  # two different networks
    assert (np.asarray(found.distance) < 1e-6).all()
    assert (np.asarray(found.pooled_distance) < 1e-6).all()
    np.testing.assert_allclose(found.coefficient, 1, atol=1e-5)
    assert not np.asarray(found.num_undefined).any()
    theorem = results["theorem1"]
    for part in (theorem.error, theorem.added, theorem.inherited, theorem.accumulated):
        assert (np.asarray(part) < 1e-5).all()
    weak = results["weak_additivity"]
    assert (np.asarray(weak.relative) < 1e-6).all()
    assert (np.asarray(weak.baseline) > 1e-3).all()
    np.testing.assert_array_equal(weak.sign_agreement, 1)
    com = results["commutativity"]
    assert (np.asarray(com.dist_com) < 1e-6).all()
    assert (np.asarray(com.dist_w) > 1e-3).all()
    assert (np.asarray(com.dist_h)[1:] > 1e-3).all()
    together = results["ensemble"]
    np.testing.assert_array_equal(together.disagreement, 0)
    np.testing.assert_allclose(together.loss, together.ensemble_loss, rtol=1e-5)


def test_a_pair_that_breaks_only_weak_additivity_is_caught_by_it_alone():
    a, b = breaking_weak_additivity()
    results = measure_all(a, b)
    weak = results["weak_additivity"]
    assert weak.layers == ("0.relu", "1.relu")
    assert weak.relative[0].max() < 1e-6
    assert weak.relative[1, MIDDLE] > 1e-3
    assert weak.sign_agreement[1] < 0.99
    assert (np.asarray(results["commutativity"].dist_com) < 1e-6).all()
    theorem = results["theorem1"]
    added = dict(zip(theorem.layers, theorem.added[:, MIDDLE], strict=True))
    guilty = added.pop("1.relu")
    assert guilty > 1e-2
    assert max(added.values()) < 1e-5
    error = dict(zip(theorem.layers, theorem.error[:, MIDDLE], strict=True))
    assert max(error[name] for name in ("0", "0.relu", "1")) < 1e-5
    np.testing.assert_allclose(error["1.relu"], guilty, rtol=1e-4)
    inherited = dict(zip(theorem.layers, theorem.inherited[:, MIDDLE], strict=True))
    assert inherited["1.relu"] < 1e-5
    np.testing.assert_allclose(inherited["2"], error["2"], rtol=1e-4)  # all of it from above


def test_a_pair_that_breaks_only_commutativity_is_caught_by_it_alone():
    a, b = breaking_commutativity()
    results = measure_all(a, b)
    com = results["commutativity"]
    assert (np.asarray(com.dist_com)[:2] < 1e-6).all()
    assert com.dist_com[2] > 1e-3
    weak = results["weak_additivity"]
    assert (np.asarray(weak.relative) < 1e-6).all()
    theorem = results["theorem1"]
    added = dict(zip(theorem.layers, theorem.added[:, MIDDLE], strict=True))
    assert added.pop("2") > 1e-2
    assert max(added.values()) < 1e-5
    found = results["llfc"]
    distance = dict(zip(found.layers, found.distance[:, MIDDLE], strict=True))
    assert distance.pop("2") > 1e-4
    assert max(distance.values()) < 1e-6


def test_a_network_and_itself():
    a = oracle.weights(oracle.MLP, 0)
    results = measure_all(a, a)
    found = results["llfc"]
    assert (np.asarray(found.distance) < 1e-12).all()
    np.testing.assert_array_equal(found.baseline, 0)
    com = results["commutativity"]
    for part in (com.dist_com, com.dist_w, com.dist_h):
        np.testing.assert_array_equal(part, 0)
    assert np.isnan(com.ratio).all()
    weak = results["weak_additivity"]
    assert (np.asarray(weak.relative) < 1e-12).all()
    stitched = measures.stitching(APPLY, a, a, BATCHES)
    np.testing.assert_allclose(stitched.loss, stitched.loss_a, rtol=1e-6)
    np.testing.assert_array_equal(stitched.error, np.full((5, 2), stitched.error_a))
    spectra = measures.spectrum(APPLY, a, a, BATCHES, top=3)
    for angles in (spectra.angle_left, spectra.angle_right, spectra.angle_feature):
        assert np.nanmax(angles) < 1e-4
    curve = results["lmc"]
    assert all(abs(value) < 1e-6 for value in curve.barriers("loss").values())


def permuted(w: Any, seed: int) -> Any:
    """The same function with its hidden units in another order."""
    rng = np.random.default_rng(seed)
    p, q = (rng.permutation(len(bias)) for _, bias in w[:2])
    (k0, b0), (k1, b1), (k2, b2) = w
    return [(k0[:, p], b0[p]), (k1[p][:, q], b1[q]), (k2[q], b2)]


def test_a_permuted_copy_has_the_same_spectra_but_is_not_connected():
    a = oracle.weights(oracle.MLP, 0)
    b = permuted(a, 0)
    found = measures.spectrum(APPLY, a, b, BATCHES, top=2)
    for kind in ("weight", "feature"):
        np.testing.assert_allclose(
            getattr(found, f"{kind}_a"), getattr(found, f"{kind}_b"), rtol=1e-4, atol=1e-5
        )
    assert found.angle_left[0, 0] > 1  # the units are not the same ones
    np.testing.assert_allclose(found.angle_left[2, :2], 0, atol=1e-2)  # outputs are not permuted
    results = measure_all(a, b)
    curve = results["lmc"]
    np.testing.assert_allclose(curve.loss[0], curve.loss[-1], rtol=1e-5)
    assert results["llfc"].distance[-1, MIDDLE] > 1e-3


def test_swapping_the_ends_turns_every_curve_round():
    a, b = (oracle.weights(oracle.MLP, seed) for seed in (0, 1))
    one, two = (measure_all(*pair)["llfc"] for pair in ((a, b), (b, a)))
    np.testing.assert_allclose(one.distance, two.distance[:, ::-1], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(one.baseline, two.baseline, rtol=1e-5)
    assert one.accuracy_a == two.accuracy_b


def test_alpha_multiplies_a():
    a, b = (oracle.weights(oracle.MLP, seed) for seed in (0, 1))
    (x, y) = oracle.data(oracle.MLP, 40)
    found = measure_all(a, b)["lmc"]
    ends = [oracle.cross_entropy(oracle.run(oracle.MLP, w, x)["out"], y) for w in (b, a)]
    np.testing.assert_allclose(found.loss[[0, -1]], ends, rtol=1e-5)


def test_barriers_by_hand():
    """Logits (h, 0) with h = x (θ² - 1): right at both ends θ = ±√3, wrong in the middle."""

    def apply(v: Any, x: Any) -> Any:
        h = x * (v["t"] ** 2 - 1)
        return jnp.concatenate([h, jnp.zeros_like(h)], 1)

    root = np.sqrt(3.0)
    a, b = {"t": jnp.float32(root)}, {"t": jnp.float32(-root)}
    x = np.array([[1.0], [2.0], [-1.0], [3.0]], np.float32)
    y = np.array([0, 0, 1, 1], np.int32)  # the last is wrong at the ends, right in the middle
    found = measures.lmc(apply, a, b, [(x, y)], alphas=(0.1, 0.9))
    assert found.alphas == (0.0, 0.1, 0.5, 0.9, 1.0)

    def loss(alpha: float) -> float:
        h = x[:, 0] * (3 * (2 * alpha - 1) ** 2 - 1)
        return float(np.mean(np.log1p(np.exp(np.where(y == 0, -h, h)))))

    expected = [loss(alpha) for alpha in found.alphas]
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)
    np.testing.assert_allclose(found.error, [0.25, 0.25, 0.75, 0.25, 0.25])
    for kind, value in found.barriers("error").items():
        assert value == pytest.approx(0.5), kind
    for kind, value in found.barriers("loss").items():
        highest = max(expected) if kind != "midpoint" else loss(0.5)
        assert value == pytest.approx(highest - loss(0), rel=1e-4), kind


def test_the_three_barriers_differ_where_the_ends_do():
    found = measures.LMCResult(
        alphas=(0.0, 0.25, 0.5, 0.75, 1.0),
        loss=np.zeros(5),
        accuracy=np.zeros(5),
        error=np.array([0.4, 0.45, 0.3, 0.1, 0.0]),
        samples=1,
        above_chance=np.asarray(True),
        trivial=np.asarray(np.nan),
    )
    barriers = found.barriers("error")
    assert barriers["max"] == pytest.approx(0.45 - 0.2)
    assert barriers["linear"] == pytest.approx(0.45 - 0.3)
    assert barriers["midpoint"] == pytest.approx(0.3 - 0.2)
    beyond = dataclasses.replace(found, alphas=(0.0, 0.5, 1.0, 1.5, 2.0))  # 1.5 and 2 do not count
    assert beyond.barriers("error")["max"] == pytest.approx(0.45 - 0.35)


def test_layerwise_with_one_group_of_all_leaves_is_the_whole_line():
    a, b = (oracle.weights(oracle.MLP, seed) for seed in (0, 1))
    whole = measure_all(a, b)["lmc"]
    found = measures.layerwise(
        APPLY,
        a,
        b,
        BATCHES,
        alphas=ALPHAS,
        groups={"all": ["0", "1", "2"], "ends": ["0", "2"]},
    )
    np.testing.assert_allclose(found.loss[0], whole.loss, rtol=1e-5)
    np.testing.assert_allclose(found.error[0], whole.error, atol=1e-12)
    assert np.abs(found.loss[1] - whole.loss)[1:-1].max() > 1e-3


def test_a_group_is_whole_paths_not_beginnings_of_names():
    """`w1` must not take `w10` along."""

    def apply(v: Any, x: Any) -> Any:
        return jax.nn.relu(x @ v["w1"]["k"]) @ v["w10"]["k"]

    def ends(seed: int) -> Any:
        keys = jax.random.split(jax.random.key(seed))
        return {
            "w1": {"k": jax.random.normal(keys[0], (6, 8))},
            "w10": {"k": jax.random.normal(keys[1], (8, 4))},
        }

    a, b = ends(0), ends(1)
    by_layer = measures.layerwise(apply, a, b, BATCHES, alphas=ALPHAS)
    groups = {"w1": ["w1"], "w10": ["w10/*"], "both": ["w1*"]}
    by_group = measures.layerwise(apply, a, b, BATCHES, alphas=ALPHAS, groups=groups)
    assert by_layer.layers == ("w1", "w10")
    np.testing.assert_array_equal(by_layer.loss, by_group.loss[:2])
    whole = measures.lmc(apply, a, b, BATCHES, alphas=ALPHAS)
    np.testing.assert_allclose(by_group.loss[2], whole.loss, rtol=1e-5)


def test_theorem1_reads_products_that_vmap_has_transposed():
    """Token by token a product is [units, samples, tokens], its site [samples, tokens, units].

    Both networks are the same function, so the parts of their errors are the same.
    """

    def one_by_one(v: Any, x: Any) -> Any:
        def dense(layer: str, x: Any) -> Any:
            return jax.vmap(jax.vmap(lambda row: v[layer]["w"] @ row + v[layer]["b"]))(x)

        x = jax.nn.relu(dense("second", jax.nn.relu(dense("first", x)))).mean(1)
        return x @ v["out"]["w"].T

    def together(v: Any, x: Any) -> Any:
        def dense(layer: str, x: Any) -> Any:
            return x @ v[layer]["w"].T + v[layer]["b"][None, None]

        x = jax.nn.relu(dense("second", jax.nn.relu(dense("first", x)))).mean(1)
        return x @ v["out"]["w"].T

    def end(seed: int) -> Any:
        rng = np.random.default_rng(seed)
        sizes = {"first": (6, 4), "second": (5, 6), "out": (3, 5)}
        return {
            name: {
                key: jnp.asarray(rng.normal(size=shape), jnp.float32)
                for key, shape in (("w", size), ("b", size[:1]))
            }
            for name, size in sizes.items()
        }

    rng = np.random.default_rng(2)
    batches = [(rng.normal(size=(7, 3, 4)).astype(np.float32), np.zeros(7, np.int32))]
    one, two = (
        measures.theorem1(apply, end(0), end(1), batches, alphas=(0.5,))
        for apply in (one_by_one, together)
    )
    assert one.layers == two.layers == ("first", "first.relu", "second", "second.relu", "out")
    for part in ("error", "added", "inherited"):
        np.testing.assert_allclose(getattr(one, part), getattr(two, part), rtol=1e-4, atol=1e-6)
