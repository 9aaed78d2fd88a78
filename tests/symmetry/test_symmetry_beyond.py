"""The whole symmetry of networks: what equations allow, compared with what is known by hand."""

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import attend, causal_mask, layer_norm, rms_norm
from jax import lax
from programs import TOLERANCE, count, element_changes

from llfc_jax import networks
from llfc_jax.errors import MatchingError
from llfc_jax.matching.beyond.balance import balance
from llfc_jax.symmetry.beyond.derive import symmetry_spec
from llfc_jax.symmetry.beyond.element import Element
from llfc_jax.symmetry.beyond.equations import ACTS
from llfc_jax.symmetry.beyond.spec import SymmetrySpec
from llfc_jax.symmetry.checking import check, double_precision, identity, random_element

Apply = Callable[[Any, Any], Any]
ANY, ORTHOGONAL, ONES = "invertible matrices", "orthogonal matrices", " that keep the ones"
PLAIN, SCALES, SIGNS = "permutations", ", positive scales", ", signs"


@pytest.fixture(autouse=True)
def _float64():
    with double_precision(), jax.numpy_rank_promotion("allow"):
        yield


def drawn(seed: int = 0, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Random weights in float64."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) + 0.2 for name, shape in shapes.items()}


def inputs(*shape: int) -> np.ndarray:
    return np.random.default_rng(9).normal(size=shape)


def kinds(spec: SymmetrySpec) -> dict[str, str]:
    """What each group of a spec may be."""
    return {action.group: action.kind for action in spec.actions}


def prove(apply: Apply, weights: Any, x: Any, spec: SymmetrySpec) -> None:
    """Each part of a random element alone, and all of it, leave the outputs as they are."""
    jaxpr = jax.make_jaxpr(apply)(weights, x)
    changes = element_changes(jaxpr, spec, weights, x, np.random.default_rng(1))
    assert changes is not None
    tolerance = 1e-5 if "f32[" in str(jaxpr) else TOLERANCE
    assert all(change <= tolerance for change in changes.values()), (changes, spec.explain())


def derived(apply: Apply, weights: Any, x: Any) -> SymmetrySpec:
    """A spec that was proved."""
    spec = symmetry_spec(apply, weights, x)
    prove(apply, weights, x, spec)
    return spec


def only(spec: SymmetrySpec, **fields: Any) -> Element:
    """An element that does nothing but this."""
    return Element(identity(spec.permutations), **fields)


def close(left: Any, right: Any, tolerance: float = 1e-12) -> None:
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, 0, tolerance), left, right)


# -- by hand ---------------------------------------------------------------------------------------


def mlp(activation: Callable[[Any], Any]) -> Apply:
    return lambda w, x: activation(x @ w["one"] + w["bias"]) @ w["two"]


SHAPES = {"one": (3, 4), "bias": (4,), "two": (4, 2)}


def test_a_linear_layer_takes_any_matrix() -> None:
    w, x = drawn(**SHAPES), inputs(5, 3)
    spec = derived(mlp(lambda h: h), w, x)
    assert kinds(spec) == {"one": ANY}
    assert spec.degrees == 16
    g = np.random.default_rng(2).normal(size=(4, 4))
    moved = spec.apply(only(spec, matrices={"one": g}), w)
    expected = {"one": w["one"] @ g.T, "bias": g @ w["bias"], "two": np.linalg.inv(g).T @ w["two"]}
    close(moved, expected)


def test_a_relu_takes_scales() -> None:
    w, x = drawn(**SHAPES), inputs(5, 3)
    spec = derived(mlp(jax.nn.relu), w, x)
    assert kinds(spec) == {"one": PLAIN + SCALES}
    assert spec.degrees == 4
    s = np.random.default_rng(2).normal(size=4)
    moved = spec.apply(only(spec, log_scales={"one": s[None]}), w)
    power = np.exp(s)
    close(
        moved,
        {"one": w["one"] * power, "bias": w["bias"] * power, "two": w["two"] / power[:, None]},
    )


def test_a_tanh_takes_signs_and_a_cosine_swallows_them() -> None:
    w, x, s = drawn(**SHAPES), inputs(5, 3), np.array([1.0, -1, -1, 1])
    for activation, after in ((jnp.tanh, s), (jnp.cos, np.ones(4))):
        spec = derived(mlp(activation), w, x)
        assert kinds(spec) == {"one": PLAIN + SIGNS}
        assert spec.degrees == 0
        moved = spec.apply(only(spec, signs={"one": s[None]}), w)
        close(moved, {"one": w["one"] * s, "bias": w["bias"] * s, "two": w["two"] * after[:, None]})


