"""A study of the user's own two networks: any framework, any form of data, one answer."""

import functools
import itertools
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import llfc_jax
from llfc_jax import data, networks, training
from llfc_jax.errors import ConfigError, DataError, GraphError, LlfcError, ModeError
from llfc_jax.experiments.settings import EVERY_MEASURE
from llfc_jax.experiments.study import build_settings
from llfc_jax.experiments.study_result import Study
from llfc_jax.pair import interpolate

SIZES = (6, 16, 16, 3)
NAMES = ("first", "second", "third")
ALPHAS = (0.0, 0.25, 0.5, 1.0)


def weights(seed):
    rng = np.random.default_rng(seed)
    return [
        ((rng.normal(size=(n, m)) / np.sqrt(n)).astype("f4"), rng.normal(size=m).astype("f4"))
        for n, m in itertools.pairwise(SIZES)
    ]


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x, train):
        for name, width in zip(NAMES[:2], SIZES[1:], strict=False):
            x = linen.Dropout(0.5, deterministic=not train)(
                linen.relu(linen.Dense(width, name=name)(x))
            )
        return linen.Dense(SIZES[-1], name=NAMES[2])(x)


class Nnx(nnx.Module):
    def __init__(self, rngs):
        for name, n, m in zip(NAMES, SIZES, SIZES[1:], strict=False):
            setattr(self, name, nnx.Linear(n, m, rngs=rngs))
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        x = self.drop(nnx.relu(self.first(x)))
        return self.third(self.drop(nnx.relu(self.second(x))))


class Eqx(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    third: eqx.nn.Linear
    drop: eqx.nn.Dropout

    def __init__(self):
        keys = jax.random.split(jax.random.key(0), 3)
        self.first, self.second, self.third = (
            eqx.nn.Linear(n, m, key=key) for key, n, m in zip(keys, SIZES, SIZES[1:], strict=False)
        )
        self.drop = eqx.nn.Dropout(0.5)

    def __call__(self, x):
        x = self.drop(jax.nn.relu(self.first(x)))
        return self.third(self.drop(jax.nn.relu(self.second(x))))


def of_linen(seed):
    return {
        "params": {
            n: {"kernel": k, "bias": b} for n, (k, b) in zip(NAMES, weights(seed), strict=True)
        }
    }


def of_nnx(seed):
    model = Nnx(nnx.Rngs(seed))
    for name, (kernel, bias) in zip(NAMES, weights(seed), strict=True):
        getattr(model, name).kernel[...] = kernel
        getattr(model, name).bias[...] = bias
    return model


def of_eqx(seed):
    new = [p for kernel, bias in weights(seed) for p in (jnp.asarray(kernel.T), jnp.asarray(bias))]
    places = [(name, part) for name in NAMES for part in ("weight", "bias")]
    return eqx.tree_at(lambda m: [getattr(getattr(m, n), p) for n, p in places], Eqx(), new)


def plain(v, x):
    for kernel, bias in v[:-1]:
        x = jax.nn.relu(x @ kernel + bias[None])
    return x @ v[-1][0] + v[-1][1][None]


@functools.cache
def samples():
    x = np.random.default_rng(9).normal(size=(150, SIZES[0])).astype("f4")
    return x, np.asarray(plain(weights(0), x).argmax(-1))


@functools.cache
def studied(framework):
    network, make = {
        "linen": (llfc_jax.Network.of(Linen(), train=False), of_linen),
        "nnx": (of_nnx(5), of_nnx),
        "equinox": (Eqx(), of_eqx),
        "plain": (plain, weights),
    }[framework]
    a, b = make(0), make(1)
    return (
        a,
        b,
        llfc_jax.study(
            network, a, b, samples(), alphas=ALPHAS, align=("none", "weight"), batch_size=60
        ),
    )


def numbers(study):
    """Everything that was measured, measure by measure, in the order of its rows."""
    found = {}
    for name, rows in study.rows.items():
        for row in rows:
            row = {
                k: v for k, v in row.items() if not isinstance(v, str) or k in ("align", "split")
            }
            found.setdefault(name, []).append([v for v in row.values() if isinstance(v, float)])
    return found


@pytest.mark.parametrize("framework", ["nnx", "equinox", "plain"])
@pytest.mark.slow
def test_the_same_weights_in_another_framework_give_the_same_numbers(framework):
    expected, found = numbers(studied("linen")[2]), numbers(studied(framework)[2])
    assert expected.keys() == found.keys() == set(EVERY_MEASURE)
    for name in expected:
        assert len(expected[name]) == len(found[name])
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-3, atol=2e-4, err_msg=name)


