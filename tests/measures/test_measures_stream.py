"""One pass over the data: batches, order, padding, loops over α, what is left out, bad input."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from oracle import ALPHAS

from llfc_jax import measures
from llfc_jax.errors import ConfigError, DataError, GraphError, LlfcError, ModeError
from llfc_jax.measures.options import check_alphas
from llfc_jax.types import Batches

APPLY = oracle.network(oracle.MLP)
A, B = (oracle.weights(oracle.MLP, seed) for seed in (0, 1))
X, Y = oracle.data(oracle.MLP)  # 23 samples

NAMES = tuple(measures.MEASURES)
ALONG_ALPHA = ("llfc", "lmc", "ensemble", "weak_additivity", "theorem1", "layerwise")
TOP = {"spectrum": {"top": 2}}


def measure(name: str, batches: Any, **changes: Any) -> Any:
    """One measure of the pair on the usual grid."""
    grid = {"alphas": ALPHAS} if name in ALONG_ALPHA else {}
    function = getattr(measures, name)
    return function(APPLY, A, B, batches, **grid, **TOP.get(name, {}), **changes)


def measure_all(batches: Any, names: Any = NAMES, **options: Any) -> dict[str, Any]:
    """Many measures of the pair, in one pass."""
    options = measures.EvalOptions(alphas=ALPHAS, measure_options=TOP, **options)
    pair = measures.PairEvaluator(APPLY, A, B, batches, options)
    return pair.measure(measures.build_all(names, options))


def same(one: Any, two: Any, rtol: float = 2e-5, atol: float = 1e-6) -> None:
    """Every field of two results."""
    for field in dataclasses.fields(one):
        p, q = getattr(one, field.name), getattr(two, field.name)
        if "axes" not in field.metadata:
            assert p == q, field.name
            continue
        if field.name.startswith("angle"):  # degrees, from single-precision moments
            np.testing.assert_allclose(p, q, atol=0.02, err_msg=field.name)
        elif field.name.startswith("feature"):  # square roots of them
            np.testing.assert_allclose(p, q, rtol=rtol, atol=1e-4, err_msg=field.name)
        else:
            np.testing.assert_allclose(p, q, rtol=rtol, atol=atol, err_msg=field.name)


@pytest.mark.slow
def test_neither_batch_size_nor_order_matters():
    whole = measure_all([(X, Y)])
    order = np.random.default_rng(0).permutation(len(X))
    parts = measure_all(oracle.split((X[order], Y[order])))  # 8, 8 and 7 samples
    assert set(whole) == set(parts) == set(NAMES)
    for name in NAMES:
        same(parts[name], whole[name])


@pytest.mark.slow
def test_every_way_to_loop_over_alpha_gives_the_same():
    batches = oracle.split((X, Y), 23)
    names = ("lmc", "weak_additivity", "layerwise")
    one, other = (measure_all(batches, names, alpha_loop=how) for how in ("map", "vmap"))
    for name in names:
        same(one[name], other[name])
    same(one["lmc"], measure("lmc", batches, alpha_loop="unroll"))


@pytest.mark.slow
def test_the_ends_are_known_without_running_them_again():
    """Also where they are not the line's first and last points."""
    x = X.copy()
    x[:4] = 0  # no features after the first ReLU
    ends = [[(w[0][0], -np.abs(w[0][1]) - 0.01), *w[1:]] for w in (A, B)]
    known = measures.llfc(APPLY, *ends, oracle.split((x, Y)), alphas=(0, 0.5, 1))
    run = measures.llfc(
        APPLY, *ends, oracle.split((x, Y)), alphas=(-0.1, 0, 0.5, 1, 1.1), extrapolate=True
    )
    assert known.num_undefined[:, ::2].any()
    for field in dataclasses.fields(known):
        if "alphas" in field.metadata.get("axes", ()):
            p, q = (np.asarray(getattr(of, field.name)) for of in (known, run))
            np.testing.assert_allclose(p, q[:, 1:4], rtol=2e-5, atol=1e-6, err_msg=field.name)


