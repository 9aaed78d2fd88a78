"""The measures against the authors' own code, on trained networks and real images."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import golden
import jax
import numpy as np
import pytest

from llfc_jax import networks
from llfc_jax.convert import from_torch
from llfc_jax.graph import features, trace
from llfc_jax.measures import Rows, compare, llfc, lmc, spectrum, stitching, weak_additivity
from llfc_jax.measures.similarity import absolute
from llfc_jax.pair import interpolate

ALPHAS = (0.25, 0.5, 0.75)  # of the reference
# The reference's names of the layers -> ours.
MLP = {f"layers.{2 * i}": f"Dense_{i}" for i in range(4)}
MLP |= {f"layers.{2 * i + 1}": f"Dense_{i}.relu" for i in range(3)}
LENET = {f"conv{i + 1}": f"Conv_{i}" for i in range(2)}
LENET |= {f"fc{i + 1}": f"Dense_{i}" for i in range(3)}
LENET |= {f"relu{i + 1}": f"Conv_{i}.relu" for i in range(2)}
LENET |= {f"relu{i + 3}": f"Dense_{i}.relu" for i in range(2)}
RESNET = {f"layer{s + 1}.{i}": f"stage{s + 1}_block{i}" for s in range(3) for i in range(3)}
RESNET |= {"conv1": "conv1", "linear": "dense"}
# Fields of the result of `llfc` -> columns of the reference.
SUMMARY = {
    "distance_abs": "dist_alpha_int_over_samples_mean",
    "distance_abs_std": "dist_alpha_int_over_samples_std",
    "coefficient": "coef_alpha_int_over_samples_mean",
    "coefficient_std": "coef_alpha_int_over_samples_std",
    "pooled_distance": "dist_alpha_int",
    "pooled_coefficient": "coef_alpha_int",
    "baseline_abs": "dist_A_B_over_samples_mean",
    "pooled_baseline": "dist_A_B",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A pair in our layout, its data in batches of 128, and what the reference says."""

    apply: Callable[[Any, Any], Any]
    a: Any
    b: Any
    x: np.ndarray
    batches: list[tuple[np.ndarray, np.ndarray]]
    sites: dict[str, str]
    results: dict[str, np.ndarray]


@functools.cache
def case(name: str) -> Case:
    network, sites = {
        "mlp_independent": ("mlp", MLP),
        "lenet_spawned": ("lenet5", LENET),
        "resnet20_spawned": ("resnet_cifar", RESNET),
    }[name]
    reference = golden.load(name)
    module = networks.build(network, 10)
    x, y = reference.x, reference.y
    shapes = jax.eval_shape(module.init, jax.random.key(0), x[:2])
    a, b = (from_torch(state, module.apply, shapes, x[:2]) for state in (reference.a, reference.b))
    batches = [(x[i : i + 128], y[i : i + 128]) for i in range(0, len(x), 128)]
    return Case(module.apply, a, b, x, batches, sites, reference.results)


NAMES = (
    "mlp_independent",
    "lenet_spawned",
    pytest.param("resnet20_spawned", marks=pytest.mark.slow),
)


