"""Strange models: merged rightly, or refused in one line before any long work."""

import copy
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import linen, nnx

from llfc_jax import merging
from llfc_jax.errors import MatchingError, MergeError, ModeError
from llfc_jax.merging import InputGram, MergeOptions, merge
from llfc_jax.symmetry import permutation_spec

BF16 = np.dtype(ml_dtypes.bfloat16)


def models(count=2, **shapes):
    rng = np.random.default_rng(0)
    shapes = shapes or {"body": (4, 3), "head": (3, 2)}
    return [
        {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(count)
    ]


def refused(words, *args, **kwargs):
    with pytest.raises(MergeError, match=words) as found:
        merge(*args, **kwargs)
    assert "\n" not in str(found.value)


class Unreadable:
    """A leaf that must not be read."""

    def __init__(self, shape):
        self.shape, self.dtype = shape, np.dtype(np.float32)

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("read")


def test_missing_leaves_are_refused_before_anything_is_read():
    a = {"body": Unreadable((4, 3)), "head": Unreadable((3, 2))}
    refused(r"models\[1\] lacks head, which models\[0\] has", [a, {"body": a["body"]}])
    refused(r"models\[1\] has head, which models\[0\] lacks", [{"body": a["body"]}, a])
    refused("the base lacks head", [a, a], {"body": a["body"]}, "ties")
    refused("pass base=", [a, a], rule="ties")
    refused("needs statistics=", [a, a], rule="fisher")
    refused(r"head has shape \(3, 2\) in models\[0\] and \(3, 5\)",
            [a, {**a, "head": Unreadable((3, 5))}])  # fmt: skip


def test_missing_leaves_by_choice():
    a, b = models()
    c = {"body": a["body"] + 1}
    first = merge([a, b, c], options=MergeOptions(missing="first"))
    assert first["head"] is a["head"]
    np.testing.assert_allclose(first["body"], (a["body"] + b["body"] + c["body"]) / 3, rtol=1e-6)
    present = merge([a, b, c], options=MergeOptions(missing="present"))
    np.testing.assert_allclose(present["head"], (a["head"] + b["head"]) / 2, rtol=1e-6)
    weighted = merge(
        [a, c, b], rule="weighted", weights=(1, 5, 3), options=MergeOptions(missing="present")
    )
    np.testing.assert_allclose(weighted["head"], (a["head"] + 3 * b["head"]) / 4, rtol=1e-6)
    assert set(merge([c, a], options=MergeOptions(missing="first"))) == {"body"}
    tasks = merge([a, b], c, "task_arithmetic", options=MergeOptions(missing="present"))
    assert tasks["head"] is a["head"]
    options = MergeOptions(missing="present")
    refused("compares whole models", [a, b, c], rule="karcher", scope="model", options=options)
    for rule in ("karcher", "geometric_median", "ties", "della"):
        found = merge([a, c, b], a, rule, options=options)
        expected = merge([a, b], a, rule, options=options)
        if rule != "della":
            np.testing.assert_allclose(found["head"], expected["head"], rtol=1e-6)


def test_lora_factors_get_advice_of_their_own():
    a, b = models()
    b["layer.lora_A.weight"] = np.ones((2, 3), np.float32)
    refused("fold the LoRA factors into the weights", [a, b])


@pytest.mark.parametrize("pattern", ["head", "he*", "*ad"])
def test_skipped_leaves_are_the_bases_or_the_firsts(pattern):
    (a, b, base), options = models(3), MergeOptions(skip=(pattern,))
    b["head"] = np.ones((3, 7), np.float32)  # another task's head
    assert merge([a, b], options=options)["head"] is a["head"]
    assert merge([a, b], base, "ties", options=options)["head"] is base["head"]
    base["head"] = np.ones((3, 9), np.float32)
    assert merge([a, b], base, "ties", options=options)["head"] is a["head"]
    del b["head"], base["head"]
    assert merge([a, b], base, "ties", options=options)["head"] is a["head"]


def test_patterns_reach_into_modules_and_are_checked():
    tree = {"params": {"head": {"kernel": np.ones(3), "bias": np.ones(2)}, "body": np.ones(2)}}
    other = jax.tree.map(lambda leaf: 3 * leaf, tree)
    found = merge([tree, other], options=MergeOptions(skip=("params/head",)))
    assert found["params"]["head"] == tree["params"]["head"]
    np.testing.assert_array_equal(found["params"]["body"], 2)
    dotted = [{"lm_head.weight": np.full(2, x), "w": np.full(2, x)} for x in (1.0, 3.0)]
    found = merge(dotted, options=MergeOptions(skip=("lm_head",)))
    np.testing.assert_array_equal(found["lm_head.weight"], 1)
    refused("did you mean 'params/body'", [tree, other], options=MergeOptions(skip=("params/bdy",)))
    refused("no leaf is left", [tree, other], options=MergeOptions(skip=("*",)))


def test_vocabularies_of_other_sizes():
    rng = np.random.default_rng(1)
    small, large = (
        {"embed": rng.normal(size=(n, 4)).astype(np.float32), "out": rng.normal(size=(4, n))}
        for n in (32_000, 32_002)
    )
    refused(r"embed has shape \(32000, 4\).*sizes='common'", [small, large])
    options = MergeOptions(sizes="common")
    for first, other in ((small, large), (large, small)):
        found = merge([first, other], options=options)
        mean = (small["embed"] + large["embed"][:32_000]) / 2
        np.testing.assert_allclose(found["embed"][:32_000], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found["embed"][32_000:], first["embed"][32_000:])
        assert found["out"].shape == first["out"].shape
    both = [{"w": np.ones((3, 4))}, {"w": np.ones((4, 5))}]
    refused("name it in skip$", both, options=options)
    fishers = [jax.tree.map(np.ones_like, tree) for tree in (small, large)]
    found = merge([large, small], rule="fisher", statistics=fishers[::-1], options=options)
    np.testing.assert_allclose(found["embed"][:32_000], mean, rtol=1e-5, atol=1e-6)
    device = [jax.tree.map(jnp.asarray, tree) for tree in (large, small)]
    again = jax.jit(lambda trees: merge(trees, options=options))(device)
    np.testing.assert_allclose(again["embed"], merge([large, small], options=options)["embed"],
                               rtol=1e-5, atol=1e-6)  # fmt: skip


def test_integers_are_kept_where_equal_and_refused_where_not():
    a, b = ({"w": np.ones(3), "step": np.int32(n), "ids": np.arange(4), "on": np.array(True)}
            for n in (1, 2))  # fmt: skip
    found = merge([a, b])
    assert found["step"] == 1
    assert found["ids"] is a["ids"]
    b["ids"] = np.arange(4)[::-1]
    refused("ids holds integers that differ", [a, b])
    assert merge([a, b], options=MergeOptions(skip=("ids",)))["ids"] is a["ids"]
    quantised = [{"w": np.ones(3)}, {"w": np.ones(3, np.int8)}]
    refused("integers elsewhere; dequantise", quantised)
    assert merge([{"w": np.ones(2), "key": jax.random.key(i)} for i in range(2)])["key"].shape == ()


@pytest.mark.parametrize("library", [np, jnp])
@pytest.mark.parametrize("rule", ["mean", "dare", "ties"])
def test_tied_weights_stay_tied(library, rule):
    trees = []
    for tree in models(3, embed=(6, 2), body=(2, 2)):
        leaf = library.asarray(tree["embed"])
        trees.append({"embed": leaf, "body": library.asarray(tree["body"]), "out": leaf})
    found = merge(trees[1:], trees[0], rule)
    assert found["embed"] is found["out"]
    alone = [{k: v for k, v in tree.items() if k != "out"} for tree in trees]
    expected = merge(alone[1:], alone[0], rule)  # a tied leaf counts once
    np.testing.assert_array_equal(found["embed"], expected["embed"])
    untied = [{**tree, "out": copy.copy(tree["out"])} for tree in trees]
    assert merge(untied[1:], untied[0], rule)["embed"] is not found["out"]


@pytest.mark.parametrize("dtype", [BF16, np.float16, np.float32, np.float64, "f8"])
@pytest.mark.parametrize("library", [np, jnp])
def test_leaves_keep_their_type_and_are_merged_in_a_wider_one(dtype, library):
    dtype = ml_dtypes.float8_e4m3fn if dtype == "f8" else dtype
    if library is jnp and dtype is np.float64:
        pytest.skip("x64 is off")
    rng = np.random.default_rng(2)
    given = [library.asarray(rng.normal(size=64).astype(dtype)) for _ in range(8)]
    found = merge([{"w": leaf} for leaf in given])["w"]
    assert found.dtype == dtype
    assert isinstance(found, jax.Array) == (library is jnp)
    exact = np.mean([np.asarray(leaf).astype(np.float64) for leaf in given], 0)
    if found.dtype.itemsize < 4:  # rounded once, from float32
        exact = exact.astype(np.float32).astype(dtype)
        np.testing.assert_array_equal(np.asarray(found, np.float32), exact.astype(np.float32))
    np.testing.assert_allclose(np.asarray(found, np.float64), exact.astype(np.float64), atol=1e-6)


def test_types_may_differ_between_models():
    a, b = {"w": np.ones(3, BF16)}, {"w": np.full(3, 2.0)}
    assert merge([a, b])["w"].dtype == BF16
    assert merge([b, a])["w"].dtype == np.float64
    np.testing.assert_array_equal(merge([b, a])["w"], 1.5)


def test_float16_near_its_limit():
    a, b = ({"w": np.array([x], np.float16)} for x in (65_000, 65_504))
    assert merge([a, b])["w"] == np.float16(65_252)
    base = {"w": np.array([0], np.float16)}
    refused("w reaches 1.305e.05 when merged, beyond the 6.55e.04 of float16; lower the rule's "
            "scale", [a, b], base, "task_arithmetic")  # fmt: skip
    refused("beyond", [jax.tree.map(jnp.asarray, t) for t in (a, b)], base, "task_arithmetic")
    small = [{"w": np.array([x], np.float16)} for x in (6e-8, 1.2e-7)]  # subnormal
    assert merge(small)["w"] > 0


def test_nan_is_named_and_masks_pass():
    a, b = models()
    b["head"][1, 1] = np.nan
    for rule in ("mean", "ties", "geometric_median", "della"):
        refused(r"models\[1\] holds NaN or infinity at head: did it diverge", [a, b], a, rule)
    refused("the base holds NaN", [a, a], b, "ties")
    mask = np.where(np.tri(3), 0, -np.inf).astype(np.float32)
    x, y = ({"mask": mask.copy(), "w": np.full(2, v, np.float32)} for v in (1, 3))
    for rule in ("mean", "slerp", "geometric_median", "ties", "karcher", "breadcrumbs"):
        for library in (np, jnp):
            p, q = (jax.tree.map(library.asarray, tree) for tree in (x, y))
            np.testing.assert_array_equal(merge([p, q], x, rule)["mask"], mask)
    y["mask"] = np.zeros((3, 3), np.float32)
    refused(r"models\[0\] holds NaN or infinity at mask", [x, y])


def test_empty_scalar_and_zero_leaves():
    tree = {"none": np.zeros((0, 3), np.float32), "zero": np.zeros(4, np.float32),
            "scale": np.float32(2), "plain": 3.0}  # fmt: skip
    other = {**tree, "scale": np.float32(4), "plain": 5.0}
    for rule in merging.RULES:
        if merging.RULES[rule].needs_statistics or rule in ("git_rebasin", "c2m3"):
            continue
        options = {"weighted": {"weights": (1, 1)}, "ties": {"density": 1.0}}.get(rule, {})
        if rule == "greedy_soup":
            options = {"evaluate": lambda _: 0.0}
        found = merge([tree, other], tree, rule, **options)
        assert found["none"].shape == (0, 3)
        assert (found["zero"] == 0).all()
        assert np.isfinite(found["scale"])
        if rule in ("mean", "weighted", "slerp", "karcher", "greedy_soup", "geometric_median"):
            assert found["scale"] == pytest.approx(3)
            assert found["plain"] == pytest.approx(4)


def test_trees_of_any_kind():
    class Pair(NamedTuple):
        first: np.ndarray
        second: list

    trees = [Pair(np.full(2, x), [np.full(1, x), None, {"k": np.full(3, x)}]) for x in (1.0, 3.0)]
    found = merge(trees)
    assert isinstance(found, Pair)
    np.testing.assert_array_equal(found.second[2]["k"], 2)
    assert (merge([np.ones(2), 3 * np.ones(2)]) == 2).all()
    net = linen.Dense(2)
    linen_ = [net.init(jax.random.key(i), np.ones((1, 3))) for i in range(2)]
    kernel = merge(linen_, network=net)["params"]["kernel"]
    np.testing.assert_allclose(kernel, sum(v["params"]["kernel"] for v in linen_) / 2, atol=1e-6)
    modules = [nnx.Linear(3, 2, rngs=nnx.Rngs(i)) for i in range(2)]
    found = merge(modules, network=modules[0])
    np.testing.assert_allclose(
        found["kernel"][...], (modules[0].kernel[...] + modules[1].kernel[...]) / 2, rtol=1e-6
    )


def test_equinox_modules():
    eqx = pytest.importorskip("equinox")
    mlps = [eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(i)) for i in range(2)]
    refused("that is no array of numbers; pass the variables alone, or network=", mlps)
    found = merge(mlps, network=mlps[0])
    expected = (mlps[0].layers[0].weight + mlps[1].layers[0].weight) / 2
    np.testing.assert_allclose(found.layers[0].weight, expected, rtol=1e-6)


