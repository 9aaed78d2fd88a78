"""Where tokens stand in networks that take one length only, whatever else is of that length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax import measures, tasks
from llfc_jax.graph import trace
from llfc_jax.graph.token_axes import _tied, find_token_axes
from llfc_jax.networks.gpt import GPT

# length, width, heads, hidden units, samples, words
SIZES = [(8, 8, 2, 8, 4, 8), (8, 8, 4, 16, 8, 11), (4, 8, 2, 4, 4, 4), (6, 12, 2, 6, 6, 9)]


def made(size, **fields):
    length, dim, heads, hidden, n, words = size
    network = GPT(words, dim=dim, depth=1, heads=heads, mlp_dim=hidden, length=length, **fields)
    x = np.random.default_rng(0).integers(0, words, (n, length)).astype(np.int32)
    return network, jax.eval_shape(network.init, jax.random.key(0), x), x


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_followed_through_the_equations_they_stand_where_a_shorter_text_shows_them(size, mlp, norm):
    network, v, x = made(size, mlp=mlp, norm=norm, positions="none")
    graph = trace(network.apply, v, x)
    shown = find_token_axes(graph, network.apply, v, x, x.shape[1])
    followed = _tied(graph.program, graph.sample_axes, x.shape[1])
    wrong = [n for n, axis in followed.items() if axis is not None and axis != shown[n]]
    assert not wrong
    assert [followed[s.value] for s in graph.sites] == [shown[s.value] for s in graph.sites]


def mixer(w, x):
    """Reads tokens of [n, t, d], mixes them twice, sums them up, and classifies."""
    h = jnp.tanh(jnp.einsum("ntd,de->nte", x, w["in"]) + w["place"][None])
    h = h + jnp.einsum("nse,st->nte", h, w["mix"])
    hidden = jnp.tanh(jnp.einsum("nse,sk->nke", h, w["down"]))
    h = h + jnp.einsum("nke,kt->nte", hidden, w["up"])
    return jax.nn.relu(h.mean(1) @ w["head"]) @ w["out"]


@pytest.mark.parametrize(("t", "d", "k"), [(6, 6, 5), (6, 5, 7), (6, 4, 6), (5, 6, 6), (6, 7, 5)])
def test_weights_bring_other_tokens_and_a_sum_leaves_none(t, d, k):
    rng, n = np.random.default_rng(0), 4
    shapes = {"in": (t, d), "place": (t, d), "mix": (t, t), "down": (t, k), "up": (k, t),
              "head": (d, t), "out": (t, 3)}  # fmt: skip
    w = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    graph = trace(mixer, w, rng.normal(size=(n, t, t)).astype(np.float32))
    followed = _tied(graph.program, graph.sample_axes, t)
    for number, axis in followed.items():
        shape, samples = graph.program.avals[number].shape, graph.sample_axes[number]
        if samples is None or len(shape) < 3:  # parameters, and what is behind the sum
            assert axis is None
        elif d not in (t, k) and k != t:
            assert axis == (shape.index(t) if t in shape else None)
    assert followed[graph.sites[0].value] == 1


@pytest.mark.parametrize("size", SIZES)
def test_every_measure_reads_a_network_of_one_length_as_wide_as_its_text_is_long(size):
    network, _, x = made(size, positions="learned", mlp="gelu")
    a, b = (network.init(jax.random.key(i), x) for i in (1, 2))
    options = measures.EvalOptions(task=tasks.build("tokens"), per="token")
    found = measures.commutativity(network, a, b, [(x, x)], options=options)
    assert len(found.layers) == 7
    assert np.isfinite(found.dist_com).all()
