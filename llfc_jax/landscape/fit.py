"""Curves of low loss between two modes, fitted by gradient (Garipov et al. 2018).

The bend c of a `Curve` minimises the mean loss over the curve,

    E_{α ~ U(0, 1)} E_{(x, y)} loss(f(θ(α); x), y),

by a stochastic gradient: each step draws one α and one batch. It starts where the curve is the
straight line. Several pairs are fitted side by side in one program.

Wherever the network normalises by running statistics, those of the batch are in force while the
curve is fitted, as in training; which equations these are is found in the trace. The curve's own
running statistics mean nothing afterwards: measure it with `renormalise="reset"`.
"""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from llfc_jax import fields, tasks
from llfc_jax.checkpoints.begun import Begun
from llfc_jax.data.inputs import Data, as_splits, hash_arrays
from llfc_jax.errors import ConfigError, DataError, ModeError, unknown
from llfc_jax.frameworks import Network
from llfc_jax.graph import Graph, Values
from llfc_jax.graph.graph import Visit
from llfc_jax.graph.outputs import check_finite, check_outputs
from llfc_jax.graph.row_layout import output_mask
from llfc_jax.graph.running_statistics import Held, read_normalisers
from llfc_jax.graph.trace import abstract
from llfc_jax.measures.batch import TracedNetwork
from llfc_jax.measures.precision import wide
from llfc_jax.measures.renormalise import Place, find_places, rescale
from llfc_jax.measures.similarity import stack
from llfc_jax.pair import Curve, check_pair, interpolate
from llfc_jax.tasks import Batch, Task
from llfc_jax.tasks.batch import read_batch
from llfc_jax.types import Inputs, Model, ProgressFn, Variables

BentKind = Literal["bezier", "chain"]
STRIDE = 50  # steps of one call of the compiled program


