"""How a loop over training steps, replicas or alphas is run, decided in one place.

What was measured decides (`benchmarks/execution_cliffs.py` prints the ratios for the machine at
hand). On XLA:CPU:

- The backward pass of a convolution inside `lax.scan` (or `map`, `cond`, `while_loop`) is 18 to
  30 times slower than outside. So convolutional steps are called from Python, one dispatch each,
  with donated buffers. Dense networks lose nothing inside a scan and save the dispatches.
- `vmap` over parameters turns a convolution into a grouped one, 1.5 to 2.7 times slower per
  replica in training and 1.7 to 3.3 times slower, with three times the memory, in evaluation.
  So replicas of convolutional networks take turns, and alphas go through `lax.map`.
- Dense replicas cost the same one after the other as batched, up to a quarter less where the
  batch outgrows the caches, and need one program for any number of them. So they take turns too.
- Over alphas a compiled loop (`lax.map`) is as fast as or faster than the others for dense
  networks too, and compiles once instead of once per alpha: unrolled 1.4 times slower and 4 times
  longer to compile at 11 alphas, `vmap` 2 to 3 times slower.

- A convolution whose window is larger than its input (3 x 3 on 2 x 2) is up to 200 times slower
  than the matrix product it is: `graph.convolutions` writes it as one, with no choice to be made.

On GPU and TPU the dispatches and small kernels are what costs: everything is scanned and vmapped.
But where the batch of a step is spread over devices, convolutional networks on one of them take
turns: batched over their weights, XLA would gather the batch for the gradient.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import PyTree

from llfc_jax.types import Inputs, Variables

Tree = TypeVar("Tree")
AlphaLoop = Literal["vmap", "map", "unroll"]


@dataclasses.dataclass(frozen=True)
class LoopPlan:
    """How the three loops are run.

    Attributes:
        steps: training steps: "scan" runs many in one dispatch, "python" one per dispatch.
        replicas: networks trained side by side: "vmap" batches them, "loop" takes turns (on a
            mesh of devices: as many at a time as there are places along its `replica` axis).
        alphas: points on the line between two modes: batched, one after the other in a compiled
            loop, or unrolled in one program.
    """

    steps: Literal["scan", "python"] = "scan"
    replicas: Literal["vmap", "loop"] = "vmap"
    alphas: AlphaLoop = "vmap"


def choose_loops(
    apply: Callable[[Any, Any], Any],
    variables: Variables,
    x: Inputs,
    backend: str | None = None,
    data: int = 1,
) -> LoopPlan:
    """Chooses the loops for a network on a backend; `dataclasses.replace` changes one.

    Args:
        apply: `apply(variables, x)`; only traced, never run.
        variables: the network's variables, or their shapes.
        x: a batch, or its shape.
        backend: "cpu", "gpu" or "tpu"; JAX's default backend if None.
        data: devices that the batch of a step is spread over.
    """
    convolves = has_convolution(apply, variables, x)
    if (backend or jax.default_backend()) != "cpu":
        turns = convolves and data > 1
        return LoopPlan(steps="scan", replicas="loop" if turns else "vmap", alphas="vmap")
    steps = "python" if convolves else "scan"
    return LoopPlan(steps=steps, replicas="loop", alphas="map")


def has_convolution(apply: Callable[[Any, Any], Any], variables: Variables, x: Inputs) -> bool:
    """Returns whether a convolution stands anywhere in the trace of `apply(variables, x)`."""
    # Only the shapes count; a fresh function keeps JAX from caching the trace by identity.
    trace = jax.make_jaxpr(lambda v, x: apply(v, x))(
        *jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (variables, x))
    )
    return any(eqn.primitive.name == "conv_general_dilated" for eqn in _equations(trace.jaxpr))


def _equations(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    """Yields every equation of a jaxpr, those of nested calls and loops included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda v: isinstance(v, core.ClosedJaxpr)
        ):
            if isinstance(value, core.ClosedJaxpr):
                yield from _equations(value.jaxpr)
            elif isinstance(value, core.Jaxpr):
                yield from _equations(value)


def map_over(fn: Callable[[Any], Tree], xs: PyTree, how: AlphaLoop | Literal["loop"]) -> Tree:
    """Maps `fn` over the leading axis of every leaf of `xs` and stacks the results.

    Args:
        fn: takes one entry of `xs`, returns a pytree of arrays.
        xs: a pytree of arrays with one leading axis in common.
        how: "vmap" (batched), "map" (`lax.map`: one after the other, compiled once), "unroll" or
            "loop" (a Python loop: under `jit` it is unrolled into one program, outside it calls
            `fn` once per entry).

    Examples:
        >>> map_over(lambda x: x * 2, jnp.arange(3), "map").tolist()
        [0, 2, 4]
    """
    if how == "vmap":
        return jax.vmap(fn)(xs)
    if how == "map":
        return jax.lax.map(fn, xs)
    count = len(jax.tree.leaves(xs)[0])
    outs = [fn(jax.tree.map(lambda leaf, i=i: leaf[i], xs)) for i in range(count)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *outs)
