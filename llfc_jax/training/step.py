"""One training step of one replica, as a pure function, and what it depends on."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from llfc_jax.data import Dataset, normalise
from llfc_jax.errors import ConfigError
from llfc_jax.graph.convolutions import adapted
from llfc_jax.parallel import sharding
from llfc_jax.training.augmentations import augment
from llfc_jax.training.feed import Samples
from llfc_jax.training.recipe import Rates, Recipe
from llfc_jax.training.state import AUGMENT, DROPOUT, TrainState
from llfc_jax.types import Variables


@dataclasses.dataclass(frozen=True)
class Task:
    """All that a training step depends on besides state and data; static under jit.

    Attributes:
        module: the network, called as `module(x, train=True)`.
        recipe: how it is trained, but for its `rates`: those are data (`TrainState.rates`), so that
            one program serves all.
        samples: size of the train split.
        mean: pixel mean per channel, subtracted.
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
        """Number of steps in one epoch; an incomplete last batch is dropped."""
        return self.samples // self.recipe.batch_size

    @property
    def stride(self) -> int:
        """Least number of steps of a scan: the largest divisor of `steps` up to 32."""
        return next(length for length in range(32, 0, -1) if self.steps % length == 0)


def make_task(
    module: nn.Module, recipe: Recipe, dataset: Dataset, mesh: Mesh | None = None
) -> Task:
    """Checks that network, recipe and data set fit, and returns the task of training.

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


def take_step(
    task: Task, data: Samples, order: Int[Array, " samples"], state: TrainState
) -> TrainState:
    """Takes one optimiser step of one replica.

    The loss is the mean cross entropy over the batch (weight decay belongs to the optimiser).
    If the loss or the gradient's norm is not finite, the replica stays as it was, for good.

    Args:
        task: what is static.
        data: images [samples, h, w, c] and labels [samples].
        order: this epoch's order of the samples.
        state: the replica.
    """
    import optax

    recipe, module = task.recipe, task.module
    epoch, within = jnp.divmod(state.step, task.steps)
    rows = jax.lax.dynamic_slice(order, (within * recipe.batch_size,), (recipe.batch_size,))
    rows = sharding.constrain(rows, task.mesh, sharding.BATCH)
    images, labels = (array[rows] for array in data)
    x = _make_inputs(task, jax.random.fold_in(state.stream(AUGMENT), state.step), images)
    rngs = {"dropout": jax.random.fold_in(state.stream(DROPOUT), state.step)}
    params = state.variables["params"]
    others = {name: value for name, value in state.variables.items() if name != "params"}

    @adapted
    def run(params: Variables) -> tuple[jax.Array, Variables]:
        variables = {"params": params, **others}
        return module.apply(variables, x, train=True, rngs=rngs, mutable=list(others))

    def objective(params: Variables) -> tuple[jax.Array, tuple[jax.Array, Variables]]:
        logits, updated = run(params)
        loss, correct = _cross_entropy(logits.astype(jnp.float32), labels, recipe.label_smoothing)
        return loss, (correct, updated)

    (loss, (correct, others)), gradient = jax.value_and_grad(objective, has_aux=True)(params)
    transformation = recipe.transformation(task.steps, state.rates)
    update, opt_state = transformation.update(gradient, state.opt_state, params)
    moved = {"params": optax.apply_updates(params, update), **others}

    is_finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))
    keep = state.alive & is_finite  # a replica that diverged is frozen
    variables, opt_state = jax.tree.map(
        lambda new, old: jnp.where(keep, new, old),
        (moved, opt_state),
        (state.variables, state.opt_state),
    )

    return TrainState(
        variables=variables,
        opt_state=opt_state,
        rates=state.rates,
        step=state.step + keep,
        key=state.key,
        alive=keep,
        loss=state.loss.at[epoch].add(jnp.where(keep, loss, 0.0)),
        correct=state.correct.at[epoch].add(jnp.where(keep, correct, 0)),
    )


def _cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"], smoothing: float
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Returns the mean cross entropy and the number of correctly classified samples."""
    import optax

    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
    if smoothing:
        targets = optax.smooth_labels(targets, smoothing)
    loss = optax.softmax_cross_entropy(logits, targets).mean()
    return loss, jnp.sum(logits.argmax(-1) == labels, dtype=jnp.int32)


def _make_inputs(task: Task, key: Key[Array, ""], images: jax.Array) -> Float[Array, "batch ..."]:
    """Augments a batch on the pixel scale [0, 1], then normalises it."""
    if task.recipe.augment:
        scale = 255.0 if images.dtype == jnp.uint8 else 1.0
        images = augment(key, images.astype(jnp.float32) / scale, dict(task.recipe.augment))
    return normalise(images, task.mean, task.std)
