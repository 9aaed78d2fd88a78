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
from llfc_jax.errors import DataError, GraphError, LlfcError, ModeError
from llfc_jax.measures.accumulate import Batches
from llfc_jax.measures.evaluator import check_alphas

APPLY = oracle.network(oracle.MLP)
A, B = (oracle.weights(oracle.MLP, seed) for seed in (0, 1))
X, Y = oracle.data(oracle.MLP)  # 23 samples

MEASURES = {
    "llfc": lambda batches, **o: measures.llfc(APPLY, A, B, batches, alphas=ALPHAS, **o),
    "lmc": lambda batches, **o: measures.lmc(APPLY, A, B, batches, alphas=ALPHAS, **o),
    "ensemble": lambda batches, **o: measures.ensemble(APPLY, A, B, batches, alphas=ALPHAS, **o),
    "weak": lambda batches, **o: measures.weak_additivity(APPLY, A, B, batches, alphas=ALPHAS, **o),
    "commutativity": lambda batches, **o: measures.commutativity(APPLY, A, B, batches, **o),
    "theorem1": lambda batches, **o: measures.theorem1(APPLY, A, B, batches, alphas=ALPHAS, **o),
    "stitching": lambda batches, **o: measures.stitching(APPLY, A, B, batches, **o),
    "spectrum": lambda batches, **o: measures.spectrum(APPLY, A, B, batches, top=2, **o),
    "layerwise": lambda batches, **o: measures.layerwise_lmc(
        APPLY, A, B, batches, alphas=ALPHAS, **o
    ),
}
ALONG_ALPHA = ("llfc", "lmc", "weak", "theorem1", "layerwise")


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


@pytest.mark.parametrize("name", MEASURES)
def test_neither_batch_size_nor_order_matters(name: str):
    measure = MEASURES[name]
    whole = measure([(X, Y)])
    order = np.random.default_rng(0).permutation(len(X))
    same(measure(oracle.split((X[order], Y[order]))), whole)  # 8, 8 and 7 samples


@pytest.mark.parametrize("name", ALONG_ALPHA)
def test_every_way_to_loop_over_alpha_gives_the_same(name: str):
    batches = oracle.split((X, Y), 23)
    one, *others = (MEASURES[name](batches, over=how) for how in ("map", "vmap", "unroll"))
    for other in others:
        same(one, other)


def test_the_ends_are_known_without_running_them_again():
    """Where they are not the line's first and last points they are run as all the others are."""
    x = X.copy()
    x[:4] = 0  # no features after the first ReLU
    ends = [[(w[0][0], -np.abs(w[0][1]) - 0.01), *w[1:]] for w in (A, B)]
    known = measures.llfc(APPLY, *ends, oracle.split((x, Y)), alphas=(0, 0.5, 1))
    run = measures.llfc(
        APPLY, *ends, oracle.split((x, Y)), alphas=(-0.1, 0, 0.5, 1, 1.1), outside=True
    )
    assert known.left_out[:, ::2].any()
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
    same(MEASURES["llfc"](batches), MEASURES["llfc"]([(X, Y)]))
    same(MEASURES["llfc"]([(jnp.asarray(X), jnp.asarray(Y))]), MEASURES["llfc"]([(X, Y)]))


