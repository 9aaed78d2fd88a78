"""The state of one replica in training: all that goes on from step to step.

Randomness is a function of the replica's key and its step alone, by `fold_in` with the constants
below, so a state that was saved and restored goes on with the very same bits, and a fork needs no
more than another key.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from llfc_jax.networks import init
from llfc_jax.training.recipe import Recipe

INIT, ORDER, AUGMENT, DROPOUT, BRANCH = range(5)  # streams: fold_in(key, stream), then what varies


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """One replica; with a leading axis on every leaf, several of them.

    Attributes:
        variables: {'params': ..., 'batch_stats': ...}.
        opt_state: the optimiser's state, which holds the schedule's position.
        step: steps done, int32 [].
        key: what its randomness derives from, a typed key [].
        alive: False once its loss or gradient was not finite; it then stays as it was before
            that step, bool [].
        loss: training loss summed over the steps of each epoch, float32 [epochs].
        correct: training samples that were classified rightly when they were seen, in each
            epoch, int32 [epochs].
    """

    variables: Any
    opt_state: Any
    step: jax.Array
    key: jax.Array
    alive: jax.Array
    loss: jax.Array
    correct: jax.Array


def create(
    module: nn.Module, recipe: Recipe, key: jax.Array, x: Any, steps_per_epoch: int
) -> State:
    """A replica before its first step, its weights drawn from `fold_in(key, INIT)`.

    Args:
        module: the network.
        recipe: how it is to be trained.
        key: the replica's key.
        x: a batch of inputs, or its shape.
        steps_per_epoch: steps in one epoch, for the schedule.

    Raises:
        DataError, ConfigError: if the network does not fit the inputs (`networks.init`).
    """
    variables = init(module, jax.random.fold_in(key, INIT), x)
    return State(
        variables=variables,
        opt_state=recipe.transformation(steps_per_epoch).init(variables["params"]),
        step=jnp.zeros((), jnp.int32),
        key=key,
        alive=jnp.ones((), bool),
        loss=jnp.zeros(recipe.epochs, jnp.float32),
        correct=jnp.zeros(recipe.epochs, jnp.int32),
    )


def fork(state: State, branch: int | jax.Array) -> State:
    """A branch that goes on from a trunk: the same in all but its randomness from here on.

    Weights, optimiser state, schedule position, BatchNorm statistics and history are the trunk's;
    data order, augmentation and dropout derive from a key of the branch's own, which depends on
    the trunk's key, the step of the fork and the branch's number.
    """
    stream = jax.random.fold_in(state.key, BRANCH)
    key = jax.random.fold_in(jax.random.fold_in(stream, state.step), branch)
    return dataclasses.replace(state, key=key)


@partial(jax.jit, static_argnames=("module", "recipe", "shape", "steps_per_epoch"))
def create_all(
    module: nn.Module,
    recipe: Recipe,
    keys: jax.Array,
    shape: tuple[int, ...],
    steps_per_epoch: int,
) -> State:
    """`create` for several keys [replicas] and one shape of inputs; a leading axis on each leaf."""
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.vmap(lambda key: create(module, recipe, key, x, steps_per_epoch))(keys)


@jax.jit
def regroup(states: State, rows: jax.Array, branches: jax.Array) -> State:
    """New replicas out of old ones: each a copy that goes on alike, or a fork.

    Args:
        states: replicas.
        rows: which of them each new replica continues, int32 [new].
        branches: its branch number, or -1 where it goes on with the same randomness, int32 [new].
    """
    states = jax.tree.map(lambda leaf: leaf[rows], states)
    forked = jax.vmap(fork)(states, branches)
    return dataclasses.replace(states, key=jnp.where(branches < 0, states.key, forked.key))


@jax.jit
def take(states: State, index: int | jax.Array) -> State:
    """One replica out of several."""
    return jax.tree.map(lambda leaf: leaf[index], states)
