"""Every measure against its definition in float64 NumPy, over random networks."""

import functools
from typing import Any

import numpy as np
import oracle
import pytest
import scipy.linalg
from oracle import ALPHAS, CONVOLUTIONAL, MLP, compare, flat

from llfc_jax import measures

NETS = pytest.mark.parametrize("kinds", [MLP, CONVOLUTIONAL], ids=["mlp", "conv"])
close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-6)


@functools.cache
def measured(kinds: tuple[str, ...], weights: Any) -> dict[str, Any]:
    """Every measure of a network in one pass, and two of them with other options in another."""
    batches = oracle.split(oracle.data(kinds))
    a, b = weights(kinds, 0), weights(kinds, 1)
    options = measures.EvalOptions(
        alphas=ALPHAS,
        measure_options={"spectrum": {"top": 2, "ranks": 6}, "stitching": {"sites": "all"}},
    )
    evaluator = measures.PairEvaluator(oracle.network(kinds), a, b, batches, options)
    found = dict(evaluator.measure(measures.build_all(measures.MEASURES, options)))
    others = [measures.WeakAdditivity(form="sum"), measures.Layerwise(base="b")]
    return found | {f"{name} 2": one for name, one in evaluator.measure(others).items()}


def pair(kinds: tuple[str, ...]) -> tuple[Any, Any, Any, Any]:
    """(results, a, b, data); the data are measured in batches of 8, the last of 7."""
    a, b = oracle.weights(kinds, 0), oracle.weights(kinds, 1)
    return measured(kinds, oracle.weights), a, b, oracle.data(kinds)


def mean_std(rows: np.ndarray) -> tuple[float, float]:
    some = rows[np.isfinite(rows)]
    return float(some.mean()), float(some.std(ddof=1))


@NETS
def test_llfc(kinds: tuple[str, ...]):
    results, a, b, (x, y) = pair(kinds)
    found = results["llfc"]
    assert list(found.layers) == oracle.sites(kinds)
    assert found.alphas == ALPHAS
    assert found.samples == 23
    of_a, of_b = oracle.run(kinds, a, x), oracle.run(kinds, b, x)
    for i, layer in enumerate(found.layers):
        distance, _, _ = compare(of_a[layer], of_b[layer])
        close((found.baseline[i], found.baseline_std[i]), mean_std(distance))
        close(found.baseline_abs[i], np.minimum(distance, 2 - distance).mean())
        whole = compare(of_a[layer].reshape(1, -1), of_b[layer].reshape(1, -1))
        close(found.pooled_baseline[i], whole[0][0])
        for j, alpha in enumerate(ALPHAS):
            between = oracle.run(kinds, oracle.mix(alpha, a, b), x)[layer]
            mixture = alpha * of_a[layer] + (1 - alpha) * of_b[layer]
            distance, coefficient, _ = compare(between, mixture)
            close((found.distance[i, j], found.distance_std[i, j]), mean_std(distance))
            absolute = np.minimum(distance, 2 - distance)
            close((found.distance_abs[i, j], found.distance_abs_std[i, j]), mean_std(absolute))
            close((found.coefficient[i, j], found.coefficient_std[i, j]), mean_std(coefficient))
            whole = compare(between.reshape(1, -1), mixture.reshape(1, -1))
            close(found.pooled_distance[i, j], whole[0][0])
            close(found.pooled_coefficient[i, j], whole[1][0])
    close(found.accuracy_a, 1 - oracle.error(of_a["out"], y))
    close(found.accuracy_b, 1 - oracle.error(of_b["out"], y))
    middle = ALPHAS.index(0.5)
    close(found.ratio(), found.baseline / found.distance[:, middle])


@NETS
def test_lmc_and_ensemble(kinds: tuple[str, ...]):
    results, a, b, (x, y) = pair(kinds)
    found = results["lmc"]
    together = results["ensemble"]
    of_a, of_b = (oracle.run(kinds, w, x)["out"] for w in (a, b))
    assert found.alphas == together.alphas == ALPHAS
    for j, alpha in enumerate(ALPHAS):
        between = oracle.run(kinds, oracle.mix(alpha, a, b), x)["out"]
        mixed = alpha * of_a + (1 - alpha) * of_b
        close(found.loss[j], oracle.cross_entropy(between, y))
        close(found.error[j], oracle.error(between, y))
        close(found.accuracy[j], 1 - found.error[j])
        close(together.loss[j], found.loss[j])
        close(together.error[j], found.error[j])
        close(together.ensemble_loss[j], oracle.cross_entropy(mixed, y))
        close(together.ensemble_error[j], oracle.error(mixed, y))
        close(together.disagreement[j], (between.argmax(1) != mixed.argmax(1)).mean())
    ends = [oracle.error(out, y) for out in (of_a, of_b)]
    close([together.error_a, together.error_b], ends)
    close(together.bound, 2 * max(ends))


