"""Convolutions whose window is larger than their input, as matrix products where the CPU runs them.

XLA's algebraic simplifier exchanges the two operands of a convolution whose window has more taps
than its input has positions, such as 3 x 3 on 2 x 2: the last block of a VGG on 32 x 32 images.
XLA:CPU then runs it up to 200 times slower than the product of patches and kernel that it is
(`benchmarks/execution_cliffs.py` prints the ratio), and the gradient of its input likewise. So on a
CPU such a convolution is written as that product: in every traced network (`llfc_jax.graph`) and in
training. Nothing else changes, and on other devices nothing at all.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jaxtyping import PyTree

Arrays = tuple[Any, ...]
CALLS = ("jit", "pjit", "closed_call", "core_call")


def bind(primitive: core.Primitive, params: dict[str, Any], values: Sequence[Any]) -> Arrays:
    """One primitive applied to values, as a tuple of its outputs."""
    if _is_swapped(primitive, params, values):
        return (_as_product(*values, **params),)
    params = primitive.get_bind_params(params)  # pyright: ignore[reportAssignmentType]
    # Before JAX 0.10 the call primitives also hand back functions to pass first.
    functions, params = params if isinstance(params, tuple) else ((), params)
    out = primitive.bind(*functions, *values, **params)
    return tuple(out) if primitive.multiple_results else (out,)


def adapted(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with such convolutions as products; it may be differentiated and batched.

    Those inside of `scan`, `cond`, `remat` and functions with a derivative rule of their own stay
    as they are. Where there is none to write otherwise, the function itself is called.

    Args:
        function: of trees of arrays, to a tree of arrays.
    """

    def run(*args: PyTree) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        if not any(_swapped(closed.jaxpr)):
            return function(*args)
        out = _replay(closed.jaxpr, closed.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return run


def _replay(jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom: core.Var | core.Literal) -> Any:
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        values, inner = [read(a) for a in eqn.invars], _body(eqn)
        if inner is not None and any(_swapped(inner.jaxpr)):
            out = _replay(inner.jaxpr, inner.consts, values)
        else:
            out = bind(eqn.primitive, eqn.params, values)
        env |= dict(zip(eqn.outvars, out, strict=True))
    return [read(a) for a in jaxpr.outvars]


def _swapped(jaxpr: core.Jaxpr) -> Iterator[bool]:
    """For each convolution, whether it is one to be written as a product."""
    for eqn in jaxpr.eqns:
        yield _is_swapped(eqn.primitive, eqn.params, [a.aval for a in eqn.invars])
        if (inner := _body(eqn)) is not None:
            yield from _swapped(inner.jaxpr)


def _body(eqn: core.JaxprEqn) -> Any | None:
    """The closed jaxpr of a plain call."""
    if eqn.primitive.name not in CALLS:
        return None
    return eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))


def _is_swapped(primitive: core.Primitive, params: dict[str, Any], values: Sequence[Any]) -> bool:
    if primitive.name != "conv_general_dilated" or jax.default_backend() != "cpu":
        return False
    plain = {params["feature_group_count"], params["batch_group_count"], 1} == {1}
    plain &= {*params["lhs_dilation"], *params["rhs_dilation"], 1} == {1}
    numbers = params["dimension_numbers"]
    x, kernel = (value.shape for value in values)
    space = [x[axis] for axis in numbers.lhs_spec[2:]]
    taps = [kernel[axis] for axis in numbers.rhs_spec[2:]]
    padded = [size + sum(pad) for size, pad in zip(space, params["padding"], strict=True)]
    fits = all(size >= tap for size, tap in zip(padded, taps, strict=True))
    return plain and fits and math.prod(taps) > math.prod(space) > 0


def _as_product(x: jax.Array, kernel: jax.Array, **params: Any) -> jax.Array:
    """The convolution as patches [n, positions..., taps and channels] times the kernel."""
    numbers, strides = params["dimension_numbers"], params["window_strides"]
    batch, channels, *space = numbers.lhs_spec
    x = jnp.transpose(x, (batch, *space, channels))
    out_channels, in_channels, *window = numbers.rhs_spec
    kernel = jnp.transpose(kernel, (*window, in_channels, out_channels))
    taps = kernel.shape[:-2]

    around = [(0, 0, 0), *((low, high, 0) for low, high in params["padding"]), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), around)
    steps = (1, *strides, 1)
    spans = [
        (size - tap) // stride * stride + 1
        for size, tap, stride in zip(x.shape[1:-1], taps, strides, strict=True)
    ]
    patches = jnp.concatenate(
        [
            lax.slice(
                x,
                (0, *first, 0),
                (len(x), *(i + span for i, span in zip(first, spans, strict=True)), x.shape[-1]),
                steps,
            )
            for first in itertools.product(*map(range, taps))
        ],
        axis=-1,
    )
    product = lax.dot_general(
        patches,
        kernel.reshape(-1, kernel.shape[-1]),
        (((patches.ndim - 1,), (0,)), ((), ())),
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )
    # From (n, positions..., channels) to the layout that the equation has.
    batch, channels, *space = numbers.out_spec
    order = sorted(range(product.ndim), key=[batch, *space, channels].__getitem__)
    return jnp.transpose(product, order)