def test_a_gated_product_takes_scales_on_the_linear_branch_only() -> None:
    w, x = drawn(gate=(3, 4), up=(3, 4), down=(4, 2)), inputs(5, 3)
    spec = derived(lambda w, x: (jax.nn.silu(x @ w["gate"]) * (x @ w["up"])) @ w["down"], w, x)
    assert kinds(spec) == {"gate": PLAIN + SCALES + SIGNS}
    s = np.arange(4.0)
    moved = spec.apply(only(spec, log_scales={"gate": s[None]}), w)
    up, down = w["up"] * np.exp(s), w["down"] * np.exp(-s)[:, None]
    close(moved, {"gate": w["gate"], "up": up, "down": down})


def test_a_product_of_three_takes_two_scales() -> None:
    w, x = drawn(p=(3, 4), q=(3, 4), r=(3, 4), out=(4, 2)), inputs(5, 3)
    spec = derived(lambda w, x: ((x @ w["p"]) * (x @ w["q"]) ** 2 / (x @ w["r"])) @ w["out"], w, x)
    (action,) = spec.actions
    assert (action.scales, action.signs) == (3, 3)
    rows = {sorted(w)[leaf]: how.scales for leaf, _, how in spec.places[0]}
    powers = {"p": 1, "q": 2, "r": -1, "out": 1}
    for dimension in range(3):  # in each, what goes in comes out
        assert sum(k * rows[path][dimension] for path, k in powers.items()) == 0


RMS = {"embed": (3, 6), "gain": (6,), "up": (6, 5), "down": (5, 6), "last": (6,), "out": (6, 2)}


def residual(norm: Callable[[Any, Any], Any]) -> Apply:
    def apply(w, x):
        h = x @ w["embed"]
        h = h + jnp.tanh(norm(h, w["gain"]) @ w["up"]) @ w["down"]
        return norm(h, w["last"]) @ w["out"]

    return apply


@pytest.mark.parametrize(
    ("norm", "kind"), [(rms_norm, ORTHOGONAL), (layer_norm, ORTHOGONAL + ONES)]
)
def test_a_residual_stream_is_orthogonal_once_its_gains_are_folded(norm: Any, kind: str) -> None:
    apply, w, x = residual(norm), drawn(**RMS), inputs(5, 3)
    spec = derived(apply, w, x)
    assert kinds(spec) == {"embed": kind, "up": PLAIN + SIGNS}
    assert len(spec.folds) == 2
    assert spec.degrees == (15 if norm is rms_norm else 10)
    folded = spec.fold(w)
    close(folded["gain"], np.ones(6), 0)
    close(folded["up"], w["up"] * w["gain"][:, None])
    close(folded["out"], w["out"] * w["last"][:, None])
    close(apply(folded, x), apply(w, x))
    close(spec.unfold(folded, w), w)
    assert spec.is_folded(folded)
    assert not spec.is_folded(w)
    with pytest.raises(AssertionError):  # the spec is the folded network's
        close(apply(spec.apply(spec.random(jax.random.key(0)), w), x), apply(w, x), 1e-6)


def test_a_layer_norm_keeps_the_vector_of_ones() -> None:
    spec = symmetry_spec(residual(layer_norm), drawn(**RMS), inputs(5, 3))
    for element in (random_element(spec, np.random.default_rng(0)), spec.random(jax.random.key(0))):
        q = np.asarray(element.matrices["embed"])
        close(q @ q.T, np.eye(6), 1e-5)
        close(q @ np.ones(6), np.ones(6), 1e-5)
    assert "keeps the ones: reduce_sum" in spec.explain()


def test_gains_may_be_negative_but_not_zero() -> None:
    apply, w, x = residual(rms_norm), drawn(**RMS), inputs(5, 3)
    spec = symmetry_spec(apply, w, x)
    w["gain"] = np.array([1.0, -2, 3, -4, 5, 6])
    close(apply(spec.fold(w), x), apply(w, x))
    close(spec.unfold(spec.fold(w), w), w)
    w["gain"][2] = 0
    with pytest.raises(MatchingError, match="gain holds zeros") as caught:
        spec.fold(w)
    assert "\n" not in str(caught.value)


def test_gains_read_by_a_relu_must_be_positive() -> None:
    w, x = drawn(**RMS, more=(6, 2)), inputs(5, 3)

    def apply(w, x):
        return residual(rms_norm)(w, x) + jax.nn.relu(w["gain"]) @ w["more"]

    spec = derived(apply, w | {"gain": np.abs(w["gain"])}, x)
    assert len(spec.folds) == 2
    w["gain"] = -np.abs(w["gain"])
    with pytest.raises(MatchingError, match="gain holds negative gains"):
        spec.fold(w)


def test_a_tied_embedding_is_orthogonal_and_its_last_gain_stays() -> None:
    def apply(w, x, last=True):
        h = w["embed"][x]
        h = h + jnp.tanh(rms_norm(h, w["gain"]) @ w["up"]) @ w["down"]
        h = rms_norm(h, w["last"] if last else jnp.ones(6))
        return h @ w["embed"].T

    w, x = drawn(**RMS) | drawn(embed=(7, 6)), np.arange(6).reshape(2, 3)
    spec = derived(apply, w, x)
    assert kinds(spec)["down"] == PLAIN + SCALES + SIGNS
    (note,) = [n for n in spec.notes if "last" in n]
    assert note.startswith("last cannot be moved into the weights behind it")
    spec = derived(lambda w, x: apply(w, x, last=False), w, x)
    assert kinds(spec)["down"] == ORTHOGONAL
    assert len(spec.folds) == 1


