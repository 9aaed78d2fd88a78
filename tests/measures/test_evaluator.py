"""A pair under evaluation: one trace, one program, one set of forward passes; options; modules."""

import dataclasses
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from flax import linen as nn

from llfc_jax import measures
from llfc_jax.errors import ConfigError, GraphError, ModeError
from llfc_jax.measures import evaluator
from llfc_jax.measures.batch import compiled

APPLY = oracle.network(oracle.MLP)
A, B = (oracle.weights(oracle.MLP, seed) for seed in (0, 1))
X, Y = oracle.data(oracle.MLP, 24)
BATCHES = oracle.split((X, Y))  # 3 of 8
SHARED = ("lmc", "llfc", "ensemble", "weak_additivity", "theorem1")
OPTIONS = measures.EvalOptions(alphas=oracle.ALPHAS)


def counting_network() -> tuple[Any, list[int]]:
    """The network, and a list that grows whenever its output layer is run."""
    runs: list[int] = []

    def note(logits: np.ndarray) -> np.ndarray:
        runs.append(1)
        return logits

    def apply(w: Any, x: Any) -> Any:
        logits = APPLY(w, x)
        shape = jax.ShapeDtypeStruct(logits.shape, logits.dtype)
        return jax.pure_callback(note, shape, logits, vmap_method="sequential")

    return apply, runs


def count_programs():
    return sum(compiled(quickly)._cache_size() for quickly in (False, True))


class TestOnePass:
    """Five measures cost the forward passes and the compilation of one."""

    def test_the_network_runs_once_for_every_alpha_and_compiles_once(self):
        apply, runs = counting_network()
        before = count_programs()
        pair = measures.PairEvaluator(apply, A, B, BATCHES, OPTIONS)
        found = pair.measure(measures.build_all(SHARED, OPTIONS))
        assert set(found) == set(SHARED)
        assert len(runs) == len(BATCHES) * len(oracle.ALPHAS)
        assert count_programs() - before == 1

        runs.clear()
        pair.measure(measures.build_all(SHARED, OPTIONS))
        swapped = measures.PairEvaluator(apply, B, A, BATCHES, OPTIONS)
        swapped.measure(measures.build_all(SHARED, OPTIONS))
        assert len(runs) == 2 * len(BATCHES) * len(oracle.ALPHAS)
        assert count_programs() - before == 1  # the pair is no part of the program

    def test_only_a_short_pass_is_compiled_quickly_and_the_numbers_are_the_same(self, monkeypatch):
        found = []
        for quickly, short in ((True, evaluator.SHORT), (False, 0)):
            monkeypatch.setattr(evaluator, "SHORT", short)
            apply, _ = counting_network()
            before = compiled(quickly)._cache_size()
            pair = measures.PairEvaluator(apply, A, B, BATCHES, OPTIONS)
            found.append(pair.measure([measures.build("lmc")])["lmc"])
            assert compiled(quickly)._cache_size() - before == 1
        np.testing.assert_allclose(found[0].loss, found[1].loss, rtol=1e-5)

    def test_the_network_is_traced_once(self):
        traces = []

        def apply(w: Any, x: Any) -> Any:
            traces.append(x.shape)
            return APPLY(w, x)

        options = dataclasses.replace(OPTIONS, alpha_loop="map")
        pair = measures.PairEvaluator(apply, A, B, BATCHES, options)
        before = len(traces)
        assert before == 1  # the samples' axes are read off the same trace
        for names in (("lmc",), ("lmc", "ensemble"), ("stitching", "layerwise")):
            pair.measure(measures.build_all(names, OPTIONS))
        assert len(traces) == before

    def test_layerwise_does_not_run_its_base_again(self):
        apply, runs = counting_network()
        pair = measures.PairEvaluator(apply, A, B, BATCHES, OPTIONS)
        pair.measure([measures.Layerwise()])
        layers, base = 3, 1
        assert len(runs) == len(BATCHES) * (layers * (len(oracle.ALPHAS) - 1) + base)

    def test_together_and_alone_give_the_same(self):
        pair = measures.PairEvaluator(APPLY, A, B, BATCHES, OPTIONS)
        together = pair.measure(measures.build_all(("lmc", "ensemble", "layerwise"), OPTIONS))
        for name, found in together.items():
            alone = pair.measure([measures.build(name)])[name]
            for p, q in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
                np.testing.assert_allclose(p, q, rtol=1e-6, atol=1e-9)

    def test_stitched_networks_in_several_programs(self, monkeypatch: pytest.MonkeyPatch):
        pair = measures.PairEvaluator(APPLY, A, B, BATCHES, OPTIONS)
        one = pair.measure([measures.Stitching()])["stitching"]
        module = importlib.import_module("llfc_jax.measures.stitching")
        monkeypatch.setattr(module, "BUDGET", 10)
        assert len(measures.Stitching().parts(pair.graph, one.layers)) > 1
        many = pair.measure([measures.Stitching()])["stitching"]
        assert many.layers == one.layers
        np.testing.assert_allclose(many.loss, one.loss, rtol=1e-6)


