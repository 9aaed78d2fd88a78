"""The training loop: `take_step` run many times per dispatch and over many replicas.

The train split lies on each device once, as stored (uint8), shared by all replicas, or is streamed
if it is too large (`feed`). Each replica takes its batches in an order of its own, a fresh
permutation per epoch.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key

from llfc_jax.data import Split
from llfc_jax.parallel import multihost, sharding
from llfc_jax.parallel.loops import LoopPlan
from llfc_jax.training.feed import Samples, feed_dispatches
from llfc_jax.training.state import ORDER, TrainState
from llfc_jax.training.step import Setup, take_step

DISPATCH_SECONDS = 0.5  # aimed at: long enough to cost nothing, short enough to be interrupted


@partial(jax.jit, static_argnames=("setup",))
def _draw_orders(setup: Setup, states: TrainState) -> Int[Array, "replica samples"]:
    """Draws every replica's order of the samples in its present epoch."""

    def one(state: TrainState) -> jax.Array:
        key = jax.random.fold_in(state.stream(ORDER), state.step // setup.steps)
        if setup.ranges:
            return _draw_within(key, setup, state.variant)
        return jax.random.permutation(key, jnp.arange(setup.samples, dtype=jnp.int32))

    return _map_replicas(setup, one)(states)


def _draw_within(key: Key[Array, ""], setup: Setup, variant: jax.Array) -> Int[Array, " samples"]:
    """Draws as many different samples of one variant of the data as an epoch has, in any order."""
    total = max(start + count for start, count in setup.ranges)
    start, count = jnp.asarray(setup.ranges, jnp.int32)[variant]
    index = jnp.arange(total, dtype=jnp.int32)
    outside = (index < start) | (index >= start + count)
    order = jnp.lexsort((jax.random.bits(key, (total,)), outside))
    return order[: setup.samples].astype(jnp.int32)


@partial(jax.jit, static_argnames=("setup", "stride"), donate_argnames=("states",))
def _scan_steps(
    setup: Setup,
    stride: int,
    data: Samples,
    orders: jax.Array,
    states: TrainState,
    strides: jax.Array,
) -> TrainState:
    """Takes `strides` times `stride` steps in one dispatch.

    The number of strides is dynamic, so that one program serves dispatches of any length; the
    steps of a stride are a loop of known length, which accelerators run without asking the host
    after every step whether to continue.
    """

    def take_stride(states: TrainState) -> TrainState:
        return jax.lax.fori_loop(0, stride, lambda _, s: _advance(setup, data, orders, s), states)

    return jax.lax.fori_loop(0, strides, lambda _, s: take_stride(s), states)


@partial(jax.jit, static_argnames=("setup",), donate_argnames=("states",))
def _single_step(setup: Setup, data: Samples, orders: jax.Array, states: TrainState) -> TrainState:
    """Takes one step in one dispatch, outside any compiled loop (`parallel.loops` says why)."""
    return _advance(setup, data, orders, states)


def _advance(setup: Setup, data: Samples, orders: jax.Array, states: TrainState) -> TrainState:
    """Takes one step of every replica, on its own samples or on those that all share."""
    if setup.streamed:
        return _map_replicas(setup, partial(take_step, setup))(data, orders, states)
    return _map_replicas(setup, partial(take_step, setup), (data,))(orders, states)


def _map_replicas(
    setup: Setup, function: Callable[..., TrainState | jax.Array], shared: tuple[Any, ...] = ()
) -> Callable[..., Any]:
    """Maps `function(*shared, *entry)` over the leading axis of its other arguments.

    A single entry needs no `vmap`. On a mesh, every place along its `replica` axis does this with
    the entries that it has.
    """

    def mapped(shared: tuple[Any, ...], arguments: tuple[Any, ...]) -> Any:
        if len(jax.tree.leaves(arguments)[0]) > 1:
            return jax.vmap(partial(function, *shared))(*arguments)
        one = function(*shared, *jax.tree.map(lambda leaf: leaf[0], arguments))
        return jax.tree.map(lambda leaf: leaf[None], one)

    sharded = sharding.shard_map_replicas(mapped, setup.mesh)
    return lambda *arguments: sharded(shared, arguments)


def place_states(states: TrainState, plan: LoopPlan, mesh: Mesh | None = None) -> list[TrainState]:
    """Copies replicas from the host to the devices, in the groups that advance together.

    One group for all where the plan says `vmap`, one for each where it says `loop`; on a mesh, the
    groups are multiples of its `replica` axis, filled up with zeros, which are not alive. The
    arrays are copies, since training donates its states.
    """
    parts = sharding.size(mesh, sharding.REPLICAS)
    count = len(states.step)
    size = -(-count // parts) * parts if plan.replicas == "vmap" else parts

    def group(leaf: np.ndarray, first: int) -> np.ndarray:
        some = leaf[first : first + size]
        lacking = [(0, size - len(some))] + [(0, 0)] * (some.ndim - 1)
        return some if len(some) == size else np.pad(some, lacking)

    groups = [jax.tree.map(partial(group, first=i), states) for i in range(0, count, size)]
    return [sharding.put(each, mesh, sharding.REPLICAS, copy=True) for each in groups]


def join_states(groups: Sequence[TrainState], mesh: Mesh | None = None) -> TrainState:
    """Returns all replicas as one stacked state, padding included; on the host without a mesh."""
    if mesh is None:
        return gather_states(groups)
    return groups[0] if len(groups) == 1 else _concatenate(mesh, list(groups))


@partial(jax.jit, static_argnames=("mesh",))
def _concatenate(mesh: Mesh, groups: list[TrainState]) -> TrainState:
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *groups)
    return sharding.constrain(joined, mesh, sharding.REPLICAS)


def gather_states(groups: Sequence[TrainState], count: int | None = None) -> TrainState:
    """Undoes `place_states`: the first `count` replicas as one stacked state on the host."""
    whole = sharding.fetch(list(groups))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *whole)


