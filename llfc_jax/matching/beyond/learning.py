"""Steps down an objective of a line, in a symmetry's coordinates."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from llfc_jax.matching.beyond.coordinates import Coordinates, distance, move
from llfc_jax.matching.beyond.objectives import Line, Objective, Place, lowered
from llfc_jax.parallel.loops import LoopPlan
from llfc_jax.tasks import Batch
from llfc_jax.types import Variables

CHUNK = 20  # steps in one compiled call
HOT, COLD = 0.05, 0.002  # temperature of relaxed permutations, from the first step to the last


@dataclasses.dataclass(frozen=True)
class Descent:
    """What a descent is: its objective and its steps.

    Attributes:
        objective: of `beyond.objectives`.
        learning_rate: of Adam, with a cosine to zero.
        batch_size: samples of each step.
        low: smallest α.
        high: largest α.
        weight: of the linearity beside the loss, for "both".
        penalty: weight of the squared distance from the start.
    """

    objective: Objective = "both"
    learning_rate: float = 0.02
    batch_size: int = 128
    low: float = 0.2
    high: float = 0.8
    weight: float = 1.0
    penalty: float = 0.0


class State(NamedTuple):
    """Where a descent is.

    Attributes:
        key: draws batches and places on the line.
        point: coordinates.
        memory: what Adam remembers.
        step: steps done.
    """

    key: jax.Array
    point: Coordinates
    memory: Any
    step: jax.Array


ADAM = optax.scale_by_adam()


def begin(key: jax.Array, point: Coordinates) -> State:
    """Returns the state before the first step."""
    return State(key, point, ADAM.init(point), jnp.zeros((), jnp.int32))


def advance(
    line: Line,
    descent: Descent,
    loops: LoopPlan,
    steps: int,
    a: Variables,
    bs: Sequence[Variables],
    data: Batch,
    states: Sequence[State],
) -> tuple[list[State], Float[np.ndarray, "restart step"]]:
    """Takes `CHUNK` steps from each state.

    Args:
        line: the network.
        descent: what is lowered, and how.
        loops: how steps and restarts are run.
        steps: of the whole descent, for the rate and the temperature.
        a: the end that stays.
        bs: the end that is moved, of each restart.
        data: samples that batches are drawn from.
        states: of each restart.

    Returns:
        The states then, and the objective at each step.
    """
    own = (line, descent, 1 if loops.steps == "python" else CHUNK, steps)
    if loops.replicas == "vmap" and len(states) > 1:
        ends, losses = _repeated(_together, own, a, _stack(bs), data, _stack(states))
        return [jax.tree.map(operator.itemgetter(i), ends) for i in range(len(states))], losses
    found = [_repeated(_steps, own, a, b, data, s) for b, s in zip(bs, states, strict=True)]
    return [end for end, _ in found], np.stack([losses for _, losses in found])


def _repeated(
    call: Callable[..., Any],
    own: tuple[Any, ...],
    a: Variables,
    b: Variables,
    data: Batch,
    state: State,
) -> tuple[State, np.ndarray]:
    """A compiled call again and again until it has taken all steps of a chunk."""
    losses = []
    for _ in range(CHUNK // own[2]):
        state, values = call(*own, a, b, data, state)
        losses.append(values)
    return state, np.concatenate([np.asarray(values) for values in losses], -1)


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _steps(
    line: Line,
    descent: Descent,
    length: int,
    steps: int,
    a: Variables,
    b: Variables,
    data: Batch,
    state: State,
) -> tuple[State, Float[Array, " step"]]:
    n = len(jax.tree.leaves(data.x)[0])

    def step(state: State, _: None) -> tuple[State, jax.Array]:
        own = jax.random.split(jax.random.fold_in(state.key, state.step))
        chosen = jax.random.randint(own[0], (min(descent.batch_size, n),), 0, n, jnp.int32)
        batch = jax.tree.map(lambda leaf: leaf[chosen], data)
        alpha = jax.random.uniform(own[1], (), jnp.float32, descent.low, descent.high)
        done = jnp.asarray(state.step, jnp.float32) / steps

        def value_at(point: Coordinates) -> jax.Array:
            moved = move(line.spec, b, point, HOT * (COLD / HOT) ** done)
            place = Place(line, a, moved, alpha, batch)
            value = lowered(place, descent.objective, descent.weight)
            return (
                value + descent.penalty * distance(line.spec, point) if descent.penalty else value
            )

        value, slope = jax.value_and_grad(value_at)(state.point)
        updates, memory = ADAM.update(slope, state.memory)
        rate = descent.learning_rate * (1 + jnp.cos(jnp.pi * done)) / 2
        point = jax.tree.map(lambda leaf, update: leaf - rate * update, state.point, updates)
        return State(state.key, point, memory, state.step + 1), value

    with jax.default_matmul_precision("highest"):
        if length == 1:
            state, value = step(state, None)
            return state, value[None]
        return jax.lax.scan(step, state, None, length)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _together(
    line: Line,
    descent: Descent,
    length: int,
    steps: int,
    a: Variables,
    bs: Variables,
    data: Batch,
    states: State,
) -> tuple[State, Float[Array, "restart step"]]:
    one = functools.partial(_steps, line, descent, length, steps, a)
    return jax.vmap(one, in_axes=(0, None, 0))(bs, data, states)