@dataclasses.dataclass(frozen=True)
class CurveOptions:
    """How a curve is fitted; checked when it is made.

    Attributes:
        kind: "bezier" (one bend, quadratic) or "chain" (two straight pieces).
        steps: of Adam.
        batch_size: samples of a step; all of them where there are fewer.
        learning_rate: at first; it falls to zero along half a cosine.
        seed: of the drawn α and batches.
        task: how outputs are judged: a `llfc_jax.tasks.Task`, or the name of one.

    Raises:
        ConfigError: a value of the wrong type or size; the line names the field.
    """

    kind: BentKind = "bezier"
    steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 1e-2
    seed: int = 0
    task: Task = dataclasses.field(default_factory=tasks.classification)

    def __post_init__(self) -> None:
        """Checks every field."""
        if self.kind not in get_args(BentKind):
            raise ConfigError(unknown("kind of curve", self.kind, get_args(BentKind)))
        object.__setattr__(self, "task", tasks.build(self.task))
        for name, hint in fields.hints(type(self)).items():
            object.__setattr__(self, name, fields.convert(getattr(self, name), hint, name))
        for name in ("steps", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be more than 0, not {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class FittedCurve:
    """A curve, and how its loss fell.

    Attributes:
        curve: the curve.
        history: loss of each step, at its α on its batch [steps].
    """

    curve: Curve
    history: Float[np.ndarray, " steps"]


def fit_curve(
    network: Model,
    a: Model,
    b: Model,
    data: Data,
    options: CurveOptions | None = None,
    progress: ProgressFn | None = None,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
) -> FittedCurve:
    """Fits one curve; see `fit_curves`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from llfc_jax import landscape
        >>> x, y = jnp.eye(2), jnp.array([0, 1])
        >>> a, b = jnp.array([[3.0, 0], [0, 3]]), jnp.array([[-2.0, -5], [-5, -2]])
        >>> options = landscape.CurveOptions(steps=100)
        >>> fitted = landscape.fit_curve(lambda w, x: x @ w, a, b, (x, y), options)
        >>> fitted.curve.kind
        'bezier'
    """
    return fit_curves(network, [(a, b)], data, options, progress, checkpoint=checkpoint)[0]


def fit_curves(
    network: Model,
    pairs: Sequence[tuple[Model, Model]],
    data: Data,
    options: CurveOptions | None = None,
    progress: ProgressFn | None = None,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
) -> list[FittedCurve]:
    """Fits a curve between the modes of each pair, all in one program.

    Args:
        network: what `Network.of` takes.
        pairs: (a, b) of each; θ(1) = a, θ(0) = b.
        data: (x, labels), batches of such pairs, or a data set, whose train split is used. All of
            it lies on the device.
        options: how; the defaults if None.
        progress: called as (steps done, steps in all, words).
        checkpoint: an `.npz` file that keeps what was reached, every quarter of a minute: the
            same call goes on from there with the same bits.

    Raises:
        ModeError: no pair, modes that are none, or a curve that diverged.
        WorkdirError: the checkpoint is damaged, or of another fit.
        GraphError: the network cannot be traced, or returns no logits.
        DataError: data that do not fit.
    """
    options = options or CurveOptions()
    view = Network.of(network)
    modes = [(view.variables(a), view.variables(b)) for a, b in pairs]
    if not modes:
        raise ModeError("there is no pair; give at least one (a, b)")
    for a, b in modes:
        check_pair(a, b)
    samples = _gather(data, options)
    first = jax.tree.map(lambda leaf: leaf[: options.batch_size], samples)
    traced = TracedNetwork(view.apply, modes[0][0], abstract(first.x))
    check_outputs(traced.graph, first, options.task, samples)
    ends = [stack(side) for side in zip(*modes, strict=True)]
    bends = interpolate(ends[0], ends[1], 0.5)
    begun = Begun(checkpoint, _identify(traced, options, ends, samples) if checkpoint else "")
    bends, losses = _fit(traced, options, ends, bends, samples, begun, progress)
    curves = []
    for i, (a, b) in enumerate(modes):
        bend = jax.tree.map(lambda leaf, i=i: leaf[i], bends)
        curve = Curve(a, b, bend, options.kind)
        curves.append(FittedCurve(curve, losses[:, i]))
    return curves


def _gather(data: Data, options: CurveOptions) -> Batch:
    """Returns all samples of the train split, or of the only one, as one batch."""
    splits = as_splits(data, batch_size=options.batch_size)
    batches = [read_batch(b) for b in splits.get("train", splits["test"])]
    if not batches:
        raise DataError("there is no batch to fit a curve on")
    samples = jax.tree.map(
        lambda *parts: jnp.concatenate(parts), *[_with_mask(b, options.task) for b in batches]
    )
    check_finite((samples.x, samples.y))
    if not np.any(np.asarray(samples.mask)):
        raise DataError("nothing of the data counts: their masks are 0 everywhere")
    return samples


def _with_mask(batch: Batch, task: Task) -> Batch:
    if batch.mask is not None:
        return batch
    n = len(jax.tree.leaves(batch.x)[0])
    return batch._replace(mask=np.asarray(task.default_mask(batch.y, n), np.float32))


def _fit(
    network: TracedNetwork,
    options: CurveOptions,
    ends: Sequence[Variables],
    bends: Variables,
    samples: Batch,
    begun: Begun,
    progress: ProgressFn | None,
) -> tuple[Variables, Float[np.ndarray, "steps pairs"]]:
    """Runs all steps, `STRIDE` of them a call; the bends are held in float32 or wider."""
    leaves, structure = jax.tree.flatten(bends)
    moving = _trainable(network.graph)
    state = [wide(leaves[i]) for i in moving]
    state = state, jax.vmap(_optimizer(options).init)(state)
    losses, kept = np.zeros((0, len(jax.tree.leaves(ends)[0]))), begun.read()
    if kept is not None:
        losses = kept.pop("losses")
        state = jax.tree.unflatten(
            jax.tree.structure(state), [kept[str(i)] for i in range(len(kept))]
        )
    for first in range(len(losses), options.steps, STRIDE):
        numbers = jnp.arange(first, min(first + STRIDE, options.steps))
        state, found = _run(network, options, moving, (*ends, bends), state, numbers, samples)
        losses, done = np.concatenate([losses, np.asarray(found, np.float64)]), int(numbers[-1]) + 1
        if progress:
            progress(done, options.steps, "fitting the curve")
        if not np.isfinite(losses[first:]).all():
            raise ModeError(
                f"the curve diverged within {done} steps; lower learning_rate, now "
                f"{options.learning_rate}"
            )
        named = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(state))}
        begun.write({"losses": losses, **named}, last=done == options.steps)
    for i, leaf in zip(moving, state[0], strict=True):
        leaves[i] = leaf.astype(leaves[i].dtype)
    return jax.tree.unflatten(structure, leaves), losses