def test_lists_and_names_that_are_wrong():
    a, b = models()
    refused("there is no model", [])
    refused("pass the models as a list", {"a": a, "b": b})
    refused("pass the models as a list", iter([a, b]))
    refused("takes two models, not 3", [a, b, a], rule="slerp")
    refused("has 2 numbers for 3 models", [a, b, a], rule="weighted", weights=(1, 2))
    refused("has 1 numbers for 2 models", [a, b], a, "task_arithmetic", scale=(1.0,))
    refused("sum to 0", [a, b], rule="weighted", weights=(1, -1))
    refused("has no arrays", [{}, {}])
    refused("two leaves of", [{"a/b": np.ones(1), "a": {"b": np.ones(1)}}] * 2)
    refused("holds a str", [{"w": "file.bin"}] * 2)
    refused("is complex", [{"w": np.ones(2, complex)}] * 2, rule="slerp")
    found = merge([{"w": np.full(2, v)} for v in (1 + 1j, 3 + 3j)])
    np.testing.assert_array_equal(found["w"], 2 + 2j)
    with pytest.raises(MergeError, match="missing must be"):
        MergeOptions(missing="drop")  # pyright: ignore
    with pytest.raises(MergeError, match="skip must be"):
        MergeOptions(skip="head")  # pyright: ignore