def attention(repeats: int = 1) -> Apply:
    def apply(w, x):
        q, k, v = (jnp.einsum("btd,dhe->bthe", x, w[name]) for name in "qkv")
        k, v = (jnp.repeat(part, repeats, 2) for part in (k, v))
        mixed = attend(q, k, v, causal_mask).reshape(*q.shape)
        return jnp.einsum("bthe,hed->btd", mixed, w["o"])

    return apply


def test_queries_carry_the_dual_of_keys_and_the_output_that_of_values() -> None:
    w = drawn(q=(5, 3, 4), k=(5, 3, 4), v=(5, 3, 4), o=(3, 4, 2))
    spec = derived(attention(), w, inputs(2, 6, 5))
    inner = [action for action in spec.actions if spec.permutations.group[action.group].parent]
    assert [action.kind for action in inner] == [ANY, ANY]
    rng = np.random.default_rng(3)
    for action in inner:
        g = rng.normal(size=(3, 4, 4))
        moved = spec.apply(only(spec, matrices={action.group: g}), w)
        dual = np.linalg.inv(g).swapaxes(1, 2)
        expected = dict(w)
        if ("k", 2) in spec.permutations.where(action.group):
            expected["k"] = np.einsum("hef,dhf->dhe", g, w["k"])
            expected["q"] = np.einsum("hef,dhf->dhe", dual, w["q"])
        else:
            expected["o"] = np.einsum("hef,hfd->hed", g, w["o"])
            expected["v"] = np.einsum("hef,dhf->dhe", dual, w["v"])
        close(moved, expected, 1e-9)


def heads_of(w: Any, x: Any, layout: str) -> tuple[Any, ...]:
    """Queries, keys and values [b, t, heads, width] of one projection, as people write it."""
    z, b, t = x @ w["qkv"] + w["bias"], *x.shape[:2]
    if layout == "split":
        return tuple(part.reshape(b, t, 3, 4) for part in jnp.split(z, 3, -1))
    if layout == "three":
        return tuple(jnp.moveaxis(z.reshape(b, t, 3, 3, 4), 2, 0))
    if layout == "torch":  # timm's: [3, b, h, t, e]
        q, k, v = z.reshape(b, t, 3, 3, 4).transpose(2, 0, 3, 1, 4)
        return tuple(part.transpose(0, 2, 1, 3) for part in (q, k, v))
    if layout == "heads outside":
        return tuple(z.reshape(b, t, 3, 3, 4)[:, :, :, i] for i in range(3))
    if layout == "inside each head":
        return tuple(jnp.split(z.reshape(b, t, 3, 12), 3, -1))
    q, kv = z[..., :12], z[..., 12:].reshape(b, t, 2, 12)
    return tuple(part.reshape(b, t, 3, 4) for part in (q, kv[:, :, 0], kv[:, :, 1]))


