"""The samples' axis, followed through the equations, against that of a second trace."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax import networks
from llfc_jax.graph import sample_axes, trace
from llfc_jax.graph.origins import origins
from llfc_jax.graph.trace import flatten


def compared(apply: Any, variables: Any, x: Any) -> bool:
    """Whether both ways agree wherever there is data; False where the first gives up."""
    program = flatten(apply, variables, x)
    followed = sample_axes._follow(program)
    if followed is None:
        return False
    larger = jax.ShapeDtypeStruct((x.shape[0] + 1, *x.shape[1:]), x.dtype)
    second = sample_axes._sample_axes(program, flatten(apply, variables, larger))
    data = origins(program).data
    assert {n: followed[n] for n in data} == {n: second[n] for n in data}
    return True


@pytest.mark.parametrize("name", ["lenet5", "resnet_cifar", "vgg"])
def test_networks_are_followed_without_a_second_trace(name: str):
    sizes = {} if name == "lenet5" else {"width": 0.125}
    net = networks.build(name, 10, **sizes)
    shape = (4, 28, 28, 1) if name == "lenet5" else (4, 32, 32, 3)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), x)
    assert compared(net.apply, variables, x)


STEPS = [
    lambda h: jnp.moveaxis(h, 0, -1),
    lambda h: jnp.swapaxes(h, 0, 1),
    lambda h: h.reshape(-1, h.shape[-1]),
    lambda h: h.reshape(h.shape[0], -1),
    lambda h: h[None],
    lambda h: h[..., None],
    lambda h: h.sum(-1),
    lambda h: h.mean(0),
    lambda h: jnp.concatenate([h, 2 * h], -1),
    lambda h: jnp.concatenate([h, h], 0),
    lambda h: h[..., 1:],
    lambda h: jax.nn.gelu(h),
    lambda h: jax.nn.softmax(h),
    lambda h: jnp.cumsum(h, -1),
    lambda h: h - h.max(-1, keepdims=True),
    lambda h: jnp.einsum("...a,...b->...ab", h, h),
    lambda h: h @ jnp.swapaxes(h, -1, -2) if h.ndim > 1 else h,
    lambda h: jnp.pad(h, [(0, 0)] * (h.ndim - 1) + [(1, 1)]),
    lambda h: jnp.broadcast_to(h, (3, *h.shape)),
    lambda h: jnp.flip(h, 0),
]


def test_random_layouts():
    followed = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        chosen = rng.integers(0, len(STEPS), 5)

        def apply(v: Any, x: Any, chosen: Any = chosen) -> Any:
            h = x
            for i in chosen:
                if 1 < h.ndim < 6 and h.shape[-1] > 1:
                    h = STEPS[i](h)
            return h * v

        followed += compared(apply, jnp.float32(1), jnp.zeros((4, 3, 5)))
    assert followed > 30


def test_a_network_is_traced_once_for_each_shape():
    calls = []

    def apply(w: Any, x: Any) -> Any:
        calls.append(x.shape)
        return jnp.tanh(x @ w)

    w, x = jnp.ones((3, 2)), jnp.ones((4, 3))
    graph = trace(apply, w, x)
    assert trace(apply, 2 * w, x + 1) is graph
    assert calls == [(4, 3)]
    inside = []
    jax.jit(lambda w, x: inside.append(trace(apply, w, x)) or x)(w, x)
    assert inside == [graph]
    assert trace(apply, w, x[:3]) is not graph
    with jax.default_matmul_precision("highest"):
        assert trace(apply, w, x) is not graph
    assert len(calls) == 3


def test_a_trace_that_holds_values_of_an_outer_function_is_not_kept():
    @jax.jit
    def outer(shift: Any) -> Any:
        def apply(w: Any, x: Any) -> Any:
            return x @ w + shift

        w, x = jnp.ones((3, 2)), jnp.ones((4, 3))
        first, second = trace(apply, w, x), trace(apply, w, x)
        assert first is not second
        return second.evaluate(w, x).output

    np.testing.assert_array_equal(outer(1.0), np.full((4, 2), 4.0))
    np.testing.assert_array_equal(outer(2.0), np.full((4, 2), 5.0))