def test_statistics_that_do_not_fit():
    a, b = models()
    fishers = [jax.tree.map(np.ones_like, tree) for tree in (a, b)]
    refused("needs statistics", [a, b], rule="fisher", statistics=fishers[:1])
    short = [{"body": of["body"]} for of in fishers]
    refused("has shape None for head", [a, b], rule="fisher", statistics=short)
    gram = {"body": InputGram(np.eye(3), (0,))}
    refused("do not fit its shape", [a, b], rule="regmean", statistics=[gram, gram])
    found = merge([a, b], rule="regmean", statistics=[{}, {"body": InputGram(np.eye(4), (0,))}])
    np.testing.assert_allclose(found["body"], (a["body"] + b["body"]) / 2, rtol=1e-6)


def test_leaves_in_files_and_views_of_any_layout(tmp_path):
    a, b = models(2, body=(30, 20))
    mapped = []
    for i, tree in enumerate((a, b)):
        np.save(tmp_path / f"{i}.npy", tree["body"])
        mapped.append({"body": np.load(tmp_path / f"{i}.npy", mmap_mode="r")})
    np.testing.assert_array_equal(merge(mapped)["body"], merge([a, b])["body"])
    turned = [{"body": np.asfortranarray(tree["body"])[::2].T} for tree in (a, b)]
    np.testing.assert_array_equal(merge(turned)["body"], merge([a, b])["body"][::2].T)
    merge(mapped)["body"][0] = 1  # the result is no view of what is read