LAYOUTS = ("split", "three", "torch", "heads outside", "inside each head", "queries apart")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_queries_and_keys_of_one_projection_take_any_matrix(layout: str) -> None:
    w, x = drawn(qkv=(5, 36), bias=(36,), o=(3, 4, 2)), inputs(2, 6, 5)

    def apply(w, x):
        q, k, v = heads_of(w, x, layout)
        mixed = attend(q, k, v, causal_mask).reshape(*q.shape)
        return jnp.einsum("bthe,hed->btd", mixed, w["o"])

    spec = derived(apply, w, x)
    inner = [a for a in spec.actions if spec.permutations.group[a.group].parent]
    assert [a.kind for a in inner] == [ANY, ANY], spec.explain()
    name = next(a.group for a in inner if "o" not in dict(spec.permutations.where(a.group)))
    g = np.random.default_rng(3).normal(size=(3, 4, 4))
    moved = spec.apply(only(spec, matrices={name: g}), w)
    pairs = [heads_of(each, x, layout) for each in (w, moved)]
    (q, k, v), (q2, k2, v2) = pairs
    (plain, carried), (other, dual) = (
        ((q, q2), (k, k2)) if np.allclose(np.einsum("hef,bthf->bthe", g, q), q2) else
        ((k, k2), (q, q2))
    )  # fmt: skip
    close(np.einsum("hef,bthf->bthe", g, plain), carried, 1e-9)
    inverse = np.linalg.inv(g).swapaxes(1, 2)
    close(np.einsum("hef,bthf->bthe", inverse, other), dual, 1e-9)
    close(v, v2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_queries_and_keys_of_one_projection_are_balanced(layout: str) -> None:
    w, x = drawn(qkv=(5, 36), bias=(36,), o=(3, 4, 2)), inputs(2, 6, 5)

    def apply(w, x):
        q, k, v = heads_of(w, x, layout)
        mixed = attend(q, k, v, causal_mask).reshape(*q.shape)
        return jnp.einsum("bthe,hed->btd", mixed, w["o"])

    spec = symmetry_spec(apply, w, x)
    moved = spec.apply(balance(spec, jax.tree.leaves(w)), w)
    q, k, v = heads_of(moved | {"bias": np.zeros(36)}, np.eye(5)[None], layout)
    bias = heads_of(moved, np.zeros((1, 1, 5)), layout)
    grams = [
        np.einsum("dhe,dhf->hef", part[0], part[0]) + np.einsum("he,hf->hef", b[0, 0], b[0, 0])
        for part, b in zip((q, k, v), bias, strict=True)
    ]
    close(grams[0], grams[1], 0.02)
    close(grams[2], np.einsum("hed,hfd->hef", moved["o"], moved["o"]), 0.02)


def test_layers_of_fused_attention_in_a_scan() -> None:
    def apply(w, x):
        def layer(h, own):
            q, k, v = heads_of(own, h, "three")
            mixed = attend(q, k, v, causal_mask).reshape(*q.shape)
            return h + jnp.einsum("bthe,hed->btd", mixed, own["o"]), None

        return lax.scan(layer, x @ w["in"], w["layers"])[0] @ w["out"]

    layers = drawn(qkv=(2, 5, 36), bias=(2, 36), o=(2, 3, 4, 5))
    w = {"in": inputs(3, 5), "out": inputs(5, 2), "layers": layers}
    spec = derived(apply, w, inputs(2, 4, 3))
    inner = [a.kind for a in spec.actions if spec.permutations.group[a.group].parent]
    assert inner == [ANY] * 4, spec.explain()


def test_a_value_joined_with_its_reciprocal_scales_both_ways() -> None:
    w, x = drawn(one=(3, 4), two=(8, 2)), inputs(5, 3)

    def apply(w, x):
        h = x @ w["one"]
        return jnp.concatenate([h, 1 / h], -1) @ w["two"]

    spec = derived(apply, w, x)
    assert kinds(spec) == {"one": PLAIN + SCALES + SIGNS}
    s = np.arange(4.0)
    moved = spec.apply(only(spec, log_scales={"one": s[None]}), w)
    factor = np.exp(np.concatenate([-s, s]))[:, None]
    close(moved, {"one": w["one"] * np.exp(s), "two": w["two"] * factor})


def test_grouped_queries_share_one_matrix_in_each_head_of_keys() -> None:
    w = drawn(q=(5, 6, 4), k=(5, 3, 4), v=(5, 3, 4), o=(6, 4, 2))
    spec = derived(attention(2), w, inputs(2, 6, 5))
    inner = [action for action in spec.actions if spec.shape(action.group) == (3, 4)]
    assert [action.kind for action in inner] == [ANY, ANY]
    g = np.random.default_rng(3).normal(size=(3, 4, 4))
    name = next(a.group for a in inner if "q" in dict(spec.permutations.where(a.group)))
    moved = spec.apply(only(spec, matrices={name: g}), w)
    dual = np.linalg.inv(g).swapaxes(1, 2)
    queries = np.einsum("hef,dhrf->dhre", dual, w["q"].reshape(5, 3, 2, 4)).reshape(5, 6, 4)
    close(moved["q"], queries, 1e-9)
    close(moved["k"], np.einsum("hef,dhf->dhe", g, w["k"]), 1e-9)


def test_layers_in_a_scan_have_each_their_own_matrices() -> None:
    def apply(w, x):
        def layer(h, own):
            z = rms_norm(h, jnp.ones(4))
            return h + jnp.einsum("bd,de,ef->bf", z, own["one"], own["two"]), None

        return lax.scan(layer, x @ w["in"], w["layers"])[0] @ w["out"]

    layers = drawn(one=(3, 4, 5), two=(3, 5, 4))
    w = {"in": inputs(3, 4), "out": inputs(4, 2), "layers": layers}
    spec = derived(apply, w, inputs(5, 3))
    found = collections.Counter((spec.shape(a.group), a.kind) for a in spec.actions)
    assert found == {((4,), ORTHOGONAL): 1, ((5,), ANY): 3}
    g = np.random.default_rng(0).normal(size=(5, 5))
    second = [a.group for a in spec.actions if a.kind == ANY][1]
    moved = spec.apply(only(spec, matrices={second: g}), w)
    changed = [np.abs(moved["layers"]["one"][i] - layers["one"][i]).max() > 0.01 for i in range(3)]
    assert sum(changed) == 1


def test_channels_of_a_grouped_convolution_take_any_matrix_inside_each_group() -> None:
    numbers = ("NWC", "WIO", "NWC")

    def apply(w, x):
        h = x @ w["one"]  # three groups of four channels
        h = lax.conv_general_dilated(
            h, w["two"], (1,), "SAME", dimension_numbers=numbers, feature_group_count=3
        )
        return (h @ w["out"]).sum(1)

    w, x = drawn(one=(5, 12), two=(2, 4, 6), out=(6, 2)), inputs(2, 4, 5)
    spec = derived(apply, w, x)
    found = collections.Counter((spec.shape(a.group), a.kind) for a in spec.actions)
    assert found == {((3,), PLAIN): 1, ((3, 4), ANY): 1, ((3, 2), ANY): 1}
    g = np.random.default_rng(0).normal(size=(3, 4, 4))
    name = next(a.group for a in spec.actions if spec.shape(a.group) == (3, 4))
    moved = spec.apply(only(spec, matrices={name: g}), w)
    close(
        moved["one"], np.einsum("gef,dgf->dge", g, w["one"].reshape(5, 3, 4)).reshape(5, 12), 1e-9
    )
    kernel = w["two"].reshape(2, 4, 3, 2)
    dual = np.linalg.inv(g).swapaxes(1, 2)
    close(moved["two"], np.einsum("gef,kfgo->kego", dual, kernel).reshape(2, 4, 6), 1e-9)


def test_explain_says_what_each_group_may_be_and_why_no_more() -> None:
    w, x = drawn(**RMS), inputs(5, 3)
    assert symmetry_spec(residual(rms_norm), w, x).explain().splitlines() == [
        "embed: 6 units: orthogonal matrices",
        "    not any matrix: reduce_sum",
        "    down axis 1: embed(6)",
        "    embed axis 1: embed(6)",
        "    out axis 0: embed(6)",
        "    up axis 0: embed(6)",
        "up: 5 units: permutations, signs",
        "    not a matrix: tanh",
        "    down axis 0: up(5)",
        "    up axis 1: up(5)",
        "folded: gain into up",
        "folded: last into out",
    ]


GPTS = {
    "rotary": ({}, ORTHOGONAL, PLAIN + SCALES + SIGNS),
    "learned": ({"positions": "learned", "norm": "layer", "mlp": "gelu", "bias": True},
                ORTHOGONAL + ONES, PLAIN),
    "tied": ({"positions": "learned", "norm": "layer", "mlp": "gelu", "bias": True, "tied": True},
             PLAIN + SCALES + SIGNS, PLAIN),
    "grouped": ({"groups": 2, "norm": "layer"}, ORTHOGONAL + ONES, PLAIN + SCALES + SIGNS),
}  # fmt: skip


@pytest.mark.parametrize("name", list(GPTS))
def test_our_transformers_have_the_symmetry_of_their_kind(name: str) -> None:
    options, stream, hidden = GPTS[name]
    net = networks.build("gpt", 11, dim=8, depth=1, heads=4, mlp_dim=12, length=6, **options)
    x = np.random.default_rng(0).integers(0, 11, (2, 6)).astype(np.int32)
    with jax.enable_x64(False):
        w = networks.init(net, jax.random.key(0), x)
    rng = np.random.default_rng(1)
    w = jax.tree.map(
        lambda leaf: np.asarray(leaf) + 0.3 * rng.normal(size=leaf.shape).astype("f4"), w
    )
    spec = symmetry_spec(net, w, x)
    assert check(spec, net, w, x) < 1e-9
    found = kinds(spec)
    assert found["block0/attention/out"] == stream, spec.explain()
    assert found["block0/up"] == hidden
    assert found["block0/attention/value.inner"] == ANY
    turned = "scaled rotations of 1 pair of units"
    width = "block0/attention/query.inner" + (":2" if "groups" in options else "")
    assert found[width] == (ANY if "positions" in options else turned)


# -- laws ------------------------------------------------------------------------------------------


def block(w, x):
    """Attention and a gated MLP on a stream with norms: groups inside groups, and every kind."""
    h = x @ w["embed"]
    h = h + attention()(w, rms_norm(h, w["n1"]))
    z = rms_norm(h, w["n2"])
    return (h + (jax.nn.relu(z @ w["gate"]) * (z @ w["up"])) @ w["down"]) @ w["out"]


BLOCK = {"embed": (3, 6), "n1": (6,), "q": (6, 3, 4), "k": (6, 3, 4), "v": (6, 3, 4),
         "o": (3, 4, 6), "n2": (6,), "gate": (6, 5), "up": (6, 5), "down": (5, 6),
         "out": (6, 2)}  # fmt: skip


@functools.cache
def elements() -> tuple[SymmetrySpec, Any, list[Element]]:
    w, x = drawn(**BLOCK), inputs(2, 4, 3)
    spec = symmetry_spec(block, w, x)
    drawn_ = [spec.random(key) for key in jax.random.split(jax.random.key(0), 3)]
    assert all(e.matrices and e.log_scales and e.signs for e in drawn_)
    assert any(g.parent for g in spec.permutations.groups)
    return spec, jax.tree.map(jnp.asarray, spec.fold(w)), drawn_


@pytest.mark.slow
def test_a_random_element_changes_every_weight_and_no_output() -> None:
    spec, w, (e, *_) = elements()
    x, moved = inputs(2, 4, 3), spec.apply(e, w)
    close(block(moved, x), block(w, x), 1e-10)
    names = [name for name in w if not name.startswith("n")]
    assert all(np.abs(moved[name] - w[name]).max() > 0.01 for name in names)


def test_composition_and_inverse() -> None:
    spec, w, (e, f, g) = elements()
    close(spec.apply(spec.compose(f, e), w), spec.apply(f, spec.apply(e, w)), 1e-10)
    close(spec.compose(g, spec.compose(f, e)), spec.compose(spec.compose(g, f), e), 1e-10)
    close(spec.apply(spec.invert(e), spec.apply(e, w)), w, 1e-10)
    close(spec.apply(spec.identity(), w), w, 0)
    undone = spec.compose(spec.invert(e), e)
    close(spec.apply(undone, w), w, 1e-10)
    close(spec.compose(e, spec.identity()), e, 1e-12)


def test_an_element_is_differentiable() -> None:
    spec, w, (e, *_) = elements()
    turned = dataclasses.replace(e, matrices=dict(e.matrices))

    def size(matrices):
        moved = spec.apply(dataclasses.replace(turned, matrices=matrices), w)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(moved))

    name = next(n for n, m in e.matrices.items() if m.ndim == 2)
    size = jax.jit(size)
    slope = jax.jit(jax.grad(size))(turned.matrices)[name]
    step = 1e-6 * np.eye(len(slope))
    ahead = {**turned.matrices, name: turned.matrices[name] + step}
    np.testing.assert_allclose(size(ahead) - size(turned.matrices), np.sum(slope * step), rtol=1e-3)