def close(ours: Any, theirs: Any) -> None:
    """Within 1e-5, or within 5e-4 of the value where that is more."""
    np.testing.assert_allclose(ours, theirs, rtol=5e-4, atol=1e-5)
    small = np.abs(theirs) < 1e-3
    np.testing.assert_allclose(np.asarray(ours)[small], theirs[small], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_sample_of_every_layer_at_every_alpha(name: str):
    c = case(name)
    graph = trace(c.apply, c.a, c.x)

    @jax.jit
    def read(variables: Any) -> dict[str, Any]:
        values = graph.evaluate(variables, c.x)
        return {site: features(values, graph[site]) for site in c.sites.values()}

    of_a, of_b = read(c.a), read(c.b)
    between = [read(interpolate(c.a, c.b, alpha)) for alpha in ALPHAS]
    check = jax.jit(compare)

    def compared_at(site: str) -> Iterator[Rows]:
        p, q = of_a[site], of_b[site]
        yield check(p, q)
        for alpha, found in zip(ALPHAS, between, strict=True):
            yield check(found[site], alpha * p + (1 - alpha) * q)

    compared = 0
    for theirs, site in c.sites.items():
        where = [f"llfc/{theirs}"] + [f"llfc/alpha{alpha}/{theirs}" for alpha in ALPHAS]
        for place, ours in zip(where, compared_at(site), strict=True):
            suffix = "A_B" if place == where[0] else "alpha_int"
            close(absolute(ours.distance), c.results[f"{place}/dist_{suffix}"])
            close(ours.coefficient, c.results[f"{place}/coef_{suffix}"])
            compared += 1
    assert compared == 4 * len(set(c.results["layers"]) - {"layers"})


@pytest.mark.parametrize("name", NAMES)
def test_llfc_means_deviations_and_pooled_values(name: str):
    c = case(name)
    found = llfc(c.apply, c.a, c.b, c.batches, alphas=ALPHAS, sites=list(c.sites.values()))
    assert not np.asarray(found.num_undefined).any()
    for row, theirs in enumerate(c.results["layers"]):
        if theirs == "layers":  # the MLP's container: its last layer again
            continue
        layer = found.layers.index(c.sites[theirs])
        for column, alpha in enumerate(ALPHAS):
            for ours, reference in SUMMARY.items():
                value = getattr(found, ours)[layer]
                value = value[column] if np.ndim(value) else value
                if ours.startswith("pooled") and ours != "pooled_coefficient":
                    value = min(value, 2 - value)  # the reference's cosines have no sign
                expected = c.results[f"llfc/alpha{alpha}/summary/{reference}"][row]
                np.testing.assert_allclose(value, expected, rtol=1e-4, atol=2e-6, err_msg=ours)


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_accuracy_along_the_line(name: str):
    c = case(name)
    # The reference interpolates the other way round: there alpha multiplies B.
    alphas = 1 - c.results["lmc/alphas"]
    found = lmc(c.apply, c.a, c.b, c.batches, alphas=alphas)
    assert len(found.alphas) == 11
    np.testing.assert_allclose(found.loss[::-1], c.results["lmc/loss"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(
        np.round(found.accuracy[::-1] * len(c.x)), np.round(c.results["lmc/acc"] * len(c.x))
    )


@pytest.mark.parametrize("name", ["mlp_independent", "lenet_spawned"])
def test_weak_additivity(name: str):
    c = case(name)
    found = weak_additivity(c.apply, c.a, c.b, c.batches, form="sum")
    middle = weak_additivity(c.apply, c.a, c.b, c.batches, alphas=(0.5,))
    theirs = list(c.results["relu_layers"])
    assert [c.sites[name] for name in theirs] == list(found.layers)
    for i, layer in enumerate(theirs):
        for key, mean, deviation in (
            ("cosine", found.distance, found.distance_std),
            ("coef", found.coefficient, found.coefficient_std),
            ("diff", found.relative, found.relative_std),
        ):
            reference = c.results[f"weak/{layer}/{key}_over_samples"].astype(np.float64)
            expected = [reference.mean(), reference.std(ddof=1)]
            np.testing.assert_allclose([mean[i, 0], deviation[i, 0]], expected, rtol=0, atol=1e-5)
    for key in ("distance", "coefficient", "relative"):  # a common factor of both sides
        np.testing.assert_allclose(getattr(found, key), getattr(middle, key), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_stitching_in_both_directions(name: str):
    c = case(name)
    layers = [c.sites[layer] for layer in c.results["stitch/layers"]]
    found = stitching(c.apply, c.a, c.b, c.batches, sites=layers)
    assert list(found.layers) == layers
    for column, direction in enumerate(("A_into_B", "B_into_A")):
        loss, accuracy = (c.results[f"stitch/{direction}/{key}"] for key in ("loss", "acc"))
        np.testing.assert_allclose(found.loss[:, column], loss, rtol=0, atol=1e-4)
        right = np.round((1 - found.error[:, column]) * len(c.x))
        np.testing.assert_array_equal(right, np.round(accuracy * len(c.x)))


def upper_layers(c: Case) -> Case:
    """The MLP from its second layer on: the first layer's decomposition takes most of the time."""
    module = networks.build("mlp", 10, widths=(512, 512))
    x = np.zeros((8, 512), np.float32)
    a, b = (
        {"params": {f"Dense_{i}": end["params"][f"Dense_{i + 1}"] for i in range(3)}}
        for end in (c.a, c.b)
    )
    sites = {f"layers.{2 * i + 2}": f"Dense_{i}" for i in range(3)}
    return dataclasses.replace(c, apply=module.apply, a=a, b=b, x=x, sites=sites)


@pytest.mark.parametrize("name", [pytest.param(NAMES[0], marks=pytest.mark.slow), *NAMES[1:]])
def test_principal_angles_where_the_subspaces_are_well_defined(name: str):
    c = case(name)
    c = upper_layers(c) if name.startswith("mlp") else c
    convolutions = {f"{theirs}.conv{i}": f"{ours}/conv{i}" for theirs, ours in c.sites.items()
                    for i in (1, 2)}  # fmt: skip
    found = spectrum(c.apply, c.a, c.b, [(c.x[:8], np.zeros(8, int))])
    compared = 0
    for theirs, ours in (c.sites | convolutions).items():
        if f"angles/{theirs}/deg_U" not in c.results:
            continue
        layer = found.layers.index(ours)
        tops = [c.results[f"angles/{theirs}/s_{end}_top6"] for end in "AB"]
        for top, weight in zip(tops, (found.weight_a, found.weight_b), strict=True):
            np.testing.assert_allclose(weight[layer, : len(top)], top, rtol=1e-5)
        if any(len(top) < 6 or top[4] - top[5] < 0.01 * top[4] for top in tops):
            continue
        for angle, key in ((found.angle_left, "deg_U"), (found.angle_right, "deg_V")):
            expected = c.results[f"angles/{theirs}/{key}"]
            np.testing.assert_allclose(angle[layer, :5], expected, rtol=0, atol=0.05)
        compared += 1
    assert compared >= {"mlp": 2, "lenet": 3, "resnet20": 12}[name.partition("_")[0]]


def test_the_metric_itself_on_zero_parallel_and_antiparallel_rows():
    reference = golden.edge_metrics()
    u, v = (reference[key].reshape(len(reference[key]), -1) for key in "AB")
    found = compare(u, v)
    np.testing.assert_array_equal(np.isnan(found.distance), np.isnan(reference["dist"]))
    some = ~np.isnan(reference["dist"])
    np.testing.assert_allclose(
        absolute(found.distance)[some], reference["dist"][some], atol=1e-6, rtol=0
    )
    signed = ~np.isnan(reference["coef"])
    np.testing.assert_allclose(found.coefficient[signed], reference["coef"][signed], rtol=1e-5)
    np.testing.assert_array_equal(np.isnan(found.coefficient), np.isnan(reference["coef"]))
    np.testing.assert_allclose(found.relative[some], reference["vanilla"][some], rtol=1e-5)
