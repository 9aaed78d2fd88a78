"""The training loop: `step` run many times per dispatch and over many replicas.

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

from llfc_jax.data import Split
from llfc_jax.parallel import multihost, sharding
from llfc_jax.parallel.loops import LoopPlan
from llfc_jax.training.feed import Data, feed
from llfc_jax.training.state import ORDER, State
from llfc_jax.training.step import Task, step

SECONDS = 0.5  # aim for one dispatch: long enough to cost nothing, short enough to be stopped


def _each(
    task: Task, function: Callable[..., State | jax.Array], shared: tuple[Any, ...] = ()
) -> Callable[..., Any]:
    """`function(*shared, *entry)` over the leading axis of its other arguments.

    A single entry needs no `vmap`. On a mesh, every place along its `replica` axis does this with
    the entries that it has, as if they were all.
    """

    def mapped(shared: tuple[Any, ...], arguments: tuple[Any, ...]) -> Any:
        if len(jax.tree.leaves(arguments)[0]) > 1:
            return jax.vmap(partial(function, *shared))(*arguments)
        one = function(*shared, *jax.tree.map(lambda leaf: leaf[0], arguments))
        return jax.tree.map(lambda leaf: leaf[None], one)

    apart = sharding.shard_map_replicas(mapped, task.mesh)
    return lambda *arguments: apart(shared, arguments)


@partial(jax.jit, static_argnames=("task",))
def _orders(task: Task, states: State) -> jax.Array:
    """Every replica's order of the samples in its present epoch, int32 [replicas, samples]."""

    def one(state: State) -> jax.Array:
        key = jax.random.fold_in(state.stream(ORDER), state.step // task.steps)
        return jax.random.permutation(key, jnp.arange(task.samples, dtype=jnp.int32))

    return _each(task, one)(states)


@partial(jax.jit, static_argnames=("task", "stride"), donate_argnames=("states",))
def _scan(
    task: Task, stride: int, data: Data, orders: jax.Array, states: State, strides: jax.Array
) -> State:
    """`strides` times `stride` steps in one dispatch.

    The number of strides is dynamic, so that one program serves dispatches of any length; the
    steps of a stride are a loop of known length, which accelerators run without asking the host
    after every step whether to go on.
    """

    def some(states: State) -> State:
        return jax.lax.fori_loop(0, stride, lambda _, s: _advance(task, data, orders, s), states)

    return jax.lax.fori_loop(0, strides, lambda _, s: some(s), states)


@partial(jax.jit, static_argnames=("task",), donate_argnames=("states",))
def _single(task: Task, data: Any, orders: jax.Array, states: State) -> State:
    """One step in one dispatch, outside any compiled loop (`execution` says why)."""
    return _advance(task, data, orders, states)


def _advance(task: Task, data: Data, orders: jax.Array, states: State) -> State:
    """One step of every replica, on data of its own or on what all of them share."""
    _, labels = data
    if labels.ndim == orders.ndim:
        return _each(task, partial(step, task))(data, orders, states)
    return _each(task, partial(step, task), (data,))(orders, states)


def place(states: State, plan: LoopPlan, mesh: Mesh | None = None) -> list[State]:
    """Replicas from the host onto the devices, in the groups that advance together.

    One group for all where the plan says `vmap`, one for each where it says `loop`; on a mesh, the
    groups are multiples of its `replica` axis, filled up with zeros, which are not alive. The
    arrays are copies, since training uses its states up.
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


def join(groups: Sequence[State], mesh: Mesh | None = None) -> State:
    """All replicas as one stacked state, what fills up included; on the host without a mesh."""
    if mesh is None:
        return gather(groups)
    return groups[0] if len(groups) == 1 else _concatenated(mesh, list(groups))


@partial(jax.jit, static_argnames=("mesh",))
def _concatenated(mesh: Mesh, groups: list[State]) -> State:
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *groups)
    return sharding.constrain(joined, mesh, sharding.REPLICAS)


def gather(groups: Sequence[State], count: int | None = None) -> State:
    """The opposite of `place`: the first `count` replicas as one stacked state on the host."""
    whole = sharding.fetch(list(groups))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *whole)


def epoch(
    task: Task, plan: LoopPlan, data: Data | Split, groups: list[State], first: int, pace: "Pace"
) -> Iterator[int]:
    """Train to the end of the present epoch, from its step `first` on; `groups` is updated.

    Yields the number of steps done in this epoch after every dispatch; nothing if all replicas
    have diverged. Where the dispatches are cut changes no bit of the result, so an epoch can be
    left and taken up at any step.
    """
    if not any(group.alive.any() for group in groups):
        return
    # Another plan may have left the epoch where no stride of ours ends.
    stride = math.gcd(task.stride, first) if plan.steps == "scan" else 1
    size = task.recipe.batch_size
    feeds = [feed(data, _orders(task, g), first * size, stride * size) for g in groups]
    while first < task.steps:
        pace.count = multihost.maximum(pace.count)
        paced = stride if isinstance(data, Split) else max(stride, pace.count // stride * stride)
        count = min(paced, task.steps - first)
        began = time.monotonic()
        for i, (part, order) in enumerate(map(next, feeds)):
            if plan.steps == "scan":
                strides = jnp.int32(count // stride)
                groups[i] = _scan(task, stride, part, order, groups[i], strides)
            else:
                for _ in range(count):
                    groups[i] = _single(task, part, order, groups[i])
        jax.block_until_ready(groups)
        pace.tell(time.monotonic() - began)
        first += count
        yield first


@dataclasses.dataclass
class Pace:
    """Steps per dispatch, doubled or halved towards `SECONDS` each."""

    count: int = 1

    def tell(self, seconds: float) -> None:
        """Take note of how long the last dispatch took."""
        if seconds < SECONDS:
            self.count *= 2
        elif seconds > 4 * SECONDS:
            self.count = max(1, self.count // 2)
