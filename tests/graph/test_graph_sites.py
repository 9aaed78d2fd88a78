"""Which values of a trace are sites, and what they are called."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from llfc_jax import networks
from llfc_jax.errors import GraphError
from llfc_jax.graph import Graph, features, trace
from llfc_jax.graph.sites import layer_paths

KEY = jax.random.key(0)


def traced(module: nn.Module, shape: tuple[int, ...]) -> Graph:
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return trace(module.apply, jax.eval_shape(module.init, KEY, x), x)


def of_kind(graph: Graph, kind: str) -> list[str]:
    return [site.name for site in graph.sites if kind in (site.kind, site.function)]


def test_mlp_and_lenet():
    graph = traced(networks.build("mlp", 3, widths=(4, 5)), (2, 6))
    names = ["Dense_0", "Dense_0.relu", "Dense_1", "Dense_1.relu", "Dense_2"]
    assert [site.name for site in graph.sites] == names
    graph = traced(networks.build("lenet5", 10), (2, 28, 28, 1))
    assert of_kind(graph, "linear") == ["Conv_0", "Conv_1", "Dense_0", "Dense_1", "Dense_2"]
    assert of_kind(graph, "relu") == ["Conv_0.relu", "Conv_1.relu", "Dense_0.relu", "Dense_1.relu"]
    assert graph["Conv_1"].shape == (2, 10, 10, 16)


def test_resnet_has_every_functional_relu_and_every_block():
    graph = traced(networks.build("resnet_cifar", 10, width=0.25), (2, 32, 32, 3))
    blocks = [f"stage{s}_block{b}" for s in (1, 2, 3) for b in range(3)]
    convolutions = ["conv1"] + [f"{block}/conv{i}" for block in blocks for i in (1, 2)]
    assert of_kind(graph, "linear") == [*convolutions, "dense"]
    assert of_kind(graph, "relu") == [f"{name}.relu" for name in convolutions]
    modules = of_kind(graph, "module")
    assert [name for name in modules if "norm" not in name] == blocks
    # A block hands out what its last ReLU gives; a norm what it makes of its convolution.
    assert graph["stage2_block0"].value == graph["stage2_block0/conv2.relu"].value
    assert graph["stage2_block0/norm2"].value != graph["stage2_block0/conv2"].value


class Norms(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Dense(4, name="first")(x)
        x = nn.relu(nn.LayerNorm(name="layer")(x))
        x = nn.GroupNorm(2, name="group")(nn.Dense(4, name="second")(x))
        return nn.Dense(3, name="out")(nn.relu(x))


def test_a_norms_clamp_of_its_variance_is_no_relu():
    graph = traced(Norms(), (2, 5))
    clamps = [eq for eq in graph.program.equations if eq.name == "max"]
    assert len(clamps) == 2  # one in each norm; the ReLUs are custom_jvp_call
    assert of_kind(graph, "relu") == ["first.relu", "second.relu"]
    assert of_kind(graph, "module") == ["layer", "group"]

    norm = eqx.nn.LayerNorm(4)
    first = jnp.ones((5, 4))
    graph = trace(
        lambda v, x: jax.vmap(lambda row: jax.nn.relu(v[1](row @ v[0])))(x),
        (first, norm),
        jnp.ones((2, 5)),
    )
    assert [site.name for site in graph.sites] == ["0", "0.relu"]


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.MultiHeadDotProductAttention(2, name="attention")(x)
        return nn.Dense(3, name="out")(x.mean(1))


def test_attention_projections_are_linear_sites_and_scores_are_not():
    graph = traced(Attention(), (5, 6, 8))
    projections = [f"attention/{name}" for name in ("query", "key", "value", "out")]
    assert sorted(of_kind(graph, "linear")) == sorted([*projections, "out"])
    products = [eq for eq in graph.program.equations if eq.name == "dot_general"]
    assert len(products) == 7  # two of them multiply features with features
    assert graph["attention/query"].shape == (5, 6, 2, 4)
    assert graph["attention/out"].shape == (5, 6, 8)


def test_a_site_is_the_value_after_the_bias():
    def apply(v: Any, x: Any) -> Any:
        with_bias = x @ v["a"] + v["bias"][None]
        no_bias = jnp.tanh(with_bias @ v["b"])
        residual = no_bias @ v["c"] + x  # x is no bias
        return residual @ v["d"] + 1.0  # nor is a constant

    v = {name: jnp.eye(4) for name in "abcd"} | {"bias": jnp.ones(4)}
    x = jnp.ones((3, 4))
    graph = trace(apply, v, x)
    values = graph.evaluate(v, x)
    np.testing.assert_array_equal(values["a"], x + 1)
    np.testing.assert_array_equal(values["b"], x + 1)
    np.testing.assert_array_equal(values["c"], jnp.tanh(x + 1))
    np.testing.assert_allclose(values["d"], jnp.tanh(x + 1) + x)


@pytest.mark.parametrize(
    "relu",
    [
        jax.nn.relu,
        lambda x: jnp.maximum(x, 0),
        lambda x: jnp.maximum(0.0, x),
        lambda x: jax.lax.max(x, jnp.zeros_like(x)),
        lambda x: jnp.clip(x, min=0),
        lambda x: jnp.maximum(x, np.zeros(4, np.float32)[None]),
        jax.jit(lambda x: jnp.maximum(x, 0)),
    ],
)
def test_a_relu_however_it_was_written(relu: Any):
    graph = trace(lambda v, x: relu(x @ v), jnp.eye(4), jnp.ones((3, 4)))
    (site,) = [site for site in graph.sites if site.function == "relu"]
    x = jnp.linspace(-1, 1, 12).reshape(3, 4)
    np.testing.assert_array_equal(graph.evaluate(jnp.eye(4), x)[site.name], x.clip(0))


@pytest.mark.parametrize(
    "other",
    [
        lambda x: jnp.maximum(x, 1),
        lambda x: jnp.maximum(x, -x),
        jax.nn.gelu,
        jax.nn.sigmoid,
        jnp.abs,
        lambda x: jnp.minimum(x, 0),
        lambda x: x.max(1, keepdims=True),
    ],
)
def test_what_is_no_relu(other: Any):
    graph = trace(lambda v, x: other(x @ v), jnp.eye(4), jnp.ones((3, 4)))
    assert of_kind(graph, "relu") == []


def test_a_layer_called_twice_has_two_sites():
    def apply(v: Any, x: Any) -> Any:
        return jax.nn.relu(jax.nn.relu(x @ v["shared"]) @ v["shared"])

    graph = trace(apply, {"shared": jnp.eye(4)}, jnp.ones((3, 4)))
    names = ["shared", "shared.relu", "shared#2", "shared.relu#2"]
    assert [site.name for site in graph.sites] == names


def test_a_weight_made_of_parameters_is_named_after_the_largest():
    def apply(v: Any, x: Any) -> Any:
        return x @ (v["scale"][None] * v["direction"] / jnp.linalg.norm(v["direction"]))

    graph = trace(apply, {"direction": jnp.eye(4), "scale": jnp.ones(4)}, jnp.ones((3, 4)))
    assert [site.name for site in graph.sites] == ["direction"]
    assert graph["direction"].leaf == ""  # no single leaf is its weight


def test_selecting_by_kind_and_pattern():
    graph = traced(networks.build("mlp", 3, widths=(4, 5)), (2, 6))

    def names(patterns: Any) -> list[str]:
        return [site.name for site in graph.select(patterns)]

    assert names("linear") == ["Dense_0", "Dense_1", "Dense_2"]
    assert names(("relu", "Dense_2")) == ["Dense_0.relu", "Dense_1.relu", "Dense_2"]
    assert names("Dense_1*") == ["Dense_1", "Dense_1.relu"]
    assert names("all") == list(graph.by_name)
    assert names(("linear", "module")) == ["Dense_0", "Dense_1", "Dense_2"]  # it has no modules
    with pytest.raises(GraphError, match=r"^unknown site 'Dense_9'; did you mean 'Dense_"):
        graph.select("Dense_9")
    with pytest.raises(GraphError, match="no site that matches"):
        graph.select("module")


def samples_apart(graph: Graph, variables: Any, x: Any, name: str) -> bool:
    """Whether row i of a site's features depends on sample i alone."""
    before = features(graph.evaluate(variables, x), graph[name])
    after = features(graph.evaluate(variables, x.at[1].add(1)), graph[name])
    moved = np.asarray(jnp.abs(before - after).max(1) > 0)
    return moved.tolist() == [i == 1 for i in range(len(x))]