class TestMiddle:
    """Numbers at α = ½ are there on any grid, and the same on all of them."""

    def test_summary_numbers_do_not_depend_on_the_grid(self):
        names = ("llfc", "weak_additivity", "theorem1")
        found = []
        for alphas in ((0.0, 0.1, 1.0), (0.02,)):
            options = dataclasses.replace(OPTIONS, alphas=alphas)
            pair = measures.PairEvaluator(APPLY, A, B, BATCHES, options)
            results = pair.measure(measures.build_all(names, options))
            for name in names:
                assert results[name].alphas == tuple(sorted({*alphas, 0.5}))
            found.append({
                key: value
                for name in names
                for key, value in measures.build(name).summary_metrics(results[name]).items()
            })  # fmt: skip
        for other in found[1:]:
            for key, value in found[0].items():
                np.testing.assert_allclose(other[key], value, rtol=1e-5, err_msg=key)

    @pytest.mark.parametrize("name", ["llfc", "ensemble", "weak_additivity", "theorem1", "lmc"])
    def test_the_grid_of_every_measure_holds_it(self, name: str):
        assert 0.5 in measures.build(name).grid((0.2,))


class TestOptions:
    def line(self, do: Any, kind: type[Exception] = ConfigError) -> str:
        with pytest.raises(kind) as caught:
            do()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_what_a_measure_cannot_honour_is_refused_by_name(self):
        repaired = measures.EvalOptions(renormalise="repair")
        chosen = [measures.Layerwise(), measures.LMC()]
        for do in (
            lambda: measures.check_options(chosen, repaired),
            lambda: measures.layerwise(APPLY, A, B, BATCHES, renormalise="repair"),
            lambda: measures.layerwise(APPLY, A, B, BATCHES, repaired),
        ):
            assert "layerwise has no `renormalise`" in self.line(do)
        measures.check_options(chosen[1:], repaired)

    @pytest.mark.parametrize(
        ("name", "option"),
        [
            ("commutativity", {"alphas": (0.5,)}),
            ("spectrum", {"sites": "all"}),
            ("lmc", {"sites": "linear"}),
            ("stitching", {"alpha_loop": "map"}),
            ("lmc", {"splits": ("test",)}),
        ],
    )
    def test_what_does_not_bear_on_a_measure_is_refused_by_name(self, name: str, option: Any):
        (field,) = option
        message = self.line(lambda: getattr(measures, name)(APPLY, A, B, BATCHES, **option))
        assert f"{name} has no `{field}`" in message

    def test_names_are_checked_before_any_work(self):
        nothing: Any = object()  # no network, no modes, no data: they are not looked at
        message = self.line(lambda: measures.lmc(nothing, 0, 0, 0, alphsa=(0.5,)))  # pyright: ignore
        assert "did you mean 'alphas'" in message
        message = self.line(lambda: measures.spectrum(nothing, 0, 0, 0, tpo=3))  # pyright: ignore
        assert "did you mean 'top'" in message
        message = self.line(lambda: measures.build("stiching"))
        assert "did you mean 'stitching'" in message
        options = measures.EvalOptions(measure_options={"spectrum": {"rank": 3}})
        message = self.line(lambda: measures.check_options([], options))
        assert "did you mean 'ranks'" in message
        options = measures.EvalOptions(measure_options={"spectra": {}})
        message = self.line(lambda: measures.build_all(["lmc"], options))
        assert "did you mean 'spectrum'" in message
        message = self.line(lambda: measures.check_options([measures.LMC()] * 2, OPTIONS))
        assert "named twice" in message

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("alpha_loop", "vmpa"),
            ("precision", "high-ish"),
            ("renormalise", "rest"),
            ("splits", ("tset",)),
            ("batch_size", 0),
            ("batch_size", 1.5),
            ("sites", ()),
            ("sites", 3),
            ("measure_options", 3),
        ],
    )
    def test_options_check_themselves(self, field: str, value: Any):
        assert field[:5] in self.line(lambda: measures.EvalOptions(**{field: value}))

    def test_own_options_come_from_either_place(self):
        options = measures.EvalOptions(measure_options={"spectrum": {"top": 2, "ranks": 3}})
        found = measures.spectrum(APPLY, A, B, BATCHES, options)
        assert (found.top, len(found.ranks)) == (2, 3)
        assert measures.spectrum(APPLY, A, B, BATCHES, options, top=1).top == 1

    def test_measures_are_hashable_and_check_their_fields(self):
        assert hash(measures.Layerwise(groups={"all": ["0", "1"]}))
        assert measures.build("stitching", sites=["0", "1"]).sites == ("0", "1")
        self.line(lambda: measures.Spectrum(top="five"))  # pyright: ignore
        self.line(lambda: measures.WeakAdditivity(form="product"))  # pyright: ignore