def test_an_element_of_another_spec_is_refused_in_one_line() -> None:
    spec, w, (e, *_) = elements()
    for change, words in (
        ({"matrices": {"nobody": np.eye(2)}}, "nobody"),
        ({"matrices": {"gate": np.eye(5)}}, "has no matrices; it has permutations"),
        ({"log_scales": {"gate": np.zeros((1, 4))}}, "need shape"),
    ):
        with pytest.raises(MatchingError, match=words) as caught:
            spec.apply(dataclasses.replace(e, **change), w)
        assert "\n" not in str(caught.value)


# -- each equation alone ---------------------------------------------------------------------------

ALONE: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    # What is done to h [samples, steps, units], with what else there is; what the units may be.
    "nothing": (lambda h, w: h, ANY),
    "neg and copies": (lambda h, w: -jnp.copy(lax.stop_gradient(h)), ANY),
    "barrier": (lambda h, w: lax.optimization_barrier(h), ANY),
    "cast": (lambda h, w: h.astype(jnp.float32).astype(h.dtype), ANY),
    "cast to one byte": (lambda h, w: h.astype(jnp.float8_e4m3fn).astype(h.dtype), PLAIN),
    "precision": (lambda h, w: lax.reduce_precision(h, 11, 52), ANY),
    "real part": (lambda h, w: jnp.real(h.astype(complex) * (2 + 1j)), ANY),
    "added parameter": (lambda h, w: h + w["bias"], ANY),
    "less a parameter": (lambda h, w: w["bias"] - h, ANY),
    "added number": (lambda h, w: h + 1.0, ANY + ONES),
    "added zero": (lambda h, w: h + jnp.zeros_like(h), ANY),
    "number per step": (lambda h, w: h + w["steps"][:, None], ANY + ONES),
    "times a number": (lambda h, w: 3 * h / w["steps"][:, None], ANY),
    "times a parameter": (lambda h, w: h * w["bias"], ANY),
    "divided by a parameter": (lambda h, w: h / w["bias"], PLAIN + SCALES + SIGNS),
    "divides": (lambda h, w: 1 / h, PLAIN + SCALES + SIGNS),
    "square": (lambda h, w: jnp.square(h), PLAIN + SCALES + SIGNS),
    "times itself": (lambda h, w: h * h, PLAIN + SCALES + SIGNS),
    "cube": (lambda h, w: h**3, PLAIN + SCALES + SIGNS),
    "real power": (lambda h, w: jnp.abs(h) ** 1.5, PLAIN + SIGNS),
    "root": (lambda h, w: jnp.sqrt(jnp.abs(h)), PLAIN + SCALES + SIGNS),
    "inverse root": (lambda h, w: lax.rsqrt(h * h), PLAIN + SCALES + SIGNS),
    "cube root": (lambda h, w: jnp.cbrt(h), PLAIN),
    "sign": (lambda h, w: jnp.sign(h), PLAIN + SCALES + SIGNS),
    "relu": (lambda h, w: jnp.maximum(h, 0), PLAIN + SCALES),
    "least": (lambda h, w: jnp.minimum(h, h @ w["square"]), PLAIN + SCALES),
    "at least one": (lambda h, w: jnp.maximum(h, 1), PLAIN),
    "leaky": (lambda h, w: jnp.where(h >= 0, h, 0.1 * h), PLAIN + SCALES),
    "where equal": (lambda h, w: jnp.where((h == 0) | (h != h), 0, h), PLAIN + SCALES),
    "where not": (lambda h, w: jnp.where(h <= 0, 2 * h, h), PLAIN + SCALES),
    "above one": (lambda h, w: jnp.where(h > 1, 0, h), PLAIN),
    "where a step": (lambda h, w: jnp.where(w["steps"][:, None] < 0, h, -h), ANY),
    "odd": (lambda h, w: jnp.sin(jnp.tanh(h)), PLAIN + SIGNS),
    "even": (lambda h, w: jnp.cosh(jnp.cos(h)), PLAIN + SIGNS),
    "exponential": (lambda h, w: jnp.exp(h), PLAIN),
    "product": (lambda h, w: jnp.einsum("btd,tu->bud", h, w["time"]), ANY),
    "product with itself": (lambda h, w: h * jnp.einsum("btd,btd->b", h, h)[:, None, None],
                            ORTHOGONAL),
    "products side by side": (lambda h, w: jnp.einsum("btd,bsd->btd", h, h),
                              PLAIN + SCALES + SIGNS),
    "convolution": (lambda h, w: lax.conv_general_dilated(
        h, w["kernel"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")), ANY),
    "depthwise": (lambda h, w: lax.conv_general_dilated(
        h, w["kernel"][:, :1], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=5), PLAIN + SCALES + SIGNS),
    "sum": (lambda h, w: h * h.sum(-1, keepdims=True), ANY + ONES),
    "sum of squares": (lambda h, w: h / (1 + (h**2).sum(-1, keepdims=True)), ORTHOGONAL),
    "less the mean": (lambda h, w: h - h.mean(-1, keepdims=True), ANY + ONES),
    "sum over steps": (lambda h, w: h + h.sum(1, keepdims=True), ANY),
    "largest over steps": (lambda h, w: h + h.max(1, keepdims=True), PLAIN + SCALES),
    "least over steps": (lambda h, w: h.min(1, keepdims=True), PLAIN + SCALES),
    "largest of all": (lambda h, w: h - h.max(-1, keepdims=True), PLAIN),
    "running sum": (lambda h, w: jnp.cumsum(h, 1), ANY),
    "pooled sum": (lambda h, w: lax.reduce_window(
        h, 0.0, lax.add, (1, 2, 1), (1, 1, 1), "VALID"), ANY),
    "pooled largest": (lambda h, w: lax.reduce_window(
        h, -np.inf, lax.max, (1, 2, 1), (1, 1, 1), "VALID"), PLAIN),
    "swapped": (lambda h, w: jnp.swapaxes(jnp.swapaxes(h, 1, 2), 1, 2), ANY),
    "repeated": (lambda h, w: jnp.broadcast_to(h[:, :1], h.shape), ANY),
    "reshaped": (lambda h, w: h.reshape(-1, 5).reshape(h.shape), ANY),
    "new axis": (lambda h, w: jnp.squeeze(h[:, :, None], 2), ANY),
    "expanded": (lambda h, w: lax.squeeze(lax.expand_dims(h, (1,)), (1,)), ANY),
    "cut": (lambda h, w: h[:, 1:], ANY),
    "split": (lambda h, w: sum(jnp.split(h, 2, 1)), ANY),
    "reversed": (lambda h, w: jnp.flip(h, 1), ANY),
    "cut at a place": (lambda h, w: lax.dynamic_slice_in_dim(h, 1, 2, 1), ANY),
    "cut at a computed place": (lambda h, w: lax.dynamic_slice_in_dim(
        h, (h[0, 0].sum() > 0).astype(int), 2, 1), ANY + ONES),
    "joined": (lambda h, w: jnp.concatenate([h, 2 * h], 1), ANY),
    "joined with ones": (lambda h, w: jnp.concatenate([h, jnp.ones_like(h)], 1), ANY + ONES),
    "joined with zeros": (lambda h, w: jnp.concatenate([h, jnp.zeros_like(h)], 1), ANY),
    "stacked": (lambda h, w: jnp.stack([h, h @ w["square"]]).sum(0), ANY),
    "padded": (lambda h, w: jnp.pad(h, ((0, 0), (1, 2), (0, 0))), ANY),
    "padded with ones": (lambda h, w: jnp.pad(
        h, ((0, 0), (1, 2), (0, 0)), constant_values=1), PLAIN),
    "looked up": (lambda h, w: h[:, np.array([2, 0, 2])], ANY),
    "softmax": (lambda h, w: jax.nn.softmax(h), PLAIN),
    "sorted": (lambda h, w: jnp.sort(h, 1), PLAIN),
}  # fmt: skip


@pytest.mark.parametrize("name", list(ALONE))
def test_an_equation_allows_what_it_allows(name: str) -> None:
    function, kind = ALONE[name]
    w = drawn(**{"in": (3, 5), "bias": (5,), "steps": (4,), "square": (5, 5), "time": (4, 3),
                 "kernel": (2, 5, 5), "out": (5, 2)})  # fmt: skip
    x = inputs(2, 4, 3)
    spec = derived(lambda w, x: function(x @ w["in"], w) @ w["out"], w, x)
    group = next(a for a in spec.actions if ("in", 1) in spec.permutations.where(a.group))
    assert group.kind == kind, spec.explain()


def test_every_rule_was_looked_at() -> None:
    w = drawn(**{"in": (3, 5), "bias": (5,), "steps": (4,), "square": (5, 5), "time": (4, 3),
                 "kernel": (2, 5, 5), "out": (5, 2)})  # fmt: skip
    x, made = inputs(2, 4, 3), collections.Counter[str]()
    for function, _ in ALONE.values():
        count(jax.make_jaxpr(lambda w, x, f=function: f(x @ w["in"], w) @ w["out"])(w, x), made)
    other = {"link", "expand_dims", "tile", "stack", "unstack", "add_any", "copy_p", "device_put",
             "name", "pvary", "imag", "conj", "sharding_constraint", "tan", "sinh", "asinh", "asin",
             "atan", "atanh", "erf", "erf_inv"}  # fmt: skip
    assert set(ACTS) - set(made) <= other


# -- proof and files -------------------------------------------------------------------------------


def wrong(spec: SymmetrySpec, group: str, **fields: Any) -> SymmetrySpec:
    """The spec with something else said of a group."""
    actions = [dataclasses.replace(a, **fields) if a.group == group else a for a in spec.actions]
    return dataclasses.replace(spec, actions=tuple(actions))


def test_check_proves_every_kind_of_element() -> None:
    w, x = drawn(**BLOCK), inputs(2, 4, 3)
    spec = symmetry_spec(block, w, x)
    assert check(spec, block, w, x) < 1e-9
    single = jax.tree.map(lambda leaf: leaf.astype(np.float32), w)
    assert check(spec, block, single, x.astype(np.float32)) < 1e-9  # computed in float64


def test_check_names_what_is_wrong_in_one_line() -> None:
    w, x = drawn(**BLOCK), inputs(2, 4, 3)
    spec = symmetry_spec(block, w, x)
    stream = spec.actions[0].group
    cases = (
        (wrong(spec, stream, matrix="any"), f"random matrices to group '{stream}'"),
        (wrong(spec, "gate", matrix="orthogonal"), "random matrices to group 'gate'"),
        (dataclasses.replace(spec, folds=spec.folds[:1]), "moving the units of group"),
        (dataclasses.replace(spec, folds=tuple(
            dataclasses.replace(f, places=f.places[:1]) for f in spec.folds)), "moving gains"),
        (dataclasses.replace(spec, places=tuple(
            tuple((leaf, axis, dataclasses.replace(how, dual=False)) for leaf, axis, how in held)
            for held in spec.places)), "random matrices"),
    )  # fmt: skip
    for other, words in cases:
        with pytest.raises(MatchingError, match=words) as caught:
            check(other, block, w, x)
        assert "\n" not in str(caught.value)


def test_check_refuses_gains_of_zero_in_one_line() -> None:
    w, x = drawn(**BLOCK), inputs(2, 4, 3)
    spec = symmetry_spec(block, w, x)
    with pytest.raises(MatchingError, match="n1 holds zeros"):
        check(spec, block, w | {"n1": np.zeros(6)}, x)


def test_a_spec_is_written_and_read_exactly() -> None:
    w, x = drawn(p=(3, 4), q=(3, 4), out=(4, 2)), inputs(5, 3)

    def apply(w, x):
        return ((x @ w["p"]) ** 3 * jnp.sqrt(jnp.abs(x @ w["q"]))) @ w["out"]

    for spec in (derived(apply, w, x), symmetry_spec(block, drawn(**BLOCK), inputs(2, 4, 3))):
        again = SymmetrySpec.from_json(spec.to_json())
        assert again == spec
        assert hash(again) == hash(spec)
        assert again.explain() == spec.explain()
        moved = jax.jit(lambda s, e, w: s.apply(e, w), static_argnums=0)
        if spec.folds:
            continue
        assert any(k.denominator > 1 for _, _, how in spec.places[0] for k in how.scales)
        e = spec.random(jax.random.key(0))
        close(moved(again, e, w), spec.apply(e, w))
    for text in ("", "{}", "[1]", spec.unfolded.to_json()):
        with pytest.raises(MatchingError, match="not a symmetry spec") as caught:
            SymmetrySpec.from_json(text)
        assert "\n" not in str(caught.value)
