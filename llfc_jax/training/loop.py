"""The training loop: one pure step, run many times per dispatch and over many replicas.

The train split lies on the device once, as stored (uint8), shared by all replicas. Each replica
takes its batches in an order of its own, a fresh permutation per epoch.
"""

import dataclasses
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from llfc_jax.data import Dataset, normalise
from llfc_jax.errors import ConfigError
from llfc_jax.execution import Plan, over
from llfc_jax.training.augment import augment
from llfc_jax.training.recipe import Recipe
from llfc_jax.training.state import AUGMENT, DROPOUT, ORDER, State

SECONDS = 0.5  # aim for one dispatch: long enough to cost nothing, short enough to be stopped


@dataclasses.dataclass(frozen=True)
class Task:
    """What a training step depends on apart from state and data; static under jit.

    Attributes:
        module: the network, called as `module(x, train=True)`.
        recipe: how it is trained.
        samples: size of the train split.
        mean: pixel mean per channel, taken off.
        std: pixel deviation per channel, divided by.
    """

    module: nn.Module
    recipe: Recipe
    samples: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def steps(self) -> int:
        """Steps in one epoch; an incomplete last batch is dropped."""
        return self.samples // self.recipe.batch_size


def make_task(module: nn.Module, recipe: Recipe, dataset: Dataset) -> Task:
    """The task of training a network on a data set by a recipe, after a check that they fit.

    Raises:
        ConfigError: if the train split is smaller than a batch, the data are no images to be
            augmented, or the network has no compute type to set.
    """
    samples = len(dataset.train.images)
    if samples < recipe.batch_size:
        raise ConfigError(
            f"train.batch_size {recipe.batch_size} is more than the {samples} training images "
            f"of {dataset.name!r}; use at most {samples}"
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
    return Task(module, recipe, samples, tuple(dataset.mean), tuple(dataset.std))


def step(task: Task, data: tuple[jax.Array, jax.Array], order: jax.Array, state: State) -> State:
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
    images, labels = (array[rows] for array in data)
    x = _inputs(task, _now(state, AUGMENT), images)
    rngs = {"dropout": _now(state, DROPOUT)}
    params = state.variables["params"]
    others = {name: value for name, value in state.variables.items() if name != "params"}

    def objective(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        logits, updated = module.apply(
            {"params": params, **others}, x, train=True, rngs=rngs, mutable=list(others)
        )
        logits = logits.astype(jnp.float32)
        targets = jax.nn.one_hot(labels, logits.shape[-1])
        if recipe.label_smoothing:
            targets = optax.smooth_labels(targets, recipe.label_smoothing)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        return loss, (jnp.sum(logits.argmax(-1) == labels, dtype=jnp.int32), updated)

    (loss, (correct, others)), gradient = jax.value_and_grad(objective, has_aux=True)(params)
    transformation = recipe.transformation(task.steps)
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
        step=state.step + keep,
        key=state.key,
        alive=keep,
        loss=state.loss.at[epoch].add(jnp.where(keep, loss, 0.0)),
        correct=state.correct.at[epoch].add(jnp.where(keep, correct, 0)),
    )


def _now(state: State, stream: int) -> jax.Array:
    """The key of one stream of randomness at the present step."""
    return jax.random.fold_in(jax.random.fold_in(state.key, stream), state.step)


def _inputs(task: Task, key: jax.Array, images: jax.Array) -> jax.Array:
    """A batch as the network wants it: augmented on the pixel scale [0, 1], then normalised."""
    if task.recipe.augment:
        scale = 255.0 if images.dtype == jnp.uint8 else 1.0
        images = augment(key, images.astype(jnp.float32) / scale, dict(task.recipe.augment))
    return normalise(images, task.mean, task.std)


@partial(jax.jit, static_argnames=("task",))
def _orders(task: Task, states: State) -> jax.Array:
    """Every replica's order of the samples in its present epoch, int32 [replicas, samples]."""

    def one(key: jax.Array, done: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(key, ORDER), done // task.steps)
        return jax.random.permutation(key, jnp.arange(task.samples, dtype=jnp.int32))

    return jax.vmap(one)(states.key, states.step)


@partial(jax.jit, static_argnames=("task", "batched"), donate_argnames=("states",))
def _run(
    task: Task, batched: bool, data: Any, orders: jax.Array, states: State, count: jax.Array
) -> State:
    """`count` steps in one dispatch; `count` is dynamic, so one program serves every length."""
    one = partial(step, task, data)
    advance = jax.vmap(one) if batched else one
    return jax.lax.fori_loop(0, count, lambda _, states: advance(orders, states), states)


@partial(jax.jit, static_argnames=("task", "batched"), donate_argnames=("states",))
def _run_one(task: Task, batched: bool, data: Any, orders: jax.Array, states: State) -> State:
    """One step in one dispatch, outside any compiled loop (`execution` says why)."""
    one = partial(step, task, data)
    return (jax.vmap(one) if batched else one)(orders, states)


def advance(
    task: Task, plan: Plan, data: Any, orders: jax.Array, states: State, count: int
) -> State:
    """`count` steps of every replica. `states` is used up: its buffers become the result's."""

    def run(batched: bool, orders: jax.Array, states: State) -> State:
        if plan.steps == "scan":
            return _run(task, batched, data, orders, states, jnp.int32(count))
        for _ in range(count):
            states = _run_one(task, batched, data, orders, states)
        return states

    if plan.replicas == "vmap":
        return run(True, orders, states)
    return over(lambda one: run(False, *one), (orders, states), "loop")


def epoch(
    task: Task, plan: Plan, data: Any, states: State, first: int, pace: "Pace"
) -> Iterator[tuple[int, State]]:
    """Train to the end of the present epoch, from its step `first` on.

    Yields after every dispatch: steps done in this epoch, and the states; nothing if all replicas
    have diverged. The states handed in are used up, and so are the yielded ones once the iteration
    goes on. Where the dispatches are cut changes no bit of the result, so an epoch can be left and
    taken up at any step.
    """
    if not states.alive.any():
        return
    orders = _orders(task, states)
    while first < task.steps:
        count = min(pace.count, task.steps - first)
        began = time.monotonic()
        states = jax.block_until_ready(advance(task, plan, data, orders, states, count))
        pace.tell(time.monotonic() - began)
        first += count
        yield first, states


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
