"""The training loop: one pure step, run many times per dispatch and over many replicas.

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
import optax
from flax import linen as nn
from jax.sharding import Mesh

from llfc_jax import hosts
from llfc_jax import mesh as layout
from llfc_jax.data import Dataset, Split, normalise
from llfc_jax.errors import ConfigError
from llfc_jax.execution import Plan
from llfc_jax.lowering import adapted
from llfc_jax.training.augment import augment
from llfc_jax.training.feed import Data, feed
from llfc_jax.training.recipe import Rates, Recipe
from llfc_jax.training.state import AUGMENT, DROPOUT, ORDER, State

SECONDS = 0.5  # aim for one dispatch: long enough to cost nothing, short enough to be stopped


@dataclasses.dataclass(frozen=True)
class Task:
    """What a training step depends on apart from state and data; static under jit.

    Attributes:
        module: the network, called as `module(x, train=True)`.
        recipe: how it is trained, but for its `rates`: those are data (`State.rates`), so that
            one program serves all.
        samples: size of the train split.
        mean: pixel mean per channel, taken off.
        std: pixel deviation per channel, divided by.
        mesh: the devices, if there are several.
    """

    module: nn.Module
    recipe: Recipe
    samples: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mesh: Mesh | None = None

    @property
    def steps(self) -> int:
        """Steps in one epoch; an incomplete last batch is dropped."""
        return self.samples // self.recipe.batch_size

    @property
    def stride(self) -> int:
        """Steps that a scan does at the least: the largest divisor of `steps` up to 32."""
        return next(length for length in range(32, 0, -1) if self.steps % length == 0)


def make_task(
    module: nn.Module, recipe: Recipe, dataset: Dataset, mesh: Mesh | None = None
) -> Task:
    """The task of training a network on a data set by a recipe, after a check that they fit.

    Raises:
        ConfigError: if the train split is smaller than a batch, the mesh does not divide a batch,
            the data are no images to be augmented, or the network has no compute type to set.
    """
    samples = len(dataset.train.images)
    if samples < recipe.batch_size:
        raise ConfigError(
            f"train.batch_size {recipe.batch_size} is more than the {samples} training images "
            f"of {dataset.name!r}; use at most {samples}"
        )
    if recipe.batch_size % (parts := layout.size(mesh, layout.BATCH)):
        raise ConfigError(
            f"train.batch_size {recipe.batch_size} cannot be spread over the {parts} devices of "
            f"mesh.data; make it a multiple of {parts}"
        )
    if recipe.compute_dtype != "float32":
        if not hasattr(module, "dtype"):
            raise ConfigError(
                f"train.compute_dtype {recipe.compute_dtype!r} needs a network with a field "
                f"'dtype', which {type(module).__name__} lacks"
            )
        module = module.clone(dtype=jnp.dtype(recipe.compute_dtype))
    if recipe.augment and len(dataset.shape) != 3:
        raise ConfigError(
            f"train.augment needs images [h, w, c], not {dataset.shape}; leave it out"
        )
    recipe = dataclasses.replace(recipe, **Rates(1.0, 0.0)._asdict())
    return Task(module, recipe, samples, tuple(dataset.mean), tuple(dataset.std), mesh)


def step(task: Task, data: Data, order: jax.Array, state: State) -> State:
    """One optimiser step of one replica.

    The loss is the mean cross entropy over the batch (weight decay belongs to the optimiser).
    If the loss or the gradient's norm is not finite, the replica stays as it was, for good.

    Args:
        task: what is static.
        data: images [samples, h, w, c] and labels [samples].
        order: this epoch's order of the samples, int32 [samples].
        state: the replica.
    """
    recipe, module = task.recipe, task.module
    epoch, within = jnp.divmod(state.step, task.steps)
    rows = jax.lax.dynamic_slice(order, (within * recipe.batch_size,), (recipe.batch_size,))
    rows = layout.constrain(rows, task.mesh, layout.BATCH)
    images, labels = (array[rows] for array in data)
    x = _inputs(task, jax.random.fold_in(state.stream(AUGMENT), state.step), images)
    rngs = {"dropout": jax.random.fold_in(state.stream(DROPOUT), state.step)}
    params = state.variables["params"]
    others = {name: value for name, value in state.variables.items() if name != "params"}

    @adapted
    def run(params: Any) -> tuple[jax.Array, Any]:
        variables = {"params": params, **others}
        return module.apply(variables, x, train=True, rngs=rngs, mutable=list(others))

    def objective(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        logits, updated = run(params)
        logits = logits.astype(jnp.float32)
        targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
        if recipe.label_smoothing:
            targets = optax.smooth_labels(targets, recipe.label_smoothing)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        return loss, (jnp.sum(logits.argmax(-1) == labels, dtype=jnp.int32), updated)

    (loss, (correct, others)), gradient = jax.value_and_grad(objective, has_aux=True)(params)
    transformation = recipe.transformation(task.steps, state.rates)
    update, opt_state = transformation.update(gradient, state.opt_state, params)
    moved = {"params": optax.apply_updates(params, update), **others}

    sound = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))
    keep = state.alive & sound  # the rest of a replica that diverged is frozen
    variables, opt_state = jax.tree.map(
        lambda new, old: jnp.where(keep, new, old),
        (moved, opt_state),
        (state.variables, state.opt_state),
    )

    return State(
        variables=variables,
        opt_state=opt_state,
        rates=state.rates,
        step=state.step + keep,
        key=state.key,
        alive=keep,
        loss=state.loss.at[epoch].add(jnp.where(keep, loss, 0.0)),
        correct=state.correct.at[epoch].add(jnp.where(keep, correct, 0)),
    )


def _inputs(task: Task, key: jax.Array, images: jax.Array) -> jax.Array:
    """A batch as the network wants it: augmented on the pixel scale [0, 1], then normalised."""
    if task.recipe.augment:
        scale = 255.0 if images.dtype == jnp.uint8 else 1.0
        images = augment(key, images.astype(jnp.float32) / scale, dict(task.recipe.augment))
    return normalise(images, task.mean, task.std)


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

    apart = layout.apart(mapped, task.mesh)
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


def place(states: State, plan: Plan, mesh: Mesh | None = None) -> list[State]:
    """Replicas from the host onto the devices, in the groups that advance together.

    One group for all where the plan says `vmap`, one for each where it says `loop`; on a mesh, the
    groups are multiples of its `replica` axis, filled up with zeros, which are not alive. The
    arrays are copies, since training uses its states up.
    """
    parts = layout.size(mesh, layout.REPLICAS)
    count = len(states.step)
    size = -(-count // parts) * parts if plan.replicas == "vmap" else parts

    def group(leaf: np.ndarray, first: int) -> np.ndarray:
        some = leaf[first : first + size]
        lacking = [(0, size - len(some))] + [(0, 0)] * (some.ndim - 1)
        return some if len(some) == size else np.pad(some, lacking)

    groups = [jax.tree.map(partial(group, first=i), states) for i in range(0, count, size)]
    return [layout.put(each, mesh, layout.REPLICAS, copy=True) for each in groups]


def join(groups: Sequence[State], mesh: Mesh | None = None) -> State:
    """All replicas as one stacked state, what fills up included; on the host without a mesh."""
    if mesh is None:
        return gather(groups)
    return groups[0] if len(groups) == 1 else _concatenated(mesh, list(groups))


@partial(jax.jit, static_argnames=("mesh",))
def _concatenated(mesh: Mesh, groups: list[State]) -> State:
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *groups)
    return layout.constrain(joined, mesh, layout.REPLICAS)


def gather(groups: Sequence[State], count: int | None = None) -> State:
    """The opposite of `place`: the first `count` replicas as one stacked state on the host."""
    whole = layout.fetch(list(groups))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *whole)


def epoch(
    task: Task, plan: Plan, data: Data | Split, groups: list[State], first: int, pace: "Pace"
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
        pace.count = hosts.agree(pace.count)
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
