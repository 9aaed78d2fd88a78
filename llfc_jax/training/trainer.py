"""Runs trained in lockstep: forks, checkpoints and interruptions.

All runs are at the same epoch at any time, so that they make one batch of replicas. Which of them
are in the batch is a function of the epoch alone, so a checkpoint needs no more than the states.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from llfc_jax.data import Dataset
from llfc_jax.errors import ConfigError, HostsError
from llfc_jax.parallel import multihost, sharding
from llfc_jax.parallel.loops import LoopPlan, choose_loops
from llfc_jax.training.checkpoint import Checkpoints
from llfc_jax.training.feed import source
from llfc_jax.training.loop import Pace, epoch, gather, join, place
from llfc_jax.training.preemption import deferred
from llfc_jax.training.recipe import Rates, Recipe
from llfc_jax.training.state import State, create, fork, stack, unstack
from llfc_jax.training.step import Task, make_task

Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class Run:
    """One network's training.

    Attributes:
        name: unique.
        stream: where its randomness comes from. Without a trunk: a seed, then constants that are
            folded into its key. With one: the branch's number.
        trunk: the run it goes on from; None starts from fresh weights.
        start: epoch at which it leaves its trunk.
        end: epoch at which it stops. One that stops before the last epoch is trained for its
            branches only and not returned.
        rates: peak rate and decay of a run without a trunk; the recipe's own if None.
    """

    name: str
    stream: tuple[int, ...]
    trunk: str | None = None
    start: int = 0
    end: int = 0
    rates: Rates | None = None

    def key(self) -> jax.Array:
        """The typed key of a run without a trunk."""
        return functools.reduce(jax.random.fold_in, self.stream[1:], jax.random.key(self.stream[0]))


def train(
    module: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    runs: Sequence[Run],
    *,
    plan: LoopPlan | None = None,
    mesh: Mesh | None = None,
    workdir: str | Path | None = None,
    checkpoint_every: int = 1,
    progress: Progress | None = None,
) -> dict[str, State]:
    """Train runs side by side, all at the same epoch, and return their final states by name.

    With a workdir, Ctrl-C and SIGTERM are let through only after the states were saved as they
    are, in mid-epoch if need be; called again, it goes on from there with the same bits.

    Args:
        module: a Linen network called as `module(x, train=...)`.
        dataset: its train split is used.
        recipe: how to train.
        runs: which; a trunk has no trunk itself.
        plan: how the loops are run; by default what suits network and backend.
        mesh: the devices, where there are several (`llfc_jax.parallel.sharding.make`).
        workdir: checkpoints go to `workdir/checkpoints`; None keeps nothing.
        checkpoint_every: epochs between checkpoints.
        progress: called as (steps done, steps in all, words), steps counted over all runs.

    Raises:
        ConfigError, DataError: if recipe, network and data do not fit together.
        WorkdirError: if the checkpoints cannot be used.
    """
    if checkpoint_every < 1:
        raise ConfigError(f"checkpoint_every must be 1 or more, not {checkpoint_every!r}")
    crew = _Crew(make_task(module, recipe, dataset, mesh), tuple(runs), recipe.rates)
    like = crew.check(dataset)
    parts = sharding.size(mesh, sharding.BATCH)
    plan = plan or choose_loops(module.apply, like.variables, _input(dataset), data=parts)
    done, states = 0, None
    with contextlib.ExitStack() as context:
        signals, store = [], None
        if workdir is not None:
            signals = context.enter_context(deferred())
            identity = _identity(module, dataset, recipe, runs)
            store = Checkpoints(Path(workdir) / "checkpoints", identity)
            done = store.latest or 0
            if done:
                states = store.load(done, like, len(crew.members(done // crew.task.steps)))
        if states is None:
            states = crew.begin(dataset.shape)
        stop = 0
        for at, groups in crew.train(plan, source(dataset, mesh), states, done):
            told = crew.progress(at, groups)
            if progress:
                progress(*told)
            number, within = divmod(at, crew.task.steps)
            stop = multihost.maximum(len(signals))
            last = stop or number == recipe.epochs
            if store and (last or (not within and number % checkpoint_every == 0)):
                store.save(at, join(groups, mesh))
            if last:
                states = gather(groups, len(crew.members(number)))
                break
        if stop and not signals:
            raise HostsError("another process was told to stop; start all again to go on")
    names = [run.name for run in crew.members(recipe.epochs)]
    return dict(zip(names, map(jax.device_put, unstack(states)), strict=True))


def _input(dataset: Dataset) -> jax.ShapeDtypeStruct:
    """The shape of one input of the network."""
    return jax.ShapeDtypeStruct((1, *dataset.shape), jnp.float32)


@dataclasses.dataclass(frozen=True)
class _Crew:
    """The runs of one training, and who of them is aboard when."""

    task: Task
    runs: tuple[Run, ...]
    rates: Rates  # of runs without rates of their own

    def members(self, epoch: int) -> list[Run]:
        """The runs in the batch from the start of an epoch on; after the last, those that stay."""
        last = self.task.recipe.epochs
        return [r for r in self.runs if r.start <= epoch and (epoch < r.end or r.end == last)]

    def check(self, dataset: Dataset) -> State:
        """The shapes of a replica's state, after a check that the network fits the data."""
        make = functools.partial(self.create, shape=dataset.shape)
        state = jax.eval_shape(make, jax.eval_shape(lambda: jax.random.key(0)))
        module = self.task.module
        logits = jax.eval_shape(module.apply, state.variables, _input(dataset))
        if logits.ndim != 2 or logits.shape[1] < dataset.classes:
            raise ConfigError(
                f"{type(module).__name__} gives outputs of shape {logits.shape[1:]}, but "
                f"{dataset.name!r} has {dataset.classes} classes; build it with that many"
            )
        return state

    def create(self, key: jax.Array, shape: tuple[int, ...], rates: Rates | None = None) -> State:
        """A replica before its first step."""
        rates = rates or self.rates
        return create(self.task.module, self.task.recipe, key, shape, self.task.steps, rates)

    def begin(self, shape: tuple[int, ...]) -> State:
        """The states at the start of training."""
        roots = [run for run in self.runs if run.trunk is None]
        return self.regroup([self.create(run.key(), shape, run.rates) for run in roots], roots, 0)

    def regroup(self, states: Sequence[State], runs: Sequence[Run], epoch: int) -> State:
        """The states at the start of an epoch, out of those of the runs aboard before.

        Runs that end stay behind; those that start are forks of their trunks.
        """
        have = {run.name: state for run, state in zip(runs, states, strict=True)}
        return stack(
            [
                have[run.name]
                if run.trunk is None or run.name in have
                else fork(have[run.trunk], *run.stream)
                for run in self.members(epoch)
            ]
        )

    def train(
        self, plan: LoopPlan, data: Any, states: State, done: int
    ) -> Iterator[tuple[int, list[State]]]:
        """Train on from step `done`; yields steps done and states after every dispatch."""
        steps, mesh, pace = self.task.steps, self.task.mesh, Pace()
        groups = place(states, plan, mesh)
        for number in range(done // steps, self.task.recipe.epochs):
            for within in epoch(self.task, plan, data, groups, done % steps, pace):
                if within < steps:
                    yield number * steps + within, groups
            done = (number + 1) * steps
            before = self.members(number)
            if before != self.members(number + 1):
                each = unstack(gather(groups, len(before)))
                groups = place(self.regroup(each, before, number + 1), plan, mesh)
            yield done, groups

    def progress(self, done: int, groups: Sequence[State]) -> tuple[int, int, str]:
        """Steps done and steps in all, over all runs, and words on the latest loss."""
        steps, epochs = self.task.steps, self.task.recipe.epochs
        counts = [len(self.members(number)) * steps for number in range(epochs)]
        number, share = (done - 1) // steps, (done - 1) % steps + 1
        each = sharding.fetch([(group.loss[:, number], group.alive) for group in groups])
        losses = np.concatenate([loss[alive] for loss, alive in each])
        words = f"loss {losses.mean() / share:.4f}" if losses.size else "all diverged"
        before = sum(counts[:number]) + counts[number] * share // steps
        return before, sum(counts), f"epoch {number + 1} of {epochs}, {words}"


def _identity(
    module: nn.Module, dataset: Dataset, recipe: Recipe, runs: Sequence[Run]
) -> dict[str, Any]:
    """What tells one training from another, as JSON."""
    skipped = ("parent", "name")
    parts = {f.name: getattr(module, f.name) for f in dataclasses.fields(module)}
    return {
        "network": {"class": type(module).__qualname__}
        | {name: _words(value) for name, value in parts.items() if name not in skipped},
        "train": dataclasses.asdict(recipe),
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "mean": list(dataset.mean),
            "std": list(dataset.std),
        },
        "runs": {
            run.name: f"stream {run.stream}, trunk {run.trunk}, epochs {run.start} to {run.end}"
            + (f", {run.rates}" if run.rates else "")
            for run in runs
        },
    }


def _words(value: Any) -> str:
    """A field's value as words that are the same in every process."""
    return getattr(value, "__qualname__", None) or str(value)