def test_models_are_never_changed():
    trees = [*models(3), *models(1)]
    before = copy.deepcopy(trees)
    for rule in ("mean", "ties", "della", "breadcrumbs", "karcher"):
        merge(trees[1:], trees[0], rule)
    for tree, old in zip(trees, before, strict=True):
        assert all(np.array_equal(tree[name], old[name]) for name in tree)


def test_options_come_as_numpy_has_them_or_are_refused():
    a, b, base = models(3)
    for given, same in ((np.float32(0.5), 0.5), (np.array(0.5), 0.5), (jnp.float32(0.5), 0.5)):
        found, wanted = (merge([a, b], base, "ties", density=of) for of in (given, same))
        np.testing.assert_array_equal(found["body"], wanted["body"])
    weights = np.array([1.0, 3.0])
    found, wanted = (merge([a, b], rule="weighted", weights=of) for of in (weights, (1, 3)))
    np.testing.assert_array_equal(found["body"], wanted["body"])
    refused("not its class", [a, b], rule=merging.Mean)
    refused("must be a MergeOptions, not a dict", [a, b], options={"skip": ("head",)})
    refused("evaluate must be a function", [a, b], rule="greedy_soup", evaluate="accuracy")
    for found in ((1, 2), np.ones(1), "0.5"):
        refused("return one number", [a, b], rule="greedy_soup", evaluate=lambda _, f=found: f)


