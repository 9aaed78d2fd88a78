"""The same network in Linen, NNX, Equinox and plain functions: the same sites and features."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_nets import SITES, batch, by_hand, networks

from llfc_jax.graph import features, trace

FRAMEWORKS = ("linen", "nnx", "equinox", "dict", "list")


@functools.cache
def built(seed: int = 0) -> dict[str, Any]:
    return networks(seed)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_sites_are_named_from_the_parameters_and_hold_the_features(name: str):
    apply, variables, sites = built()[name]
    x = batch()
    graph = trace(apply, variables, x)
    assert [site.name for site in graph.sites] == list(sites)
    assert [site.kind for site in graph.sites] == ["linear", "activation"] * 2 + ["linear"]
    assert [site.sample_axis for site in graph.sites] == [0] * 5
    values = graph.evaluate(variables, x)
    for site, expected in zip(sites, by_hand(0, x), strict=True):
        found = values[site]
        if name == "equinox" and found.ndim == 4:  # channels first there
            found = found.transpose(0, 2, 3, 1)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert features(values, graph[site]).shape == (5, expected[0].size)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_evaluating_the_trace_is_running_the_network(name: str):
    apply, variables, _ = built()[name]
    x = batch()
    graph = trace(apply, variables, x)
    np.testing.assert_array_equal(graph.evaluate(variables, x).output, apply(variables, x))
    other, y = built(1)[name][1], batch(1)  # other weights and inputs than those traced with
    ours = jax.jit(lambda v, x: graph.evaluate(v, x).output)
    np.testing.assert_array_equal(ours(other, y), jax.jit(apply)(other, y))


def test_linen_nnx_and_a_plain_function_agree_to_the_bit():
    x = batch()
    found = {}
    for name in ("linen", "nnx", "dict", "list"):
        apply, variables, sites = built()[name]
        values = trace(apply, variables, x).evaluate(variables, x)
        found[name] = [values[site] for site in sites]
    for name in ("nnx", "dict", "list"):
        for ours, theirs in zip(found[name], found["linen"], strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_each_linear_site_knows_its_weight(name: str):
    apply, variables, sites = built()[name]
    graph = trace(apply, variables, batch())
    values = graph.evaluate(variables, batch())
    for site, shape in zip(sites[::2], ((3, 3, 2, 4), (144, 7), (7, 3)), strict=True):
        found = graph[site]
        number = graph.program.equations[found.equation].inputs[found.weight]
        assert sorted(values.all[number].shape) == sorted(shape)
        assert found.leaf in graph.program.paths
        leaf = dict(zip(graph.program.paths, jax.tree.leaves(variables), strict=True))[found.leaf]
        assert leaf.size == np.prod(shape)


@pytest.mark.parametrize("name", ["linen", "nnx", "equinox"])
def test_under_jit_vmap_and_grad(name: str):
    apply, variables, sites = built()[name]
    other, x = built(1)[name][1], batch()
    graph = trace(apply, variables, x)

    def loss(values_of: Any, v: Any) -> jax.Array:
        return jnp.sum(jnp.sin(values_of(v, x)))

    ours = jax.jit(jax.grad(functools.partial(loss, lambda v, x: graph.evaluate(v, x).output)))
    theirs = jax.jit(jax.grad(functools.partial(loss, apply)))
    for p, q in zip(jax.tree.leaves(ours(variables)), jax.tree.leaves(theirs(variables)),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(p, q, rtol=1e-5, atol=1e-6)

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), variables, other)
    hidden = sites[2]
    both = jax.vmap(lambda v: graph.evaluate(v, x)[hidden])(stacked)
    for found, v in zip(both, (variables, other), strict=True):
        np.testing.assert_allclose(found, graph.evaluate(v, x)[hidden], rtol=1e-5, atol=1e-6)


def test_names_do_not_depend_on_the_batch_size():
    apply, variables, _ = built()["equinox"]
    for n in (1, 3):  # 3 is also the number of classes
        graph = trace(apply, variables, batch()[:n])
        assert [site.name for site in graph.sites] == list(SITES)
        assert [site.shape[0] for site in graph.sites] == [n] * 5
        assert {site.sample_axis for site in graph.sites} == {0}


def test_only_shapes_are_needed_to_trace():
    apply, variables, sites = built()["linen"]
    shapes = jax.eval_shape(lambda: variables)
    graph = trace(apply, shapes, jax.ShapeDtypeStruct(batch().shape, jnp.float32))
    assert tuple(graph.by_name) == sites
