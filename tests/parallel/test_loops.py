"""Plans follow the trace and the backend; `map_over` gives the same by every way."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax.parallel.loops import LoopPlan, choose_loops, has_convolution, map_over

X = jax.ShapeDtypeStruct((2, 6, 6, 1), "float32")
KERNEL = jax.ShapeDtypeStruct((3, 3, 1, 1), "float32")


def convolve(kernel, x):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def dense(weights, x):
    return x.reshape(2, -1) @ weights


@jax.custom_vjp
def with_rule(kernel, x):
    return convolve(kernel, x)


with_rule.defvjp(lambda k, x: (convolve(k, x), (k, x)), lambda saved, g: saved)

NESTED = {
    "plain": convolve,
    "jit": jax.jit(convolve),
    "checkpoint": jax.checkpoint(convolve),
    "custom_vjp": with_rule,
    "scan": lambda k, x: jax.lax.scan(lambda c, _: (convolve(k, c), None), x, None, 2)[0],
    "while": lambda k, x: jax.lax.fori_loop(0, x.shape[0], lambda _, c: convolve(k, c), x),
    "cond": lambda k, x: jax.lax.cond(x.sum() > 0, lambda: convolve(k, x), lambda: x),
}


@pytest.mark.parametrize("apply", NESTED.values(), ids=NESTED.keys())
def test_convolutions_are_found_however_deep(apply):
    assert has_convolution(apply, KERNEL, X)
    assert choose_loops(apply, KERNEL, X, "cpu") == LoopPlan(
        steps="python", replicas="loop", alphas="map"
    )


def test_dense_networks_and_accelerators():
    weights = jax.ShapeDtypeStruct((36, 3), "float32")
    assert not has_convolution(dense, weights, X)
    assert choose_loops(dense, weights, X, "cpu") == LoopPlan("scan", "loop", "map")
    for backend in ("gpu", "tpu"):
        assert choose_loops(convolve, KERNEL, X, backend) == LoopPlan("scan", "vmap", "vmap")
        assert choose_loops(convolve, KERNEL, X, backend, data=2) == LoopPlan(
            "scan", "loop", "vmap"
        )
        assert choose_loops(dense, weights, X, backend, data=2) == LoopPlan("scan", "vmap", "vmap")
    assert choose_loops(dense, weights, X) == choose_loops(dense, weights, X, jax.default_backend())
    assert dataclasses.replace(choose_loops(dense, weights, X), replicas="vmap").replicas == "vmap"


@pytest.mark.parametrize("how", ["vmap", "map", "unroll", "loop"])
@pytest.mark.parametrize("compiled", [False, True])
def test_over_maps_trees_by_every_way(how, compiled):
    xs = {"a": jnp.arange(6.0).reshape(3, 2), "b": jnp.arange(3)}

    def mapped(xs):
        return map_over(lambda x: (x["a"].sum() + x["b"], x["a"] * 2), xs, how)

    total, twice = (jax.jit(mapped) if compiled else mapped)(xs)
    np.testing.assert_array_equal(total, [1, 6, 11])
    np.testing.assert_array_equal(twice, xs["a"] * 2)