@NETS
@pytest.mark.parametrize("form", ["mixture", "sum"])
def test_weak_additivity(kinds: tuple[str, ...], form: Any):
    results, a, b, (x, _) = pair(kinds)
    found = results["weak_additivity" if form == "mixture" else "weak_additivity 2"]
    assert list(found.layers) == [name for name in oracle.sites(kinds) if "relu" in name]
    assert found.alphas == (ALPHAS if form == "mixture" else (1.0,))
    of_a, of_b = oracle.run(kinds, a, x), oracle.run(kinds, b, x)
    for i, layer in enumerate(found.layers):
        za, zb = (values[layer.removesuffix(".relu")] for values in (of_a, of_b))
        ha, hb = np.maximum(za, 0), np.maximum(zb, 0)
        distance, _, relative = compare(ha, hb)
        close(found.baseline[i], mean_std(relative)[0])
        close(found.baseline_distance[i], mean_std(distance)[0])
        close(found.sign_agreement[i], (za * zb >= 0).mean())
        for j, alpha in enumerate(found.alphas):
            p, q = (alpha, 1 - alpha) if form == "mixture" else (1, 1)
            u, v = p * ha + q * hb, np.maximum(p * za + q * zb, 0)
            distance, coefficient, relative = compare(u, v)
            close((found.distance[i, j], found.distance_std[i, j]), mean_std(distance))
            close((found.coefficient[i, j], found.coefficient_std[i, j]), mean_std(coefficient))
            close((found.relative[i, j], found.relative_std[i, j]), mean_std(relative))
            whole = compare(u.reshape(1, -1), v.reshape(1, -1))
            pooled = (found.pooled_distance, found.pooled_coefficient, found.pooled_relative)
            close([value[i, j] for value in pooled], [value[0] for value in whole])
            assert found.num_undefined[i, j] == np.isnan(distance).sum()


def relative(u: np.ndarray, v: np.ndarray) -> float:
    return float(compare(u.reshape(1, -1), v.reshape(1, -1))[2][0])


def layers_of(kinds: tuple[str, ...]) -> list[str]:
    return [kind for kind in kinds if kind != "pool"]


@pytest.mark.slow
@NETS
def test_commutativity(kinds: tuple[str, ...]):
    results, a, b, (x, _) = pair(kinds)
    found = results["commutativity"]
    assert list(found.layers) == [name for name in oracle.sites(kinds) if "relu" not in name]
    of_a, of_b = oracle.run(kinds, a, x), oracle.run(kinds, b, x)
    for i, kind in enumerate(layers_of(kinds)):
        (wa, _), (wb, _) = oracle.wide(a)[i], oracle.wide(b)[i]
        ha, hb = of_a[f"in {i}"], of_b[f"in {i}"]
        own = oracle.linear(kind, wa, ha) + oracle.linear(kind, wb, hb)
        exchanged = oracle.linear(kind, wa, hb) + oracle.linear(kind, wb, ha)
        close(found.dist_com[i], relative(own, exchanged), atol=1e-7)
        close(found.dist_w[i], relative(wa, wb))
        close(found.dist_h[i], relative(ha, hb))
        least = min(relative(wa, wb), relative(ha, hb))
        if least:
            close(found.ratio[i], relative(own, exchanged) / least)
        else:
            assert i == 0
            assert np.isnan(found.ratio[i])


@pytest.mark.slow
@NETS
def test_theorem1(kinds: tuple[str, ...]):
    results, a, b, (x, _) = pair(kinds)
    found = results["theorem1"]
    assert list(found.layers) == oracle.sites(kinds)
    of_a, of_b = oracle.run(kinds, a, x), oracle.run(kinds, b, x)
    for j, alpha in enumerate(ALPHAS):
        between = oracle.run(kinds, oracle.mix(alpha, a, b), x)
        total = 0.0
        for i, layer in enumerate(found.layers):
            number = int(layer.removesuffix(".relu"))
            mixture = alpha * of_a[layer] + (1 - alpha) * of_b[layer]
            length = np.linalg.norm(mixture)
            if layer.endswith("relu"):
                za, zb = of_a[str(number)], of_b[str(number)]
                rectified = np.maximum(alpha * za + (1 - alpha) * zb, 0)
                own = rectified - alpha * np.maximum(za, 0) - (1 - alpha) * np.maximum(zb, 0)
                rest = between[layer] - rectified
            else:
                kind, place = layers_of(kinds)[number], f"in {number}"
                (wa, _), (wb, _) = oracle.wide(a)[number], oracle.wide(b)[number]
                gap = of_a[place] - of_b[place]
                own = -alpha * (1 - alpha) * oracle.linear(kind, wa - wb, gap)
                inherited = between[place] - alpha * of_a[place] - (1 - alpha) * of_b[place]
                rest = oracle.linear(kind, alpha * wa + (1 - alpha) * wb, inherited)
            # The two parts, each computed as the theorem says, make up the whole.
            whole = between[layer] - mixture
            np.testing.assert_allclose(own + rest, whole, atol=1e-13 * abs(mixture).max())
            total += (np.linalg.norm(own) / length) ** 2
            close(found.error[i, j], np.linalg.norm(between[layer] - mixture) / length)
            close(found.added[i, j], np.linalg.norm(own) / length)
            close(found.inherited[i, j], np.linalg.norm(rest) / length)
            close(found.accumulated[i, j], np.sqrt(total))