def test_what_cannot_be_searched_or_diagnosed_is_refused():
    a, b, base = models(3)

    def apply(w, x):
        return x @ w["body"] @ w["head"]

    x, y = np.ones((6, 4), np.float32), np.zeros(6, int)
    grid = {"scale": [0.1, 0.2]}
    for words, call in (
        ("made of JAX's operations", lambda: merging.search([a, b], _in_python, grid, base)),
        ("made of JAX's operations", lambda: merging.search([a, b], _in_numpy, grid, base)),
        ("loss must return one number", lambda: merging.search([a, b], _in_a_row, grid, base)),
        ("there is no rule", lambda: merging.diagnose(apply, [a, b], (x, y), [])),
        ("there is no data", lambda: merging.diagnose(apply, [a, b], {})),
    ):
        with pytest.raises(MergeError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(MatchingError, match="no mode"):
        merging.match_jointly(permutation_spec(apply, a, x), [])
    with pytest.raises(ModeError, match="NaN"):
        merging.match_jointly(permutation_spec(apply, a, x), [a, {**b, "head": b["head"] * np.nan}])


def _in_python(w):
    return float(w["body"].sum())


def _in_numpy(w):
    return np.asarray(w["body"]).sum()


def _in_a_row(w):
    return w["body"].sum(1)
