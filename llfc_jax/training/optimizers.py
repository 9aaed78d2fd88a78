"""Optimisers and learning-rate schedules by name.

To add one, write a function below with `@optimizer(name)` or `@schedule(name)`. optax is imported
where it is used, since most uses of the package train nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import jax

from llfc_jax.types import Variables

if TYPE_CHECKING:
    import optax

    from llfc_jax.training.recipe import Recipe

Rate: TypeAlias = float | jax.Array
"""A learning rate or a weight decay; an array [] where it is data of a compiled program."""

OptimizerFn: TypeAlias = "Callable[[Recipe, optax.Schedule, Rate], optax.GradientTransformation]"
"""`(recipe, learning rate as a function of the step, weight decay) -> optimiser`."""

ScheduleFn: TypeAlias = "Callable[[Recipe, Rate, int], optax.Schedule]"
"""`(recipe, peak rate, steps per epoch) -> learning rate as a function of the step`."""

OPTIMIZERS: dict[str, OptimizerFn] = {}
SCHEDULES: dict[str, ScheduleFn] = {}


def optimizer(name: str) -> Callable[[OptimizerFn], OptimizerFn]:
    """Registers a function as the optimiser of this name."""

    def register(make: OptimizerFn) -> OptimizerFn:
        OPTIMIZERS[name] = make
        return make

    return register


def schedule(name: str) -> Callable[[ScheduleFn], ScheduleFn]:
    """Registers a function as the learning-rate schedule of this name."""

    def register(make: ScheduleFn) -> ScheduleFn:
        SCHEDULES[name] = make
        return make

    return register


@optimizer("sgd")
def sgd(recipe: Recipe, rate: optax.Schedule, decay: Rate) -> optax.GradientTransformation:
    """SGD with momentum; the decay is added to the gradient (L2, as in PyTorch)."""
    import optax

    step = optax.sgd(rate, recipe.momentum or None, nesterov=recipe.nesterov)
    return optax.chain(optax.add_decayed_weights(decay, _mask(recipe)), step)


@optimizer("adam")
def adam(recipe: Recipe, rate: optax.Schedule, decay: Rate) -> optax.GradientTransformation:
    """Adam; the decay is added to the gradient (L2, as in PyTorch)."""
    import optax

    return optax.chain(optax.add_decayed_weights(decay, _mask(recipe)), optax.adam(rate))


@optimizer("adamw")
def adamw(recipe: Recipe, rate: optax.Schedule, decay: Rate) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    import optax

    return optax.adamw(rate, weight_decay=decay, mask=_mask(recipe))  # pyright: ignore[reportArgumentType]


@schedule("constant")
def constant(recipe: Recipe, peak: Rate, steps: int) -> optax.Schedule:
    """The peak rate at every step."""
    import optax

    return optax.constant_schedule(peak)


@schedule("cosine")
def cosine(recipe: Recipe, peak: Rate, steps: int) -> optax.Schedule:
    """Half a cosine from the peak to 0 at the end of training."""
    import optax

    return optax.cosine_decay_schedule(peak, recipe.epochs * steps)  # pyright: ignore[reportArgumentType]


@schedule("warmup_cosine")
def warmup_cosine(recipe: Recipe, peak: Rate, steps: int) -> optax.Schedule:
    """A line from 0 to the peak over `warmup_epochs`, then half a cosine to 0."""
    import optax

    warmup = round(recipe.warmup_epochs * steps)
    if not warmup:
        return cosine(recipe, peak, steps)
    rise = optax.linear_schedule(0.0, peak, warmup)
    fall = optax.cosine_decay_schedule(peak, max(recipe.epochs * steps - warmup, 1))  # pyright: ignore[reportArgumentType]
    return optax.join_schedules([rise, fall], [warmup])


@schedule("step")
def drop_in_steps(recipe: Recipe, peak: Rate, steps: int) -> optax.Schedule:
    """The peak, multiplied by `factor` at each of `boundaries`."""
    import optax

    drops = {round(edge * steps): recipe.factor for edge in recipe.boundaries}
    return optax.piecewise_constant_schedule(peak, drops)  # pyright: ignore[reportArgumentType]


def decay_mask(params: Variables) -> Variables:
    """Returns False for biases and norm scales (Flax's names `bias`, `scale`), else True."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: getattr(path[-1], "key", None) not in ("bias", "scale"), params
    )


def _mask(recipe: Recipe) -> Callable[[Variables], Variables] | None:
    return decay_mask if recipe.decay == "kernels" else None