@NETS
def test_stitching(kinds: tuple[str, ...]):
    results, a, b, (x, y) = pair(kinds)
    found = results["stitching"]
    of_a, of_b = oracle.run(kinds, a, x), oracle.run(kinds, b, x)
    assert found.directions == ("a into b", "b into a")
    for i, layer in enumerate(found.layers):
        a_into_b = oracle.run(kinds, b, x, {layer: of_a[layer]})["out"]
        b_into_a = oracle.run(kinds, a, x, {layer: of_b[layer]})["out"]
        for j, out in enumerate((a_into_b, b_into_a)):
            close(found.loss[i, j], oracle.cross_entropy(out, y))
            close(found.error[i, j], oracle.error(out, y))
    close([found.loss_a, found.loss_b], [oracle.cross_entropy(v["out"], y) for v in (of_a, of_b)])
    close([found.error_a, found.error_b], [oracle.error(v["out"], y) for v in (of_a, of_b)])


@NETS
def test_spectrum(kinds: tuple[str, ...]):
    results, a, b, (x, _) = pair(kinds)
    found = results["spectrum"]
    assert found.ranks == (1, 2, 3, 4, 5, 6)
    runs = [oracle.run(kinds, w, x) for w in (a, b)]
    for i in range(3):
        matrices = [w[i][0].reshape(-1, w[i][0].shape[-1]).T for w in map(oracle.wide, (a, b))]
        # Pre-activations without bias: a row per unit, a column per sample and position.
        features = [
            (values[str(i)] - w[i][1]).reshape(-1, w[i][1].size).T / np.sqrt(23)
            for values, w in zip(runs, map(oracle.wide, (a, b)), strict=True)
        ]
        for kind, parts in (("weight", matrices), ("feature", features)):
            for end, matrix in zip("ab", parts, strict=True):
                values = np.linalg.svd(matrix, compute_uv=False)
                row = getattr(found, f"{kind}_{end}")[i]
                close(row[: len(values)], values[:6], rtol=1e-4, atol=1e-4)
                assert np.isnan(row[len(values) :]).all()
                share = values / values.sum()
                effective = np.exp(-(share * np.log(share)).sum())
                close(getattr(found, f"effective_{kind}_{end}")[i], effective, rtol=1e-3)
        for name, parts, side in (
            ("angle_left", matrices, 0),
            ("angle_right", matrices, 2),
            ("angle_feature", features, 0),
        ):
            spans = [np.linalg.svd(matrix, full_matrices=False)[side] for matrix in parts]
            p, q = (span[:, :2] if side == 0 else span[:2].T for span in spans)
            angles = np.degrees(scipy.linalg.subspace_angles(p, q))
            row = getattr(found, name)[i]
            np.testing.assert_allclose(row[:2], angles, atol=0.05)
            assert np.isnan(row[2:]).all()


@NETS
@pytest.mark.parametrize("base", ["a", "b"])
def test_layerwise(kinds: tuple[str, ...], base: Any):
    results, a, b, (x, y) = pair(kinds)
    found = results["layerwise" if base == "a" else "layerwise 2"]
    assert found.layers == ("0", "1", "2")
    keep = a if base == "a" else b
    for i in range(3):
        for j, alpha in enumerate(ALPHAS):
            mixed = [oracle.mix(alpha, a, b)[k] if k == i else keep[k] for k in range(3)]
            out = oracle.run(kinds, mixed, x)["out"]
            close(found.loss[i, j], oracle.cross_entropy(out, y))
            close(found.error[i, j], oracle.error(out, y))
    out = oracle.run(kinds, keep, x)["out"]
    close(found.loss_highest, found.loss.max(1) - oracle.cross_entropy(out, y))
    close(found.error_highest, found.error.max(1) - oracle.error(out, y))
    middle = ALPHAS.index(0.5)
    close(found.loss_barrier, found.loss[:, middle] - oracle.cross_entropy(out, y))
    close(found.error_barrier, found.error[:, middle] - oracle.error(out, y))
    # At the other end that one layer is the other network's; at its own the curve is the base.
    own = ALPHAS.index(1.0 if base == "a" else 0.0)
    close(found.loss[:, own], oracle.cross_entropy(out, y))


def test_a_feature_of_the_oracle():
    """The convolution and the pooling of the oracle, on numbers that can be counted by hand."""
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    kernel = np.zeros((3, 3, 1, 1))
    kernel[0, 0], kernel[2, 2] = 1, 10
    out = oracle.linear("conv", kernel, x)
    np.testing.assert_array_equal(out[0, :, :, 0], [[0 + 100, 1 + 110], [4 + 140, 5 + 150]])
    values = oracle.run(("pool", "dense"), [(np.eye(4), np.zeros(4))], x)
    np.testing.assert_array_equal(flat(values["out"]), [[5, 7, 13, 15]])