class TestFrameworks:
    def test_a_module_and_its_variables(self):
        class Net(nn.Module):
            @nn.compact
            def __call__(self, x: Any) -> Any:
                return nn.Dense(4)(nn.relu(nn.Dense(5)(x)))

        net = Net()
        a, b = (net.init(jax.random.key(seed), X) for seed in (0, 1))
        by_module, by_function = (
            measures.lmc(n, a, b, BATCHES, alphas=(0.5,)) for n in (net, net.apply)
        )
        np.testing.assert_allclose(by_module.loss, by_function.loss)
        with pytest.raises(ModeError, match="params"):
            measures.lmc(net, a["params"], b["params"], BATCHES)
        with pytest.raises(GraphError, match="no network"):
            measures.lmc(3, a, b, BATCHES)


class Residual:
    """x W_in, a residual branch, an output layer; written out, so that cuts are known."""

    @staticmethod
    def apply(v: Any, x: Any) -> Any:
        h = x @ v["in"]
        h = jax.nn.relu(h + jax.nn.relu(h @ v["up"]) @ v["down"])
        return h @ v["out"]

    @staticmethod
    def end(seed: int) -> Any:
        rng = np.random.default_rng(seed)
        sizes = {"in": (6, 8), "up": (8, 8), "down": (8, 8), "out": (8, 4)}
        return {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in sizes.items()}