def _identify(
    network: TracedNetwork, options: CurveOptions, ends: Sequence[Variables], samples: Batch
) -> str:
    """Returns a digest of all that a fit's bits depend on."""
    program = network.graph.program
    equations = [equation.name for equation in program.equations]
    arrays = hash_arrays(list(ends)), hash_arrays([samples])
    words = repr((fields.to_dict(options), program.paths, equations, arrays))
    return hashlib.sha256(words.encode()).hexdigest()


def _optimizer(options: CurveOptions) -> Any:
    import optax

    return optax.adam(optax.cosine_decay_schedule(options.learning_rate, options.steps))


def _trainable(graph: Graph) -> tuple[int, ...]:
    """Returns the numbers of the leaves that are fitted: no counters, no running statistics."""
    held = {path for norm in graph.normalisers for path in (norm.mean, norm.var)}
    program = graph.program
    return tuple(
        i
        for i, (path, number) in enumerate(zip(program.paths, program.leaves, strict=True))
        if jnp.issubdtype(program.avals[number].dtype, jnp.inexact) and path not in held
    )


@partial(jax.jit, static_argnames=("network", "options", "moving"), donate_argnames=("state",))
def _run(
    network: TracedNetwork,
    options: CurveOptions,
    moving: tuple[int, ...],
    trees: tuple[Variables, Variables, Variables],
    state: PyTree,
    numbers: jax.Array,
    samples: Batch,
) -> tuple[PyTree, Float[Array, "steps pairs"]]:
    """Takes the steps of these numbers, of all pairs side by side."""
    size, task = network.graph.program.samples, options.task
    optimizer, key = _optimizer(options), jax.random.key(options.seed)

    def loss(leaves: list[jax.Array], trees: PyTree, alpha: jax.Array, batch: Batch) -> jax.Array:
        a, b, bend = trees
        held, structure = jax.tree.flatten(bend)
        for i, leaf in zip(moving, leaves, strict=True):
            held[i] = leaf.astype(held[i].dtype)
        theta = Curve(a, b, jax.tree.unflatten(structure, held), options.kind).at(alpha)
        outputs = run_on_batch(network.graph, theta, batch.x).output
        mask = output_mask(network.apply, a, batch.x, batch.mask)
        sums = task.sums(outputs, batch.y, mask)
        return sums["loss"] / sums["count"]

    def step(state: PyTree, number: jax.Array) -> tuple[PyTree, jax.Array]:
        leaves, memory = state
        alpha, rows = jax.random.split(jax.random.fold_in(key, number))
        rows = jax.random.randint(rows, (size,), 0, len(samples.mask))
        batch = jax.tree.map(lambda leaf: leaf[rows], samples)
        one = jax.value_and_grad(loss)
        values, slopes = jax.vmap(one, (0, 0, None, None))(
            leaves, trees, jax.random.uniform(alpha), batch
        )
        updates, memory = jax.vmap(optimizer.update)(slopes, memory)
        leaves = jax.tree.map(jnp.add, leaves, updates)
        return (leaves, memory), values

    return jax.lax.scan(step, state, numbers)


def run_on_batch(graph: Graph, variables: Variables, x: Inputs) -> Values:
    """Runs a network with the batch's own statistics where it keeps running ones."""
    places = find_places(graph, "reset")
    if not places:
        return graph.evaluate(variables, x)
    held = read_normalisers(graph, variables, jnp.zeros(()))
    visit: dict[int, Visit] = {}
    for place in places:
        visit[place.end] = _by_batch(place, held[place.name])
    return graph.evaluate(variables, x, visit)


def _by_batch(place: Place, held: Held) -> Visit:
    def visit(values: Mapping[int, Any]) -> Mapping[int, Any]:
        value = values[place.value]
        axes = tuple(i for i in range(value.ndim) if i not in place.axes)
        mean, variance = (part.reshape(-1) for part in (value.mean(axes), value.var(axes)))
        scale = jnp.sqrt(held.variance / (variance + held.epsilon))
        shift = held.slope * (held.mean - mean * scale) + held.offset * (1 - scale)
        return rescale(place, scale, shift)(values)

    return visit
