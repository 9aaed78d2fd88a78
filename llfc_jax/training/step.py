"""One training step of one replica, as a pure function, and what it depends on."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from llfc_jax.data import Dataset, normalise
from llfc_jax.errors import ConfigError
from llfc_jax.graph.convolutions import adapted
from llfc_jax.parallel import sharding
from llfc_jax.training.augment import augment
from llfc_jax.training.feed import Data
from llfc_jax.training.recipe import Rates, Recipe
from llfc_jax.training.state import AUGMENT, DROPOUT, State


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
    if recipe.batch_size % (parts := sharding.size(mesh, sharding.BATCH)):
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
    rows = sharding.constrain(rows, task.mesh, sharding.BATCH)
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
