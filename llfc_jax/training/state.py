"""The state of one replica in training: all that is carried from step to step.

Randomness is a function of the replica's key and its step alone, by `fold_in` with the constants
below. So a state that was saved and restored continues with the same bits, and a fork needs no
more than another key.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, UInt32

from llfc_jax.networks import init
from llfc_jax.training.recipe import Rates, Recipe
from llfc_jax.types import Variables

# Streams of a replica's randomness: fold_in(key, stream), then the epoch (ORDER), the step
# (AUGMENT, DROPOUT) or the step and the branch's number (BRANCH).
INIT, ORDER, AUGMENT, DROPOUT, BRANCH = range(5)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """One replica; with a leading axis on every leaf, several of them.

    Attributes:
        variables: {'params': ..., 'batch_stats': ...}.
        opt_state: the optimiser's state, which holds the schedule's position.
        rates: peak learning rate and weight decay, float32 each.
        step: number of steps done.
        key: data of the typed key that its randomness derives from.
        alive: False once its loss or gradient was not finite; it then stays as it was before
            that step.
        loss: training loss summed over the steps of each epoch.
        correct: number of training samples that were predicted rightly when they were used, in
            each epoch (shares of a sample, where it has several elements); NaN where the task has
            no such thing.
        variant: which part of the data it is trained on, where there are several.
    """

    variables: Variables
    opt_state: PyTree[Array]
    rates: Rates
    step: Int[Array, "..."]
    key: UInt32[Array, "... 2"]
    alive: Bool[Array, "..."]
    loss: Float[Array, "... epochs"]
    correct: Float[Array, "... epochs"]
    variant: Int[Array, "..."]

    def stream(self, number: int) -> Key[Array, ""]:
        """Returns the key of one stream of randomness."""
        return jax.random.fold_in(jax.random.wrap_key_data(self.key), number)


def create_state(
    module: nn.Module,
    recipe: Recipe,
    key: Key[Array, ""],
    shape: tuple[int, ...],
    steps_per_epoch: int,
    rates: Rates | None = None,
    dtype: DTypeLike = jnp.float32,
) -> TrainState:
    """Returns a replica before its first step, its weights drawn from `fold_in(key, INIT)`.

    Args:
        module: the network.
        recipe: how it is to be trained.
        key: the replica's key, typed.
        shape: of one input, such as (28, 28, 1).
        steps_per_epoch: steps in one epoch, for the schedule.
        rates: peak rate and decay; the recipe's own if None.
        dtype: type of the inputs.

    Raises:
        DataError, ConfigError: if the network does not fit the inputs (`networks.init`).
    """
    x = jax.ShapeDtypeStruct((1, *shape), dtype)
    variables = init(module, jax.random.fold_in(key, INIT), x)
    return _start(recipe, variables, key, rates or recipe.rates, steps_per_epoch)


@partial(jax.jit, static_argnames=("recipe", "steps_per_epoch"))
def _start(
    recipe: Recipe, variables: Variables, key: jax.Array, rates: Rates, steps_per_epoch: int
) -> TrainState:
    return TrainState(
        variables=variables,
        opt_state=recipe.transformation(steps_per_epoch).init(variables["params"]),
        rates=jax.tree.map(jnp.float32, rates),
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(key),
        alive=jnp.ones((), bool),
        loss=jnp.zeros(recipe.epochs, jnp.float32),
        correct=jnp.zeros(recipe.epochs, jnp.float32),
        variant=jnp.zeros((), jnp.int32),
    )


def fork_state(state: TrainState, branch: int, rates: Rates | None = None) -> TrainState:
    """Returns a branch that continues from a trunk with randomness of its own.

    Weights, optimiser state, schedule position, BatchNorm statistics and history are the trunk's;
    data order, augmentation and dropout derive from a key that depends on the trunk's key, the
    step of the fork and the branch's number.

    Args:
        state: the trunk.
        branch: number of the branch.
        rates: peak rate and decay from here on; the trunk's if None.
    """
    key = jax.random.fold_in(jax.random.fold_in(state.stream(BRANCH), state.step), branch)
    own: dict[str, Any] = {} if rates is None else {"rates": jax.tree.map(np.float32, rates)}
    return dataclasses.replace(state, key=jax.random.key_data(key), **own)


def restart_optimizer(recipe: Recipe, state: TrainState, steps_per_epoch: int) -> TrainState:
    """Returns a replica whose optimiser knows nothing of the past; its schedule runs on."""
    import optax

    def is_schedule(node: object) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    fresh = recipe.transformation(steps_per_epoch).init(state.variables["params"])
    opt_state = jax.tree.map(
        lambda old, new: old if is_schedule(old) else new,
        state.opt_state,
        fresh,
        is_leaf=is_schedule,
    )
    return dataclasses.replace(state, opt_state=opt_state)


def stack(states: Sequence[TrainState]) -> TrainState:
    """Stacks replicas to one state with a leading axis, on the host."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(list(states)))


def unstack(states: TrainState) -> list[TrainState]:
    """Splits a stacked state on the host into its replicas."""
    return [jax.tree.map(lambda leaf, i=i: leaf[i], states) for i in range(len(states.step))]