def test_samples_stand_along_the_right_axis():
    x = jax.random.normal(KEY, (4, 6, 4))  # as many features as samples
    v = {"w": jax.random.normal(KEY, (4, 4)), "out": jnp.eye(4)}

    def last(v: Any, x: Any) -> Any:  # [features, samples]
        return (jnp.maximum(v["w"] @ x.mean(1).T, 0).T) @ v["out"]

    def merged(v: Any, x: Any) -> Any:  # [samples * tokens, features]
        tokens = jnp.maximum(x.reshape(-1, 4) @ v["w"], 0)
        return tokens.reshape(len(x), 6, 4).mean(1) @ v["out"]

    def single(v: Any, x: Any) -> Any:  # vmap leaves the samples behind the features
        return jax.vmap(lambda x: (v["w"] @ jnp.maximum(v["w"] @ x.mean(0), 0)) @ v["out"])(x)

    for apply, axis in ((last, 1), (merged, 0), (single, 1)):
        graph = trace(apply, v, x)
        assert graph["w"].sample_axis == axis
        for site in graph.sites:
            assert samples_apart(graph, v, x, site.name)


def test_tokens_first_has_no_axis_of_samples():
    """Rows that mix samples would be compared silently; they are no features."""
    v = {"w": jnp.eye(4), "out": jnp.ones((4, 3))}

    def tokens_first(v: Any, x: Any) -> Any:
        tokens = jnp.maximum(x.transpose(1, 0, 2).reshape(-1, 4) @ v["w"], 0)
        return tokens.reshape(6, len(x), 4).mean(0) @ v["out"]

    x = jax.random.normal(KEY, (5, 6, 4))
    graph = trace(tokens_first, v, x)
    assert graph["w"].sample_axis is None
    assert [site.name for site in graph.select("all")] == ["out"]
    assert samples_apart(graph, v, x, "out")
    with pytest.raises(GraphError, match="sample axis"):
        features(graph.evaluate(v, x), graph["w"])


def test_every_leaf_belongs_to_one_layer():
    graph = traced(networks.build("resnet_cifar", 10, width=0.25), (2, 32, 32, 3))
    layers = layer_paths(graph.program, graph.sites)
    assert list(layers) == of_kind(graph, "linear")
    together = [path for paths in layers.values() for path in paths]
    assert sorted(together) == sorted(graph.program.paths)
    assert set(layers["conv1"]) == {
        "params/conv1/kernel",
        "params/norm1/scale",
        "params/norm1/bias",
        "batch_stats/norm1/mean",
        "batch_stats/norm1/var",
    }