def run_epoch(
    setup: Setup,
    plan: LoopPlan,
    data: Samples | Split,
    groups: list[TrainState],
    first: int,
    pace: "Pace",
) -> Iterator[int]:
    """Trains to the end of the present epoch, from its step `first` on; updates `groups`.

    Where the dispatches are cut changes no bit of the result, so an epoch can be left and resumed
    at any step.

    Yields:
        The number of steps done in this epoch, after every dispatch; nothing if all replicas have
        diverged.
    """
    if not any(group.alive.any() for group in groups):
        return
    # Another plan may have left the epoch where none of our strides ends.
    stride = math.gcd(setup.stride, first) if plan.steps == "scan" else 1
    size = setup.recipe.batch_size
    feeds = [
        feed_dispatches(data, _draw_orders(setup, g), first * size, stride * size) for g in groups
    ]
    while first < setup.steps:
        pace.count = multihost.maximum(pace.count)
        paced = stride if isinstance(data, Split) else max(stride, pace.count // stride * stride)
        count = min(paced, setup.steps - first)
        began = time.monotonic()
        for i, (part, order) in enumerate(map(next, feeds)):
            if plan.steps == "scan":
                strides = jnp.int32(count // stride)
                groups[i] = _scan_steps(setup, stride, part, order, groups[i], strides)
            else:
                for _ in range(count):
                    groups[i] = _single_step(setup, part, order, groups[i])
        jax.block_until_ready(groups)
        pace.update(time.monotonic() - began)
        first += count
        yield first


@dataclasses.dataclass
class Pace:
    """Steps per dispatch, doubled or halved towards `DISPATCH_SECONDS` each."""

    count: int = 1

    def update(self, seconds: float) -> None:
        """Adapts the count to the duration of the last dispatch."""
        if seconds < DISPATCH_SECONDS:
            self.count *= 2
        elif seconds > 4 * DISPATCH_SECONDS:
            self.count = max(1, self.count // 2)
