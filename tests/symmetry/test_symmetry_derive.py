"""The spec of every small network: the right groups, and proved on numbers."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from matching_nets import ZOO, batch, drawn, variables

from llfc_jax import networks
from llfc_jax.errors import MatchingError
from llfc_jax.symmetry import check, permutation_spec, permutation_spec_from_axes
from llfc_jax.symmetry.axes import Fixed, Product, Sum, Units

sys.path.append(str(Path(__file__).parents[1] / "graph"))
import graph_nets

# Group -> (units, parent): what a person would write down for each network.
GROUPS = {
    "dense": {"Dense_0": (16, ""), "Dense_1": (12, "")},
    "flat": {"Conv_0": (6, ""), "Conv_1": (8, ""), "Dense_0": (10, "")},
    "residual_batch": {
        "Conv_0": (4, ""),
        "Block_0/Conv_0": (4, ""),
        "Block_1/Conv_0": (8, ""),
        "Block_1/Conv_1": (4, ""),  # the channels that the padded shortcut fills with zeros
    },
    "residual_layer": {
        "Conv_0": (4, ""),
        "Block_0/Conv_0": (4, ""),
        "Block_1/Conv_0": (8, ""),
        "Block_1/Conv_1": (8, ""),
    },
    "transformer": {
        "Conv_0": (12, ""),
        "MultiHeadDotProductAttention_0/query": (3, ""),
        "MultiHeadDotProductAttention_0/query.inner": (4, "MultiHeadDotProductAttention_0/query"),
        "MultiHeadDotProductAttention_0/value.inner": (4, "MultiHeadDotProductAttention_0/query"),
        "Dense_1": (14, ""),
    },
    "fused": {
        "Dense_0": (12, ""),
        "Dense_1": (3, ""),
        "Dense_1.inner": (4, "Dense_1"),
        "Dense_1.inner:2": (4, "Dense_1"),
    },
    "grouped": {
        "Conv_0": (2, ""),
        "Conv_0.inner": (3, "Conv_0"),
        "Conv_2.inner": (4, "Conv_0"),
        "Conv_3": (5, ""),
        "Conv_4": (7, ""),
    },
    "unruly": {
        "sorted": (8, ""),
        "free": (9, ""),
        "stepped": (4, ""),
        "SimpleCell_0/h": (4, ""),
        "SimpleCell_0/h:2": (4, ""),  # one step from zeros: what reads the carry does not matter
    },
}


@pytest.mark.parametrize("name", list(ZOO))
def test_groups_are_those_a_person_would_write_and_leave_the_outputs_alone(name):
    v = variables(name)
    spec = permutation_spec(ZOO[name].apply, v, batch())
    if name in GROUPS:
        assert {g.name: (g.size, g.parent) for g in spec.groups} == GROUPS[name]
    assert check(spec, ZOO[name].apply, v, batch()) < 1e-5


def test_axes_are_laid_out_as_the_network_lays_them_out():
    layout = {
        name: dict(permutation_spec(ZOO[name].apply, variables(name), batch()).leaves)
        for name in ("flat", "residual_batch", "fused", "grouped")
    }
    flat = layout["flat"]["params/Dense_0/kernel"][0]
    pooled = Fixed(2, "positions of a pooling")
    assert flat == Product((pooled, pooled, Units("Conv_1", 8)))
    padded = layout["residual_batch"]["params/Dense_0/kernel"][0]
    assert padded == Sum((Units("Block_1/Conv_1", 4), Units("Conv_0", 4)), ((0, 2), (1, 4), (0, 2)))
    qkv = layout["fused"]["params/Dense_1/bias"][0]
    heads = Units("Dense_1", 3)
    first, second = (Units(name, 4) for name in ("Dense_1.inner", "Dense_1.inner:2"))
    assert qkv == Sum(
        (Product((heads, first)), Product((heads, first)), Product((heads, second))),
        ((0, 12), (1, 12), (2, 12)),
    )
    joined = layout["grouped"]["params/Conv_4/kernel"][2]
    assert joined == Sum(
        (Product((Units("Conv_0", 2), Units("Conv_2.inner", 4))), Units("Conv_3", 5)),
        ((0, 8), (1, 5)),
    )


def test_what_is_not_understood_is_fixed_and_reported():
    spec = permutation_spec(ZOO["unruly"].apply, variables("unruly"), batch())
    assert any("fft" in note for note in spec.notes)
    text = spec.explain()
    assert "fixed (ranks of sort): " in text
    assert "fixed (cumsum runs along it): " in text
    assert "fixed (the output): " in text


@pytest.mark.parametrize("kind", ["linen", "nnx", "equinox", "dict", "list"])
def test_every_framework_gives_the_same_groups(kind):
    apply, v, _ = graph_nets.networks()[kind]
    x = graph_nets.batch()
    spec = permutation_spec(apply, v, x)
    assert sorted(group.size for group in spec.groups) == [4, 7]
    assert check(spec, apply, v, x) < 1e-5


@pytest.mark.parametrize(
    ("name", "fields", "shape"),
    [
        ("mlp", {"widths": (8, 6)}, (12,)),
        ("lenet5", {}, (28, 28, 1)),
        ("vgg", {"width": 0.0625, "norm": "batch"}, (32, 32, 3)),
        ("resnet_cifar", {"width": 0.25}, (32, 32, 3)),
        ("resnet_cifar", {"width": 0.25, "norm": "layer", "shortcut": "conv3"}, (32, 32, 3)),
        ("vit", {"dim": 8, "depth": 1, "heads": 2, "mlp_dim": 12}, (8, 8, 3)),
    ],
)
def test_the_papers_networks(name, fields, shape):
    module = networks.build(name, 4, **fields)
    x = jax.random.normal(jax.random.key(1), (2, *shape))
    v = drawn(jax.eval_shape(module.init, jax.random.key(0), x), 0)
    spec = permutation_spec(module.apply, v, x)
    assert not spec.notes
    assert check(spec, module.apply, v, x) < 1e-4
    # Nothing but the input's, the output's and positions' axes is fixed.
    reasons = {
        axis.reason
        for _, axes in spec.leaves
        for axis in axes
        if isinstance(axis, Fixed) and axis.size > 1
    }
    assert reasons <= {
        "the input",
        "the output",
        "positions of a convolution",
        "positions of a pooling",
        "a reshape cuts across it",
    }


def test_a_wrong_spec_is_found_out():
    v = variables("dense")
    wrong = permutation_spec_from_axes(
        v, {"g": [("params/Dense_0/kernel", 1), ("params/Dense_1/kernel", 0)]}
    )
    with pytest.raises(MatchingError, match=r"the spec is wrong.*group 'g'"):
        check(wrong, ZOO["dense"].apply, v, batch())


def test_two_small_wrong_groups_do_not_make_up_for_each_other():
    """Two units each, which must move together: each is moved by itself."""
    v = {"first": jnp.ones((3, 2)) + jnp.arange(6.0).reshape(3, 2), "last": jnp.eye(2, 4)}
    wrong = permutation_spec_from_axes(v, {"rows": [("last", 0)], "columns": [("first", 1)]})
    with pytest.raises(MatchingError, match="group 'rows'"):
        check(wrong, lambda w, x: jnp.tanh(x @ w["first"]) @ w["last"], v, jnp.ones((2, 3)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_networks_of_any_precision_are_checked(dtype):
    v = {
        k: p.astype(dtype)
        for k, p in {"first": drawn_pair(3, 16), "last": drawn_pair(16, 4)}.items()
    }

    def apply(w, x):
        return jnp.tanh(x.astype(dtype) @ w["first"].astype(dtype)) @ w["last"].astype(dtype)

    spec = permutation_spec(apply, v, jnp.ones((2, 3)))
    assert check(spec, apply, v, jnp.ones((2, 3))) < 0.1
    wrong = permutation_spec_from_axes(v, {"g": [("first", 1)]})
    with pytest.raises(MatchingError, match="group 'g'"):
        check(wrong, apply, v, jnp.ones((2, 3)))


def drawn_pair(rows, columns):
    return jax.random.normal(jax.random.key(rows), (rows, columns))


def test_leaves_that_are_never_used_stay():
    v = {"w": jnp.ones((3, 4)), "u": jnp.ones((4, 2)), "idle": jnp.ones(4)}
    spec = permutation_spec(lambda v, x: jnp.tanh(x @ v["w"]) @ v["u"], v, jnp.ones((2, 3)))
    assert [g.size for g in spec.groups] == [4]
    assert "fixed (never used): idle axis 0" in spec.explain()