class Counting:
    """Batches that can be read again and again, made on the fly."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        self.passes += 1
        yield from oracle.split((X, Y))


def test_anything_that_can_be_read_again_will_do():
    batches: Batches = Counting()
    same(measure("llfc", batches), measure("llfc", [(X, Y)]))
    same(measure("llfc", [(jnp.asarray(X), jnp.asarray(Y))]), measure("llfc", [(X, Y)]))


def test_progress_counts_batches():
    seen: list[tuple[int, int]] = []
    measure("lmc", oracle.split((X, Y)), progress=lambda done, total, _: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def without(w: Any, layer: int, units: slice) -> Any:
    """The weights with some units of a layer made dead."""
    kernel, bias = (part.copy() for part in w[layer])
    kernel[:, units], bias[units] = 0, -1
    return [*w[:layer], (kernel, bias), *w[layer + 1 :]]


def test_samples_without_features_are_num_undefined_and_counted():
    x = X.copy()
    x[:4] = 0  # with negative biases nothing comes out of the first ReLU for these
    ends = [[(w[0][0], -np.abs(w[0][1]) - 0.01), *w[1:]] for w in (A, B)]
    found = measures.llfc(APPLY, *ends, oracle.split((x, Y)), alphas=ALPHAS)
    of_a, of_b = (oracle.run(oracle.MLP, w, x)["0.relu"] for w in ends)
    row = found.layers.index("0.relu")
    for column, alpha in enumerate(ALPHAS):
        between = oracle.run(oracle.MLP, oracle.mix(alpha, *ends), x)["0.relu"]
        distance, *_ = oracle.compare(between, alpha * of_a + (1 - alpha) * of_b)
        assert found.num_undefined[row, column] == np.isnan(distance).sum() >= 4
        np.testing.assert_allclose(found.distance[row, column], np.nanmean(distance), rtol=1e-4,
                                   atol=1e-7)  # fmt: skip
    others = [i for i, name in enumerate(found.layers) if name in ("0", "1", "2")]
    assert not np.asarray(found.num_undefined)[others].any()  # there biases remain


def test_a_layer_that_is_dead_for_all_samples_has_no_figure():
    ends = [without(w, 1, slice(None)) for w in (A, B)]
    found = measures.llfc(APPLY, *ends, [(X, Y)], alphas=ALPHAS)
    row = found.layers.index("1.relu")
    np.testing.assert_array_equal(found.num_undefined[row], 23)
    for field in (found.distance, found.coefficient, found.pooled_distance):
        assert np.isnan(field[row]).all()
    assert not found.informative[row]
    rows = [row for row in found.records() if row["layer"] == "1.relu"]
    assert [(row["num_undefined"], np.isnan(row["distance"])) for row in rows] == [(23, True)] * 5
    weak = measures.weak_additivity(APPLY, *ends, [(X, Y)], alphas=ALPHAS)
    np.testing.assert_array_equal(weak.num_undefined[1], 23)
    np.testing.assert_array_equal(weak.sign_agreement[1], 1)
    spectra = measures.spectrum(APPLY, *ends, [(X, Y)], top=2)
    assert np.isnan(spectra.feature_a[1]).all()
    assert np.isnan(spectra.angle_feature[1]).all()
    assert np.isnan(spectra.effective_feature_a[1])
    assert np.isfinite(spectra.feature_a[0, 0])


class TestInformative:
    """Where a cosine of 1 says nothing the result says so."""

    x, _ = oracle.data(oracle.MLP, 200)
    y = oracle.run(oracle.MLP, A, x)["out"].argmax(1).astype(np.int32)  # a is always right
    near = tuple((k + 0.02 * np.sign(k).astype(np.float32), bias) for k, bias in A)

    def informative(self, b: Any) -> dict[str, bool]:
        found = measures.llfc(APPLY, A, list(b), oracle.split((self.x, self.y)), alphas=ALPHAS)
        return dict(zip(found.layers, np.asarray(found.informative).tolist(), strict=True))

    def test_two_good_networks_tell_past_the_first_layer(self):
        found = self.informative(self.near)
        assert found == {"0": False, "0.relu": True, "1": True, "1.relu": True, "2": True}

    def test_the_first_layer_is_linear_in_its_weights_whatever_they_are(self):
        result = measures.llfc(
            APPLY, A, list(self.near), oracle.split((self.x, self.y)), alphas=ALPHAS
        )
        assert result.baseline[0] > 1e-4
        assert result.distance[0].max() < 1e-10
        assert not result.informative[0]

    def test_an_end_at_chance(self):
        assert not any(self.informative(B).values())

    def test_two_ends_that_are_the_same(self):
        assert not any(self.informative(A).values())

    def test_always_the_most_frequent_class_is_chance(self):
        """Right nine times in ten, and yet at chance: nine in ten labels are of one class."""
        y = np.zeros(len(X), np.int32)
        y[:2] = 1
        constant = [(0 * k, 0 * bias) for k, bias in A[:-1]]
        last = [(0 * A[-1][0], np.array([1, 0, 0, 0], np.float32))]
        found = measures.llfc(
            APPLY, constant + last, constant + last, oracle.split((X, y)), alphas=ALPHAS
        )
        assert found.accuracy_a > 0.9
        assert not np.asarray(found.informative).any()


class TestBadInput:
    """One line each, raised before or in place of a result that would be wrong."""

    def line(self, kind: type[LlfcError], do: Any) -> str:
        with pytest.raises(kind) as caught:
            do()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize("name", NAMES)
    def test_a_generator_of_batches(self, name: str):
        batches = (batch for batch in oracle.split((X, Y)))
        assert "generator" in self.line(DataError, lambda: measure(name, batches))

    def test_no_batches(self):
        assert "no batch" in self.line(DataError, lambda: measure("lmc", []))

    def test_nan_and_infinity_in_the_data(self):
        for value in (np.nan, np.inf):
            bad = X.copy()
            bad[20, 3] = value  # in the last batch
            batches = oracle.split((bad, Y))
            for name in ("llfc", "stitching", "layerwise"):
                message = self.line(DataError, lambda n=name, b=batches: measure(n, b))
                assert "NaN or infinity" in message

    @pytest.mark.parametrize("name", ["lmc", "layerwise"])
    @pytest.mark.parametrize("place", [0, 22])
    def test_labels_outside_the_classes(self, name: str, place: int):
        for label in (-1, 4):
            y = Y.copy()
            y[place] = label
            message = self.line(DataError, lambda y=y: measure(name, oracle.split((X, y))))
            assert "network has 4 classes" in message

    def test_labels_of_another_kind(self):
        assert "integers" in self.line(DataError, lambda: measure("lmc", [(X, Y / 2)]))
        assert "labels [n]" in self.line(DataError, lambda: measure("lmc", [(X, Y[:4])]))
        hot = np.eye(4, dtype=np.int32)[Y]
        assert "labels [n]" in self.line(DataError, lambda: measure("lmc", [(X, hot)]))

    def test_a_batch_that_grows(self):
        batches = [(X[:5], Y[:5]), (X[5:], Y[5:])]
        assert "only the last" in self.line(DataError, lambda: measure("lmc", batches))

    def test_images_that_do_not_fit_the_network(self):
        message = self.line(GraphError, lambda: measure("llfc", [(X[:, :5], Y)]))
        assert "does not accept x of shape (23, 5)" in message

    @pytest.mark.parametrize(
        ("alphas", "words"),
        [
            ((), "empty"),
            ((0.5, 1.2), "extrapolate=True"),
            ((-0.1,), "extrapolate=True"),
            ((float("nan"),), "finite"),
            (("half",), "numbers"),
            (None, "numbers"),
        ],
    )
    def test_a_grid_that_is_none(self, alphas: Any, words: str):
        for function in (measures.llfc, measures.lmc, measures.layerwise):
            message = self.line(
                ModeError, lambda f=function: f(APPLY, A, B, [(X, Y)], alphas=alphas)
            )
            assert words in message

    def test_beyond_the_ends_on_demand(self):
        found = measures.lmc(APPLY, A, B, [(X, Y)], alphas=(-0.5, 1.5), extrapolate=True)
        assert found.alphas == (-0.5, 0.0, 0.5, 1.0, 1.5)
        out = oracle.run(oracle.MLP, oracle.mix(1.5, A, B), X)["out"]
        np.testing.assert_allclose(found.loss[-1], oracle.cross_entropy(out, Y), rtol=1e-4)
        assert check_alphas((0.5, 0, 0.5, 1)) == (0.0, 0.5, 1.0)

    def test_two_architectures(self):
        wider = [(np.ones((6, 7), np.float32), A[0][1]), *A[1:]]
        for function in (measures.llfc, measures.commutativity, measures.layerwise):
            message = self.line(ModeError, lambda f=function: f(APPLY, A, wider, [(X, Y)]))
            assert "0/0" in message
            message = self.line(ModeError, lambda f=function: f(APPLY, A, A[:2], [(X, Y)]))
            assert "not modes of one network" in message

    def test_a_diverged_network(self):
        bad = [(A[0][0] * np.nan, A[0][1]), *A[1:]]
        message = self.line(ModeError, lambda: measures.lmc(APPLY, A, bad, [(X, Y)]))
        assert "mode b" in message
        assert "diverge" in message

    def test_a_network_without_logits(self):
        def images(w: Any, x: Any) -> Any:
            return x[:, :, None] * w[0][1][None, None]

        message = self.line(GraphError, lambda: measures.lmc(images, A, B, [(X, Y)]))
        assert "logits [n, classes]" in message

    def test_a_network_without_relus_or_layers(self):
        smooth = [(X, Y)]
        message = self.line(
            GraphError,
            lambda: measures.weak_additivity(lambda w, x: x @ w, A[0][0], B[0][0], smooth),
        )
        assert "no activation function" in message
        message = self.line(
            GraphError,
            lambda: measures.commutativity(lambda w, x: x * w[None], A[0][1][:6], B[0][1][:6],
                                           smooth),
        )  # fmt: skip
        assert "no linear layer" in message

    def test_unknown_options(self):
        batches = [(X, Y)]
        for name in ALONG_ALPHA:
            message = self.line(ConfigError, lambda n=name: measure(n, batches, alpha_loop="vmpa"))
            assert "did you mean 'vmap'" in message
        message = self.line(GraphError, lambda: measure("llfc", batches, sites="3"))
        assert "unknown site" in message
        message = self.line(ConfigError, lambda: measure("lmc", batches, renormalise="rest"))
        assert "did you mean 'reset'" in message
        with pytest.raises(ConfigError, match="form must be"):
            measures.weak_additivity(APPLY, A, B, batches, form="product")  # pyright: ignore
        with pytest.raises(ConfigError, match="base must be"):
            measures.layerwise(APPLY, A, B, batches, base="c")  # pyright: ignore
        with pytest.raises(ModeError, match="holds no parameters"):
            measures.layerwise(APPLY, A, B, batches, groups={"first": ["7"]})
        with pytest.raises(ConfigError, match="1 or more"):
            measures.spectrum(APPLY, A, B, batches, top=0)
