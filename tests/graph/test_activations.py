"""Activation functions found from the equations: names, values, and what is none."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from llfc_jax.graph import Graph, trace

jnn = jax.nn
X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 6)) * 2, jnp.float32)
V = {
    "a": jnp.asarray(np.random.default_rng(1).normal(size=(6, 6)), jnp.float32),
    "b": jnp.linspace(-1, 1, 6),
    "c": jnp.ones((6, 3)),
}


def traced(function: Any) -> Graph:
    return trace(lambda v, x: function(x @ v["a"] + v["b"][None]) @ v["c"], V, X)


def erf(z: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf)(z)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


NAMED = {
    "relu": [jnn.relu, lambda z: 0.5 * jnn.relu(2 * z), lambda z: jnp.where(z > 0, z, 0)],
    "leaky_relu": [jnn.leaky_relu, lambda z: jnp.maximum(z, 0.2 * z)],
    "relu6": [jnn.relu6, lambda z: jnp.clip(z, 0, 6), lambda z: jax.lax.clamp(0.0, z, 6.0)],
    "clipped_relu": [lambda z: jnp.clip(z, 0, 3), lambda z: jnp.minimum(jnn.relu(z), 20)],
    "gelu": [
        jnn.gelu,
        lambda z: jnn.gelu(z, approximate=False),
        lambda z: 0.5 * z * (1 + jnp.tanh(0.7978845608 * (z + 0.044715 * z**3))),
        lambda z: z * (1 + jax.lax.erf(z / 2**0.5)) * 0.5,
        lambda z: z * jax.scipy.stats.norm.cdf(z),
        lambda z: jnn.gelu(z.astype(jnp.bfloat16)).astype(jnp.float32),
    ],
    "quick_gelu": [lambda z: z * jnn.sigmoid(1.702 * z)],
    "silu": [jnn.silu, lambda z: z * jnn.sigmoid(z), lambda z: z / (1 + jnp.exp(-z))],
    "sigmoid": [jnn.sigmoid, lambda z: 0.5 * (jnp.tanh(z / 2) + 1)],
    "tanh": [jnp.tanh, lambda z: 30 * jnp.tanh(z / 30)],
    "softplus": [jnn.softplus, lambda z: jnp.log1p(jnp.exp(z)), lambda z: jnp.logaddexp(z, 0.0)],
    "elu": [jnn.elu, lambda z: jnp.where(z > 0, z, jnp.exp(z) - 1), lambda z: jnn.elu(z, 0.3)],
    "selu": [jnn.selu],
    "mish": [jnn.mish, lambda z: z * jnp.tanh(jnn.softplus(z))],
    "hard_swish": [jnn.hard_swish, lambda z: z * jnn.relu6(z + 3) / 6],
    "hard_sigmoid": [jnn.hard_sigmoid],
    "hard_tanh": [jnn.hard_tanh],
    "softsign": [jnn.soft_sign, lambda z: z / (1 + jnp.abs(z))],
    "log_sigmoid": [jnn.log_sigmoid],
    "squared_relu": [lambda z: jnn.relu(z) ** 2, lambda z: jnp.square(jnn.relu(z))],
    "sin": [jnp.sin],
    "activation": [
        lambda z: z**2,
        jnp.exp,
        lambda z: z + jnp.sin(z) ** 2,
        jnn.squareplus,
        lambda z: jnn.relu(z) + jnp.tanh(z),
        lambda z: z * jnp.sin(z),
    ],
}
WAYS = [(name, i) for name, ways in NAMED.items() for i in range(len(ways))]


@pytest.mark.parametrize(("name", "way"), WAYS)
def test_an_activation_has_its_name_however_it_is_written(name: str, way: int):
    graph = traced(NAMED[name][way])
    (site,) = graph.activation_sites
    assert (site.name, site.function, site.kind) == (f"a.{name}", name, "activation")
    assert graph.select(name) == (site,)
    assert graph.select("activation") == (site,)
    assert site in graph.select()
    run = graph.evaluate(V, X)
    (source,) = site.inputs
    np.testing.assert_array_equal(graph.activate(site, run.all[source]), run[site.name])


IN_NUMPY = {
    "relu": (jnn.relu, lambda z: np.maximum(z, 0)),
    "gelu": (
        lambda z: jnn.gelu(z, approximate=False),
        lambda z: z / 2 * (1 + erf(z / math.sqrt(2))),
    ),
    "silu": (jnn.silu, lambda z: z * sigmoid(z)),
    "elu": (jnn.elu, lambda z: np.where(z > 0, z, np.expm1(z))),
    "softplus": (jnn.softplus, lambda z: np.logaddexp(z, 0)),
    "hard_swish": (jnn.hard_swish, lambda z: z * np.clip(z + 3, 0, 6) / 6),
    "activation": (lambda z: z + jnp.sin(z) ** 2, lambda z: z + np.sin(z) ** 2),
}


@pytest.mark.parametrize("name", IN_NUMPY)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_a_site_is_activated_on_other_values_in_their_own_type(name: str, dtype: Any):
    """A network in bfloat16 may be measured in float32: nothing is rounded on the way."""
    ours, theirs = IN_NUMPY[name]
    v, x = jax.tree.map(lambda leaf: leaf.astype(dtype), (V, X))
    graph = trace(lambda v, x: ours(x @ v["a"]) @ v["c"], v, x)
    (site,) = graph.activation_sites
    z = np.random.default_rng(3).normal(size=site.shape) * 3
    found = graph.activate(site, jnp.asarray(z, jnp.float32))
    assert found.dtype == jnp.float32
    tolerance = 1e-5 if dtype == jnp.float32 else 0.02  # the network's own constants are rounded
    np.testing.assert_allclose(found, theirs(z), rtol=tolerance, atol=tolerance)


def attention(z: Any) -> Any:
    scores = z @ z.T
    scores = jnp.exp(scores - scores.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True) @ z


def layer_norm_from_moments(z: Any) -> Any:
    mean, square = z.mean(-1, keepdims=True), (z * z).mean(-1, keepdims=True)
    return (z - mean) / jnp.sqrt(square - mean**2 + 1e-5)


NONE = [
    lambda z: z,
    lambda z: 3 * z - 1,
    jnn.softmax,
    jnn.log_softmax,
    lambda z: z - jax.scipy.special.logsumexp(z, axis=-1, keepdims=True),
    lambda z: jnp.exp(z) / jnp.exp(z).sum(-1, keepdims=True),
    jnn.standardize,
    lambda z: (z - z.mean(-1, keepdims=True)) * jax.lax.rsqrt(z.var(-1, keepdims=True) + 1e-5),
    layer_norm_from_moments,
    lambda z: z * jax.lax.rsqrt((z**2).mean(-1, keepdims=True) + 1e-6),
    lambda z: z / jnp.linalg.norm(z, axis=-1, keepdims=True),
    lambda z: z / jnp.abs(z).sum(-1, keepdims=True),
    lambda z: z / (jnp.sqrt((z**2).sum(-1, keepdims=True)) + 1e-6),
    attention,
    lambda z: jnp.maximum(z, -1e9),
    lambda z: jnp.where(jnp.arange(6)[None] < 3, z, -jnp.inf)[:, :3] @ jnp.ones((3, 6)),
    lambda z: z * (z.sum(-1, keepdims=True) > 0),
]


@pytest.mark.parametrize("index", range(len(NONE)))
def test_what_is_affine_or_a_norm_or_a_softmax_is_no_activation(index: int):
    assert traced(NONE[index]).activation_sites == ()


def names(function: Any) -> list[str]:
    return [s.name for s in traced(function).sites if s.kind == "activation"]


def test_gated_units_have_the_activation_of_their_gate():
    assert names(lambda z: jnp.repeat(jnn.glu(z), 2, 1)) == ["a.sigmoid"]
    assert names(lambda z: jnp.repeat(jnn.silu(z[:, :3]) * z[:, 3:], 2, 1)) == ["a.silu"]
    assert names(lambda z: jnp.repeat(jnp.tanh(z[:, :3]) * jnn.sigmoid(z[:, 3:]), 2, 1)) == [
        "a.tanh", "a.sigmoid",
    ]  # fmt: skip

    def swiglu(v: Any, x: Any) -> Any:
        return (jnn.silu(x @ v["gate"]) * (x @ v["up"])) @ v["down"]

    v = {"gate": V["a"], "up": V["a"], "down": V["c"]}
    graph = trace(swiglu, v, X)
    assert [s.name for s in graph.sites] == ["gate", "gate.silu", "up", "down"]


def test_several_activations_of_one_value_and_in_a_row():
    assert names(lambda z: jnp.concatenate([jnn.relu(z), jnn.relu(-z)], 1)[:, 3:9]) == [
        "a.relu", "a.relu#2",
    ]  # fmt: skip
    assert names(lambda z: jnp.sin(jnn.relu(z))) == ["a.relu", "a.sin"]
    two_uses = names(lambda z: (lambda h: h + jnp.tanh(h) * h.sum())(jnn.relu(z)))
    assert two_uses == ["a.relu", "a.tanh"]


MAXOUTS = [
    lambda z: jnp.repeat(z.reshape(-1, 3, 2).max(-1), 2, 1),
    lambda z: jnp.repeat(z.reshape(-1, 2, 3).max(1), 2, 1),
    lambda z: jnp.tile(jnp.stack([z[:, :3], z[:, 3:]]).max(0), 2),
    lambda z: jnp.tile(jnp.maximum(z[:, :2], z[:, 2:4]), 3),
    lambda z: jnp.tile(jnp.maximum(jnp.maximum(z[:, :2], z[:, 2:4]), z[:, 4:]), 3),
]


@pytest.mark.parametrize("index", range(len(MAXOUTS)))
def test_maxout(index: int):
    graph = traced(MAXOUTS[index])
    (site,) = [s for s in graph.sites if s.kind == "activation"]
    assert site.name == "a.maxout"
    run = graph.evaluate(V, X)
    found = graph.activate(site, *(run.all[number] for number in site.inputs))
    np.testing.assert_array_equal(found, run[site.name])


def test_a_pool_over_positions_is_no_maxout():
    def apply(v: Any, x: Any) -> Any:
        h = x.reshape(len(x), 2, 3) @ v["w"]  # [n, positions, units]
        return h.max(1) @ v["o"], jnp.maximum(h[:, 0], h[:, 1]) @ v["o"]

    v = {"w": jnp.ones((3, 4)), "o": jnp.ones((4, 3))}
    for i in range(2):
        graph = trace(lambda v, x, i=i: apply(v, x)[i], v, X)
        assert [s.name for s in graph.sites if s.kind == "activation"] == []


class SqueezeExcite(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.hard_swish(nn.GroupNorm(2)(nn.Conv(4, (3, 3), name="conv")(x)))
        s = nn.relu(nn.Dense(2, name="down")(x.mean((1, 2))))
        x = x * nn.hard_sigmoid(nn.Dense(4, name="up")(s))[:, None, None]
        return nn.Dense(3, name="out")(nn.LayerNorm()(x.mean((1, 2))))


def test_a_network_with_many_of_them():
    x = jnp.zeros((2, 6, 6, 3))
    net = SqueezeExcite()
    graph = trace(net.apply, net.init(jax.random.key(0), x), x)
    found = [s.name for s in graph.sites if s.kind == "activation"]
    assert found == ["conv.hard_swish", "down.relu", "up.hard_sigmoid"]


def test_what_x_alone_goes_through_is_no_activation():
    graph = trace(lambda v, x: jnp.sin(3 * x) @ v["a"] + jnp.log1p(x**2) @ v["a"], V, X)
    assert graph.activation_sites == ()