@pytest.mark.slow
def test_haiku_transforms_with_and_without_state():
    hk = pytest.importorskip("haiku")

    def forward(x, training=False, normalised=False):
        for width in SIZES[1:-1]:
            x = hk.Linear(width)(x)
            if normalised:
                x = hk.BatchNorm(True, True, 0.9)(x, training)
            x = jax.nn.relu(x)
        return hk.Linear(SIZES[-1])(x)

    x, y = samples()
    keys = jax.random.key(0), jax.random.key(1)
    for made in (hk.transform(forward), hk.without_apply_rng(hk.transform(forward))):
        a, b = (made.init(key, x) for key in keys)
        curve = llfc_jax.study(made, a, b, (x, y), measures=["lmc"], alphas=ALPHAS).rows["lmc"]
        direct = hk.without_apply_rng(hk.transform(forward)).apply(interpolate(a, b, 0.25), x)
        right = float((np.asarray(direct).argmax(-1) == y).mean())
        assert [r["accuracy"] for r in curve if r["alpha"] == 0.25] == [pytest.approx(right)]
    made = hk.transform_with_state(functools.partial(forward, normalised=True))
    a, b = (made.init(key, x, True) for key in keys)
    found = llfc_jax.study(made, a, b, (x, y), measures=["lmc"], align=("weight",))
    assert made.apply(*found.aligned["pair", "weight"].model, None, x)[0].shape == (150, 3)


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["linen", "nnx", "equinox"])
def test_the_aligned_network_comes_back_in_its_own_form_and_computes_the_same(framework):
    _, b, study = studied(framework)
    model = study.aligned["pair", "weight"].model
    x = samples()[0]
    run = {
        "linen": lambda m: Linen().apply(m, x, train=False),
        "nnx": lambda m: nnx.view(m, deterministic=True)(x),
        "equinox": lambda m: jax.vmap(eqx.nn.inference_mode(m))(x),
    }[framework]
    assert jax.tree.structure(model) == jax.tree.structure(b) or framework == "nnx"
    assert type(model) is type(b)
    np.testing.assert_allclose(run(model), run(b), atol=1e-5)


def test_shuffled_hidden_units_are_put_back():
    a, rng = weights(0), np.random.default_rng(0)
    b = [list(layer) for layer in a]
    for i, width in enumerate(SIZES[1:-1]):
        order = rng.permutation(width)
        b[i] = [part[..., order] for part in b[i]]
        b[i + 1][0] = b[i + 1][0][order]
    b = [tuple(layer) for layer in b]
    study = llfc_jax.study(
        plain, a, b, samples(), measures=["lmc"], align=("none", "weight", "activation")
    )
    barriers = {row["align"]: row["loss_barrier"] for row in study.summary}
    assert barriers["none"] > 0.1
    assert abs(barriers["weight"]) < 1e-5
    assert abs(barriers["activation"]) < 1e-5
    for ours, theirs in zip(
        jax.tree.leaves(study.aligned["pair", "weight"].model), jax.tree.leaves(a), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["batches", "dataset", "train and test"])
def test_data_in_any_form_give_the_same_curve(form):
    a, b, study = studied("plain")
    x, y = samples()
    split = data.Split(x, y.astype("i4"))
    forms = {
        "batches": [(x[i : i + 50], y[i : i + 50]) for i in range(0, 150, 50)],
        "dataset": data.Dataset("mine", split, split, 3, (0.0,), (1.0,)),
        "train and test": (x, y),
    }
    found = llfc_jax.study(
        plain, a, b, forms[form], alphas=ALPHAS, measures=["lmc"],
        train=(x[:70], y[:70]) if form == "train and test" else None,
    )  # fmt: skip
    splits = {"batches": {"test"}}.get(form, {"train", "test"})
    assert {r["split"] for r in found.rows["lmc"]} == splits
    wanted = [r["loss"] for r in study.rows["lmc"] if r["align"] == "none"]
    curve = [r["loss"] for r in found.rows["lmc"] if r["split"] == "test"]
    np.testing.assert_allclose(curve, wanted, rtol=1e-5)


