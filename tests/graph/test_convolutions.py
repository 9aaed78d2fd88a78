"""Convolutions as products against XLA's own, and where they stand instead of them."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fuzz import examples
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from llfc_jax import networks
from llfc_jax.graph import trace
from llfc_jax.graph.convolutions import adapted

LAYOUTS = (("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("HWNC", "IHWO", "CNHW"))


def arrays(*shapes: tuple[int, ...]) -> list[jax.Array]:
    random = np.random.default_rng(0)
    return [jnp.asarray(random.normal(size=shape), jnp.float32) for shape in shapes]


def placed(letters: str, sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(sizes[letter] for letter in letters)


def convolutions(function: Callable[..., Any], *args: Any) -> int:
    """How many convolutions stand in the function's trace."""
    return str(jax.make_jaxpr(function)(*args)).count("conv_general_dilated[")


@examples(25)
@given(
    layout=st.sampled_from(LAYOUTS),
    space=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    taps=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad=st.tuples(*[st.tuples(st.integers(-1, 3), st.integers(0, 3))] * 2),
)
@pytest.mark.slow
def test_a_convolution_and_its_gradients_are_those_of_xla(
    layout: tuple[str, str, str],
    space: tuple[int, int],
    taps: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[tuple[int, int], tuple[int, int]],
) -> None:
    x, kernel = arrays(
        placed(layout[0], {"N": 3, "C": 4, "H": space[0], "W": space[1]}),
        placed(layout[1], {"I": 4, "O": 5, "H": taps[0], "W": taps[1]}),
    )

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, stride, pad, dimension_numbers=layout)

    def padded(x: jax.Array, kernel: jax.Array) -> jax.Array:
        """The same, padded and cropped before: XLA:CPU's own cropping may give any gradient."""
        around = {"H": pad[0], "W": pad[1]}
        x = lax.pad(x, jnp.float32(0), [(*around.get(letter, (0, 0)), 0) for letter in layout[0]])
        return lax.conv_general_dilated(x, kernel, stride, "VALID", dimension_numbers=layout)

    if convolutions(adapted(plain), x, kernel):
        return  # XLA's own
    out, pull = jax.vjp(padded, x, kernel)
    (weights,) = arrays(out.shape)
    chex.assert_trees_all_close(adapted(plain)(x, kernel), out, atol=1e-4)
    if out.size:
        ours = jax.vjp(adapted(plain), x, kernel)[1](weights)
        chex.assert_trees_all_close(ours, pull(weights), atol=1e-4)


@pytest.mark.parametrize(
    ("size", "taps", "left"), [(2, 3, 0), (3, 3, 1), (4, 5, 0), (5, 5, 1), (1, 1, 1), (1, 3, 0)]
)
def test_what_has_more_taps_than_positions_becomes_a_product(
    size: int, taps: int, left: int
) -> None:
    x, kernel = arrays((2, size, size, 3), (taps, taps, 3, 4))

    def apply(kernel: jax.Array, x: jax.Array) -> jax.Array:
        call = jax.jit(lambda x, kernel: lax.conv(x, kernel, (1, 1), "SAME"))
        y = call(jnp.transpose(x, (0, 3, 1, 2)), jnp.transpose(kernel, (3, 2, 0, 1)))
        return y.reshape(len(y), -1)

    assert convolutions(adapted(apply), kernel, x) == left
    graph = trace(apply, kernel, x)
    assert convolutions(lambda k, x: graph.evaluate(k, x).output, kernel, x) == left
    chex.assert_trees_all_close(graph.evaluate(kernel, x).output, apply(kernel, x), atol=1e-5)


@pytest.mark.parametrize(
    "change", [{"feature_group_count": 3}, {"rhs_dilation": (2, 2)}, {"lhs_dilation": (2, 2)}]
)
def test_grouped_and_dilated_ones_stay(change: dict[str, Any]) -> None:
    x, kernel = arrays((2, 2, 2, 3), (3, 3, 3 // change.get("feature_group_count", 1), 3))

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x, kernel, (1, 1), [(3, 3)] * 2, dimension_numbers=LAYOUTS[0], **change
        )

    assert convolutions(adapted(plain), x, kernel) == 1


@pytest.mark.slow
def test_a_network_in_training_keeps_its_loss_gradients_and_statistics() -> None:
    # The last block of a VGG-11 on 32 x 32 images works on 2 x 2 positions: two of 8 convolutions.
    module = networks.build("vgg", 10, depth=11, width=0.05, norm="batch", hidden=(8,))
    (x,) = arrays((6, 32, 32, 3))
    variables = networks.init(module, jax.random.key(0), x)

    def run(variables: Any) -> Any:
        rngs = {"dropout": jax.random.key(1)}
        out, new = module.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])
        return (out**2).mean(), new

    assert convolutions(run, variables) == 8
    assert convolutions(adapted(run), variables) == 6
    ours, plain = (
        jax.jit(jax.value_and_grad(f, has_aux=True))(variables) for f in (adapted(run), run)
    )
    chex.assert_trees_all_close(ours, plain, rtol=1e-3, atol=1e-4)


def test_a_function_without_any_is_called_itself() -> None:
    seen = []

    def function(x: dict[str, jax.Array]) -> dict[str, jax.Array]:
        seen.append(x["once"])
        return {"twice": 2 * x["once"]}

    x = {"once": jnp.ones(3)}
    assert adapted(function)(x)["twice"].tolist() == [2, 2, 2]
    assert seen[-1] is x["once"]
