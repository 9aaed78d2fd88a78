"""Stitching of networks of residual blocks: cut behind a block, as by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax import measures, networks
from llfc_jax.frameworks import Network
from llfc_jax.graph import trace
from llfc_jax.measures.stitching import Stitching
from llfc_jax.tasks import classification

BLOCKS = ("embed", "block0", "dense")


@pytest.fixture(scope="module")
def pair():
    module = networks.build("vit", 4, patch=2, dim=8, depth=1, heads=2, mlp_dim=8)
    x = jax.random.normal(jax.random.key(0), (12, 4, 4, 1))
    a, b = (networks.init(module, jax.random.key(seed), x) for seed in (1, 2))
    return Network.of(module), a, b, x, jnp.arange(12) % 4


def test_networks_are_cut_behind_their_blocks(pair):
    """One network's parameters up to a block, the other's behind it: that is all that is done."""
    network, a, b, x, y = pair
    found = measures.stitching(network, a, b, [(x, y)])
    assert found.layers == BLOCKS
    assert found.cuts.all()
    first = {"embed", "position", "block0"}
    for row, (start, rest) in enumerate(((a, b), (b, a))):
        mixed = {
            "params": {
                name: (start if name in first else rest)["params"][name] for name in a["params"]
            }
        }
        losses, _ = classification().losses(network.apply(mixed, x), y, jnp.ones(12))
        np.testing.assert_allclose(found.loss[1, row], losses.mean(), rtol=1e-5)
    assert not np.allclose(found.loss[0], found.loss[1], rtol=1e-3)


def test_layers_that_are_asked_for_by_name_get_no_blocks_beside_them(pair):
    network, a, _, x, _ = pair
    graph = trace(network, a, x)
    for sites, wanted in ((("embed", "dense"), ("embed", "dense")), (("linear",), BLOCKS)):
        assert Stitching().plan(graph, measures.EvalOptions(sites=sites)) == wanted