def test_a_working_directory_takes_the_report_and_a_second_study_measures_nothing(
    tmp_path, monkeypatch
):
    a, b, _ = studied("plain")
    ask = functools.partial(
        llfc_jax.study, plain, a, b, samples(), measures=["lmc", "llfc"], align=("none", "weight"),
        workdir=tmp_path,
    )  # fmt: skip
    found = ask()
    page = (tmp_path / "report.html").read_text()
    assert "pair aligned by weight" in page.replace("<code>", "").replace("</code>", "")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["study"]["measures"] == ["lmc", "llfc"]
    assert summary["environment"]["jax"] == jax.__version__
    from llfc_jax.experiments import evaluate

    monkeypatch.setattr(evaluate.PairEvaluator, "measure", None)
    monkeypatch.setattr(evaluate.matching, "align", None)
    assert ask().summary == found.summary
    with pytest.raises(LlfcError, match=r"another experiment.*modes"):
        llfc_jax.study(plain, a, a, samples(), workdir=tmp_path)


def test_what_it_says_in_print_in_a_notebook_and_in_pictures():
    *_, study = studied("plain")
    assert str(study).splitlines()[0].startswith("pair")
    assert "`" not in str(study)
    assert "<table" in study._repr_html_()
    assert study.plot("llfc_layers").to_dict()
    with pytest.raises(DataError, match="did you mean 'llfc_layers'"):
        study.plot("llfc_layer")


def test_studies_add_up_to_one_page(tmp_path):
    a, b, _ = studied("plain")
    one, other = (
        llfc_jax.study(plain, a, c, samples(), measures=["lmc"], name=name)
        for c, name in ((b, "apart"), (a, "same"))
    )
    both = one + other
    assert [row["pair"] for row in both.summary] == ["apart", "same"]
    assert both.summary[0] == one.summary[0]
    assert len(both.rows["lmc"]) == 2 * len(one.rows["lmc"])
    page = both.write(tmp_path).read_text()
    assert "apart" in page
    assert "same" in page


def test_numbers_may_be_those_of_numpy_and_jax():
    a, b, _ = studied("plain")
    plainly = {"alphas": (0.0, 0.5, 1.0), "seed": 1, "batch_size": 50}
    arrays = {"alphas": jnp.linspace(0, 1, 3), "seed": np.int64(1), "batch_size": np.int32(50)}
    one, other = (
        llfc_jax.study(plain, a, b, samples(), measures="lmc", **given)
        for given in (plainly, arrays)
    )
    assert one.rows == other.rows


def test_progress_is_told():
    told = []
    a, b, _ = studied("plain")
    llfc_jax.study(
        plain, a, b, samples(), measures=["lmc"], batch_size=50, progress=lambda *t: told.append(t)
    )
    assert [t[:2] for t in told] == [(1, 3), (2, 3), (3, 3), (1, 1)]
    assert told[-1][2] == "all pairs: pair"
    assert "pair, test" in told[0][2]