def test_progress_counts_batches():
    seen: list[tuple[int, int]] = []
    MEASURES["lmc"](
        oracle.split((X, Y)), progress=lambda done, total, _: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def without(w: Any, layer: int, units: slice) -> Any:
    """The weights with some units of a layer made dead."""
    kernel, bias = (part.copy() for part in w[layer])
    kernel[:, units], bias[units] = 0, -1
    return [*w[:layer], (kernel, bias), *w[layer + 1 :]]


def test_samples_without_features_are_left_out_and_counted():
    x = X.copy()
    x[:4] = 0  # with negative biases nothing comes out of the first ReLU for these
    ends = [[(w[0][0], -np.abs(w[0][1]) - 0.01), *w[1:]] for w in (A, B)]
    found = measures.llfc(APPLY, *ends, oracle.split((x, Y)), alphas=ALPHAS)
    of_a, of_b = (oracle.run(oracle.MLP, w, x)["0.relu"] for w in ends)
    row = found.layers.index("0.relu")
    for column, alpha in enumerate(ALPHAS):
        between = oracle.run(oracle.MLP, oracle.mix(alpha, *ends), x)["0.relu"]
        distance, *_ = oracle.compare(between, alpha * of_a + (1 - alpha) * of_b)
        assert found.left_out[row, column] == np.isnan(distance).sum() >= 4
        np.testing.assert_allclose(found.distance[row, column], np.nanmean(distance), rtol=1e-4,
                                   atol=1e-7)  # fmt: skip
    others = [i for i, name in enumerate(found.layers) if name in ("0", "1", "2")]
    assert not np.asarray(found.left_out)[others].any()  # there biases remain


def test_a_layer_that_is_dead_for_all_samples_has_no_figure():
    ends = [without(w, 1, slice(None)) for w in (A, B)]
    found = measures.llfc(APPLY, *ends, [(X, Y)], alphas=ALPHAS)
    row = found.layers.index("1.relu")
    np.testing.assert_array_equal(found.left_out[row], 23)
    for field in (found.distance, found.coefficient, found.pooled_distance):
        assert np.isnan(field[row]).all()
    assert not found.telling[row]
    rows = [row for row in found.records() if row["layer"] == "1.relu"]
    assert [(row["left_out"], np.isnan(row["distance"])) for row in rows] == [(23, True)] * 5
    weak = measures.weak_additivity(APPLY, *ends, [(X, Y)], alphas=ALPHAS)
    np.testing.assert_array_equal(weak.left_out[1], 23)
    np.testing.assert_array_equal(weak.sign_agreement[1], 1)
    spectra = measures.spectrum(APPLY, *ends, [(X, Y)], top=2)
    assert np.isnan(spectra.feature_a[1]).all()
    assert np.isnan(spectra.angle_feature[1]).all()
    assert np.isnan(spectra.effective_feature_a[1])
    assert np.isfinite(spectra.feature_a[0, 0])


class TestTelling:
    """Where a cosine of 1 says nothing the result says so."""

    x, _ = oracle.data(oracle.MLP, 200)
    y = oracle.run(oracle.MLP, A, x)["out"].argmax(1).astype(np.int32)  # a is always right
    near = tuple((k + 0.02 * np.sign(k).astype(np.float32), bias) for k, bias in A)

    def telling(self, b: Any) -> dict[str, bool]:
        found = measures.llfc(APPLY, A, list(b), oracle.split((self.x, self.y)), alphas=ALPHAS)
        return dict(zip(found.layers, np.asarray(found.telling).tolist(), strict=True))

    def test_two_good_networks_tell_past_the_first_layer(self):
        found = self.telling(self.near)
        assert found == {"0": False, "0.relu": True, "1": True, "1.relu": True, "2": True}

    def test_the_first_layer_is_linear_in_its_weights_whatever_they_are(self):
        result = measures.llfc(
            APPLY, A, list(self.near), oracle.split((self.x, self.y)), alphas=ALPHAS
        )
        assert result.baseline[0] > 1e-4
        assert result.distance[0].max() < 1e-10
        assert not result.telling[0]

    def test_an_end_at_chance(self):
        assert not any(self.telling(B).values())

    def test_two_ends_that_are_the_same(self):
        assert not any(self.telling(A).values())

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
        assert not np.asarray(found.telling).any()


class TestBadInput:
    """One line each, raised before or in place of a result that would be wrong."""

    def line(self, kind: type[LlfcError], do: Any) -> str:
        with pytest.raises(kind) as caught:
            do()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize("name", MEASURES)
    def test_a_generator_of_batches(self, name: str):
        batches = (batch for batch in oracle.split((X, Y)))
        assert "generator" in self.line(DataError, lambda: MEASURES[name](batches))

    def test_no_batches(self):
        assert "no batch" in self.line(DataError, lambda: MEASURES["lmc"]([]))

    def test_nan_and_infinity_in_the_data(self):
        for value in (np.nan, np.inf):
            bad = X.copy()
            bad[20, 3] = value  # in the last batch
            batches = oracle.split((bad, Y))
            for name in ("llfc", "stitching", "layerwise"):
                message = self.line(DataError, lambda n=name, b=batches: MEASURES[n](b))
                assert "NaN or infinity" in message

    @pytest.mark.parametrize("name", ["lmc", "layerwise"])
    @pytest.mark.parametrize("place", [0, 22])
    def test_labels_outside_the_classes(self, name: str, place: int):
        for label in (-1, 4):
            y = Y.copy()
            y[place] = label
            message = self.line(DataError, lambda y=y: MEASURES[name](oracle.split((X, y))))
            assert "network has 4 classes" in message

    def test_labels_of_another_kind(self):
        assert "integers" in self.line(DataError, lambda: MEASURES["lmc"]([(X, Y / 2)]))
        assert "labels [n]" in self.line(DataError, lambda: MEASURES["lmc"]([(X, Y[:4])]))
        hot = np.eye(4, dtype=np.int32)[Y]
        assert "labels [n]" in self.line(DataError, lambda: MEASURES["lmc"]([(X, hot)]))

    def test_a_batch_that_grows(self):
        batches = [(X[:5], Y[:5]), (X[5:], Y[5:])]
        assert "only the last" in self.line(DataError, lambda: MEASURES["lmc"](batches))

    def test_images_that_do_not_fit_the_network(self):
        message = self.line(GraphError, lambda: MEASURES["llfc"]([(X[:, :5], Y)]))
        assert "does not accept x of shape (23, 5)" in message

    @pytest.mark.parametrize(
        ("alphas", "words"),
        [
            ((), "empty"),
            ((0.5, 1.2), "outside=True"),
            ((-0.1,), "outside=True"),
            ((float("nan"),), "finite"),
            (("half",), "numbers"),
            (None, "numbers"),
        ],
    )
    def test_a_grid_that_is_none(self, alphas: Any, words: str):
        for measure in (measures.llfc, measures.lmc, measures.layerwise_lmc):
            message = self.line(
                ModeError, lambda m=measure: m(APPLY, A, B, [(X, Y)], alphas=alphas)
            )
            assert words in message

    def test_beyond_the_ends_on_demand(self):
        found = measures.lmc(APPLY, A, B, [(X, Y)], alphas=(-0.5, 1.5), outside=True)
        assert found.alphas == (-0.5, 0.0, 0.5, 1.0, 1.5)
        out = oracle.run(oracle.MLP, oracle.mix(1.5, A, B), X)["out"]
        np.testing.assert_allclose(found.loss[-1], oracle.cross_entropy(out, Y), rtol=1e-4)
        assert check_alphas((0.5, 0, 0.5, 1)) == (0.0, 0.5, 1.0)

    def test_two_architectures(self):
        wider = [(np.ones((6, 7), np.float32), A[0][1]), *A[1:]]
        for measure in (measures.llfc, measures.commutativity, measures.layerwise_lmc):
            message = self.line(ModeError, lambda m=measure: m(APPLY, A, wider, [(X, Y)]))
            assert "0/0" in message
            message = self.line(ModeError, lambda m=measure: m(APPLY, A, A[:2], [(X, Y)]))
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
        assert "no ReLU" in message
        message = self.line(
            GraphError,
            lambda: measures.commutativity(lambda w, x: x * w[None], A[0][1][:6], B[0][1][:6],
                                           smooth),
        )  # fmt: skip
        assert "no linear layer" in message

    def test_unknown_options(self):
        batches = [(X, Y)]
        for name in ALONG_ALPHA:
            message = self.line(ModeError, lambda n=name: MEASURES[n](batches, over="vmpa"))
            assert "did you mean 'vmap'" in message
        message = self.line(GraphError, lambda: MEASURES["llfc"](batches, sites="3"))
        assert "unknown site" in message
        message = self.line(ModeError, lambda: MEASURES["lmc"](batches, renormalise="rest"))
        assert "did you mean 'reset'" in message
        with pytest.raises(ModeError, match="form must be"):
            measures.weak_additivity(APPLY, A, B, batches, form="product")  # pyright: ignore
        with pytest.raises(ModeError, match="base must be"):
            measures.layerwise_lmc(APPLY, A, B, batches, base="c")  # pyright: ignore
        with pytest.raises(ModeError, match="holds no parameters"):
            measures.layerwise_lmc(APPLY, A, B, batches, groups={"first": ["7"]})
        with pytest.raises(ModeError, match="1 or more"):
            measures.spectrum(APPLY, A, B, batches, top=0)