class TestCuts:
    a, b = Residual.end(0), Residual.end(1)

    def test_stitching_cuts_the_network_and_nothing_else(self):
        found = measures.stitching(Residual.apply, self.a, self.b, BATCHES)
        assert found.layers == ("in", "down.relu", "out")
        assert np.asarray(found.cuts).all()
        a, b = (jax.tree.map(lambda p: np.asarray(p, float), v) for v in (self.a, self.b))
        h = X @ a["in"]
        block = np.maximum(h + np.maximum(h @ a["up"], 0) @ a["down"], 0)
        expected = oracle.cross_entropy(block @ b["out"], Y)
        np.testing.assert_allclose(found.loss[1, 0], expected, rtol=1e-5)

    def test_sites_inside_a_branch_on_request_and_said_so(self):
        found = measures.stitching(Residual.apply, self.a, self.b, BATCHES, sites="linear")
        cuts = dict(zip(found.layers, np.asarray(found.cuts).tolist(), strict=True))
        assert cuts == {"in": True, "up": False, "down": False, "out": True}
        with pytest.raises(GraphError, match="cuts the network"):
            measures.stitching(
                Residual.apply, self.a, self.b, BATCHES, measures.EvalOptions(sites=("up", "down"))
            )

    def test_layerwise_walks_a_branch_as_a_whole(self):
        found = measures.layerwise(Residual.apply, self.a, self.b, BATCHES, alphas=(0.5,))
        assert found.layers == ("in", "up..down", "out")
        assert np.asarray(found.cuts).all()
        mixed = self.a | {k: (self.a[k] + self.b[k]) / 2 for k in ("up", "down")}
        logits = np.asarray(Residual.apply(mixed, X), float)
        middle = found.alphas.index(0.5)
        np.testing.assert_allclose(
            found.loss[1, middle], oracle.cross_entropy(logits, Y), rtol=1e-4
        )
        single = measures.layerwise(
            Residual.apply, self.a, self.b, BATCHES, alphas=(0.5,), sites="linear"
        )
        cuts = dict(zip(single.layers, np.asarray(single.cuts).tolist(), strict=True))
        assert cuts == {"in": True, "up": False, "down": False, "out": True}


def test_theorem1_counts_a_max_pool_as_inherited():
    """No condition fails, and yet there is an error: the pool is no part of the theorem."""

    def apply(v: Any, x: Any) -> Any:
        x = x[:, :, None] @ v["first"]  # [n, positions, channels]
        pooled = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 1), (1, 2, 1), "VALID")
        return pooled.reshape(len(x), -1) @ v["last"]

    rng = np.random.default_rng(0)
    last = rng.normal(size=(9, 4)).astype(np.float32)
    a, b = ({"first": rng.normal(size=(1, 3)).astype(np.float32), "last": last} for _ in range(2))
    found = measures.theorem1(apply, a, b, BATCHES, alphas=(0.5,))
    assert np.asarray(found.added).max() < 1e-6
    assert found.inherited[-1, 0] > 0.05
    assert "Max-pooling" in measures.Theorem1.section.text


class TestTypes:
    """Narrow networks are measured in float32: the ends are those of the rounded networks."""

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.float8_e4m3fn])
    def test_every_measure_of_a_narrow_pair(self, dtype: Any):
        def apply(w: Any, x: Any) -> Any:  # weights are stored narrow, computed with in float32
            return APPLY(jax.tree.map(lambda p: p.astype(jnp.float32), w), x)

        narrow, rounded = [], []
        for w in (A, B):
            narrow.append(jax.tree.map(lambda p: jnp.asarray(p).astype(dtype), w))
            rounded.append(jax.tree.map(lambda p: p.astype(jnp.float32), narrow[-1]))
        names = ("commutativity", "stitching")
        one, two = (
            measures.PairEvaluator(f, *w, BATCHES, OPTIONS).measure(
                measures.build_all(names, OPTIONS)
            )
            for f, w in ((apply, narrow), (APPLY, rounded))
        )
        for name in names:
            for p, q in zip(jax.tree.leaves(one[name]), jax.tree.leaves(two[name]), strict=True):
                np.testing.assert_allclose(p, q, rtol=1e-5, atol=1e-7)

    def test_commutativity_of_bfloat16_layers_is_exact_to_their_weights(self):
        low = [jax.tree.map(lambda p: jnp.asarray(p, jnp.bfloat16), w) for w in (A, B)]
        coarse = [(jnp.asarray(x, jnp.bfloat16), y) for x, y in BATCHES]
        found = measures.commutativity(APPLY, *low, coarse)
        x = np.asarray(jnp.asarray(X, jnp.bfloat16), float)
        # The first layer's inputs are alike, so it commutes exactly; in bfloat16 it would not.
        assert found.dist_com[0] < 1e-12
        wa, wb = (np.asarray(w[0][0], float) for w in low)
        gap = ((wa - wb) ** 2).sum() / np.linalg.norm(wa) / np.linalg.norm(wb)
        np.testing.assert_allclose(found.dist_w[0], gap, rtol=1e-6)
        assert x.shape == X.shape