X, Y = samples()


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"network": 3}, GraphError, "a int is no network"),
        ({"network": Linen()}, ModeError, "{'params': ...}"),
        ({"b": weights(1)[:2]}, ModeError, "not modes of one network"),
        ({"b": [(k[:, :2], v[:2]) for k, v in weights(1)]}, ModeError, "differ at 0/0"),
        ({"b": jax.tree.map(lambda w: w * np.nan, weights(1))}, ModeError, "NaN"),
        ({"data": (X[:, :4], Y)}, GraphError, "does not accept x"),
        ({"data": (X, Y + 3)}, DataError, "3 classes"),
        ({"data": (X, Y[:7])}, DataError, "labels [n]; got"),
        ({"data": (X, np.eye(3)[Y])}, DataError, "labels.argmax(-1)"),
        ({"data": ((X, Y) for _ in range(2))}, DataError, "generator"),
        ({"data": []}, DataError, "no batch"),
        ({"data": 5}, DataError, "a int"),
        ({"data": {"x": X}}, DataError, "an entry 'labels'"),
        ({"network": lambda v, x: plain(v, x).sum(-1)}, GraphError, "logits"),
        ({"network": lambda v, x, train: plain(v, x)}, GraphError, "argument: 'train'"),
        ({"measures": ["lcm"]}, ConfigError, "did you mean 'lmc'"),
        ({"measures": "lcm"}, ConfigError, "did you mean 'lmc'"),
        ({"align": ["wieght"]}, ConfigError, "did you mean 'weight'"),
        ({"match": {"weight": {"restart": 2}}}, ConfigError, "did you mean 'restarts'"),
        ({"alphas": [2.0]}, ConfigError, "alphas"),
        ({"sites": "Dense_0"}, GraphError, "site"),
        ({"renormalise": "reset", "measures": ["layerwise"]}, ConfigError, "no `renormalise`"),
        ({"renormalise": "reset", "measures": "lmc"}, LlfcError, "BatchNorm"),
        ({"batch_size": 0}, ConfigError, "batch_size"),
        ({"batch_size": "x"}, ConfigError, "batch_size must be int, not 'x'"),
        ({"batch_size": 2.5}, ConfigError, "batch_size must be int, not 2.5"),
        ({"sites": 3}, ConfigError, "sites must be"),
        ({"align": 3}, ConfigError, "align must be"),
        ({"alphas": 0.5}, ConfigError, "alphas must be"),
        ({"match": 3}, ConfigError, "match must be"),
        ({"seed": "q"}, ConfigError, "seed must be int, not 'q'"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_mistake_is_one_line(given, kind, words):
    call = {"network": plain, "a": weights(0), "b": weights(1), "data": (X, Y)} | given
    with pytest.raises(kind) as caught:
        llfc_jax.study(**call)
    assert "\n" not in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.slow
def test_a_vision_transformer_is_studied_and_matched_with_its_heads():
    dataset = data.load("digits", train_size=900, test_size=300)
    module = networks.build("vit", 10, patch=2, dim=16, depth=1, heads=2, mlp_dim=32)
    recipe = training.Recipe(
        epochs=12, batch_size=50, optimizer="adam", learning_rate=5e-3, schedule="constant",
        weight_decay=0.0,
    )  # fmt: skip
    pair = training.train_pairs(module, dataset, recipe, ("independent",))["independent"]
    study = llfc_jax.study(
        module, pair.a, pair.b, dataset, measures=["lmc", "llfc"], align=("none", "weight"),
        sites=("linear",),
    )  # fmt: skip
    before, after = study.summary
    assert max(before["error_a"], before["error_b"]) < 0.3
    assert after["loss_barrier"] < before["loss_barrier"]
    aligned = study.aligned["pair", "weight"]
    assert any(group.parent for group in aligned.spec.groups)  # widths inside the heads
    x = next(iter(data.Batches(dataset.test, dataset, 100)))[0]
    np.testing.assert_allclose(
        module.apply(aligned.variables, x), module.apply(pair.b, x), atol=1e-4
    )
    layers = {r["layer"] for r in study.rows["llfc"]}
    assert {"block0/attention/query", "block0/attention/out"} <= layers


def test_of_the_default_measures_those_are_left_out_that_cannot_honour_an_option(tmp_path):
    settings = build_settings(EVERY_MEASURE, "none", {}, 0, None, {"renormalise": "reset"})
    assert settings.measures == tuple(name for name in EVERY_MEASURE if name != "layerwise")
    assert list(settings.left_out) == ["layerwise"]
    assert "layerwise is left out: layerwise has no `renormalise`" in settings.left_out["layerwise"]
    plain = build_settings(EVERY_MEASURE, "none", {}, 0, None, {})
    assert (plain.measures, plain.left_out) == (EVERY_MEASURE, {})
    few = build_settings(["lmc"], "none", {}, 0, None, {"renormalise": "reset"})
    assert (few.measures, few.left_out) == (("lmc",), {})
    study = Study([], {"verdict": "verdict"}, {}, {}, notes=list(settings.left_out.values()))
    assert str(study) == (study + study).notes[0].replace("`", "")
    study.write(tmp_path)
    assert Study.read(tmp_path).notes == study.notes
