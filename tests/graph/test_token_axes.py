"""Where tokens stand in networks that take one length only, whatever else is of that length."""

import jax
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


@pytest.mark.parametrize("size", SIZES)
def test_every_measure_reads_a_network_of_one_length_as_wide_as_its_text_is_long(size):
    network, _, x = made(size, positions="learned", mlp="gelu")
    a, b = (network.init(jax.random.key(i), x) for i in (1, 2))
    options = measures.EvalOptions(task=tasks.build("tokens"), per="token")
    found = measures.commutativity(network, a, b, [(x, x)], options=options)
    assert len(found.layers) == 7
    assert np.isfinite(found.dist_com).all()
