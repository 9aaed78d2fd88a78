"""One training step of one replica, as a pure function, and what it depends on."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from llfc_jax.data import Dataset, normalise
from llfc_jax.data.stream import is_streamed
from llfc_jax.errors import ConfigError
from llfc_jax.graph.convolutions import adapted
from llfc_jax.pair import leaf_paths
from llfc_jax.parallel import sharding
from llfc_jax.tasks import Task, classification
from llfc_jax.training.augmentations import augment
from llfc_jax.training.feed import Samples
from llfc_jax.training.finetuning import FineTuning, is_named
from llfc_jax.training.recipe import Rates, Recipe
from llfc_jax.training.state import AUGMENT, DROPOUT, TrainState
from llfc_jax.types import Variables


@dataclasses.dataclass(frozen=True)
class Setup:
    """All that a training step depends on besides state and data; static under jit.

    Attributes:
        task: how outputs are judged: the loss is its loss.
        module: the network, called as `module(x, train=True)`.
        recipe: how it is trained, but for its `rates`: those are data (`TrainState.rates`), so that
            one program serves all.
        samples: number of samples in an epoch: the size of the train split, or of the smallest
            variant of it.
        mean: pixel mean per channel, subtracted.
        std: pixel deviation per channel, divided by.
        mesh: the devices, if there are several.
        streamed: whether each replica brings the samples of its coming steps.
        ranges: first sample and number of samples of each variant of the data; none where all
            replicas are trained on the whole split.
        freeze: patterns of the parameters that stay, for each variant.
    """

    task: Task
    module: nn.Module
    recipe: Recipe
    samples: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mesh: Mesh | None = None
    streamed: bool = False
    ranges: tuple[tuple[int, int], ...] = ()
    freeze: tuple[tuple[str, ...], ...] = ()

    @property
    def steps(self) -> int:
        """Number of steps in one epoch; an incomplete last batch is dropped."""
        return self.samples // self.recipe.batch_size

    @property
    def stride(self) -> int:
        """Least number of steps of a scan: the largest divisor of `steps` up to 32."""
        return next(length for length in range(32, 0, -1) if self.steps % length == 0)


def make_setup(
    module: nn.Module,
    recipe: Recipe,
    dataset: Dataset,
    mesh: Mesh | None = None,
    task: Task | None = None,
    finetuning: FineTuning | None = None,
    ranges: tuple[tuple[int, int], ...] = (),
) -> Setup:
    """Checks that network, recipe and data set fit, and returns the setup of training.

    Raises:
        ConfigError: if the train split is smaller than a batch, the mesh does not divide a batch,
            the data are no images to be augmented, or the network has no compute type to set.
    """
    samples = min((count for _, count in ranges), default=len(dataset.train.images))
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
    if recipe.label_smoothing and task is not None and not task.labelled:
        raise ConfigError(
            f"train.label_smoothing needs labels, which the task {task.name!r} does not have; "
            "leave it out"
        )
    return Setup(
        task or classification(),
        module,
        recipe,
        samples,
        tuple(dataset.mean),
        tuple(dataset.std),
        mesh,
        is_streamed(dataset.train, dataset),
        ranges,
        tuple(variant.freeze for variant in finetuning.variants) if finetuning else (),
    )


def take_step(
    setup: Setup, data: Samples, order: Int[Array, " samples"], state: TrainState
) -> TrainState:
    """Takes one optimiser step of one replica.

    The loss is the task's mean loss over the batch (weight decay belongs to the optimiser).
    If the loss or the gradient's norm is not finite, the replica stays as it was, for good.

    Args:
        setup: what is static.
        data: inputs [samples, ...] and targets [samples, ...].
        order: this epoch's order of the samples.
        state: the replica.
    """
    import optax

    recipe, module = setup.recipe, setup.module
    epoch, within = jnp.divmod(state.step, setup.steps)
    rows = jax.lax.dynamic_slice(order, (within * recipe.batch_size,), (recipe.batch_size,))
    rows = sharding.constrain(rows, setup.mesh, sharding.BATCH)
    images, labels = (array[rows] for array in data)
    x = _make_inputs(setup, jax.random.fold_in(state.stream(AUGMENT), state.step), images)
    rngs = {"dropout": jax.random.fold_in(state.stream(DROPOUT), state.step)}
    params = state.variables["params"]
    others = {name: value for name, value in state.variables.items() if name != "params"}

    @adapted
    def run(params: Variables) -> tuple[Any, Variables]:
        variables = {"params": params, **others}
        return module.apply(variables, x, train=True, rngs=rngs, mutable=list(others))

    def objective(params: Variables) -> tuple[jax.Array, tuple[jax.Array, Variables]]:
        outputs, updated = run(params)
        loss, right = setup.task.train_loss(outputs, labels, recipe.label_smoothing)
        return loss, (right * recipe.batch_size, updated)

    (loss, (correct, others)), gradient = jax.value_and_grad(objective, has_aux=True)(params)
    transformation = recipe.transformation(setup.steps, state.rates)
    gradient = _hold_frozen(setup, state, gradient)
    update, opt_state = transformation.update(gradient, state.opt_state, params)
    update = _hold_frozen(setup, state, update)  # weight decay would move them
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
        correct=state.correct.at[epoch].add(jnp.where(keep, correct, 0.0)),
        variant=state.variant,
    )


def _hold_frozen(setup: Setup, state: TrainState, tree: Variables) -> Variables:
    """Returns gradients or updates that are zero for the parameters that the variant freezes."""
    if not any(setup.freeze):
        return tree
    held = [
        jnp.where(
            jnp.array([is_named(f"params/{path}", names) for names in setup.freeze])[state.variant],
            jnp.zeros_like(leaf),
            leaf,
        )
        for path, leaf in zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(tree), held)


def _make_inputs(setup: Setup, key: Key[Array, ""], images: jax.Array) -> Float[Array, "batch ..."]:
    """Augments a batch on the pixel scale [0, 1], then normalises it."""
    if setup.recipe.augment:
        scale = 255.0 if images.dtype == jnp.uint8 else 1.0
        images = augment(key, images.astype(jnp.float32) / scale, dict(setup.recipe.augment))
    return normalise(images, setup.mean, setup.std)
