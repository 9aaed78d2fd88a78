"""Trains several runs side by side: forks, checkpoints and interruptions."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from llfc_jax.data import Dataset, Split
from llfc_jax.data.inputs import hash_arrays
from llfc_jax.errors import ConfigError, DataError, GraphError, HostsError
from llfc_jax.pair import leaf_paths
from llfc_jax.parallel import multihost, sharding
from llfc_jax.parallel.loops import LoopPlan, choose_loops
from llfc_jax.tasks import Task
from llfc_jax.training.bases import KeptStates, load_base
from llfc_jax.training.checkpoint import Checkpoints
from llfc_jax.training.feed import Samples, place_train_split
from llfc_jax.training.finetuning import (
    BY_THEMSELVES,
    FineTuning,
    check_patterns,
    is_named,
    join_variants,
)
from llfc_jax.training.loop import Pace, gather_states, join_states, place_states, run_epoch
from llfc_jax.training.preemption import defer_signals
from llfc_jax.training.recipe import Recipe
from llfc_jax.training.schedule import ForkFn, RunSchedule, TrainingRun
from llfc_jax.training.state import (
    TrainState,
    create_state,
    fork_state,
    restart_optimizer,
    unstack,
)
from llfc_jax.training.step import Setup, make_setup
from llfc_jax.types import ProgressFn


class TrainOptions(TypedDict, total=False):
    """How training is run, and by which task; nothing else here changes what a network learns.

    Attributes:
        task: how outputs are judged; `llfc_jax.tasks.classification()` by default.
        plan: how the loops are run; by default what suits network and backend.
        mesh: the devices, where there are several (`llfc_jax.parallel.sharding.make`).
        workdir: checkpoints go to `workdir/checkpoints`, and a run that was stopped resumes from
            there with the same bits; by default nothing is kept.
        checkpoint_every: epochs between checkpoints, at least; 1 by default.
        checkpoint_seconds: seconds between checkpoints, at least (`Checkpoints`); 30 by default.
        progress: called as (steps done, steps in all, words), steps counted over all runs.
    """

    task: Task | None
    plan: LoopPlan | None
    mesh: Mesh | None
    workdir: str | Path | None
    checkpoint_every: int
    checkpoint_seconds: float
    progress: ProgressFn | None


def train(
    module: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    runs: Sequence[TrainingRun],
    **options: Unpack[TrainOptions],
) -> dict[str, TrainState]:
    """Trains runs side by side, all at the same epoch, and returns their final states by name.

    With a workdir, Ctrl-C and SIGTERM take effect only after the states were saved, in mid-epoch
    if need be; called again, training resumes from there with the same bits. A process that is
    killed without warning loses what it trained since the last checkpoint: at most
    `checkpoint_seconds` (or one epoch, or `checkpoint_every`, where that is longer).

    Args:
        module: a Linen network called as `module(x, train=...)`.
        dataset: its train split is used.
        recipe: how to train.
        runs: which; a trunk has no trunk itself.
        **options: see `TrainOptions`.

    Raises:
        ConfigError, DataError: if recipe, network and data do not fit together.
        WorkdirError: if the checkpoints cannot be used.
    """
    mesh, workdir = options.get("mesh"), options.get("workdir")
    every, seconds = options.get("checkpoint_every", 1), options.get("checkpoint_seconds", 30.0)
    if every < 1:
        raise ConfigError(f"checkpoint_every must be 1 or more, not {every!r}")
    if not seconds >= 0:
        raise ConfigError(f"checkpoint_seconds must be 0 or more, not {seconds!r}")
    finetuning = _read_finetuning(runs)
    joined = None if finetuning is None else join_variants(dataset, finetuning.variants)
    dataset, ranges = (dataset, ()) if joined is None else (joined.dataset, joined.ranges)
    setup = make_setup(module, recipe, dataset, mesh, options.get("task"), finetuning, ranges)
    like = _check_fit(setup, dataset)
    create = functools.partial(_create, setup, recipe, dataset)
    fork = functools.partial(_fork, setup, recipe, dataset)
    schedule = RunSchedule(tuple(runs), recipe.epochs)
    parts = sharding.size(mesh, sharding.BATCH)
    plan = options.get("plan") or choose_loops(
        module.apply, like.variables, dataset.inputs(1), data=parts
    )
    with contextlib.ExitStack() as context:
        signals, store, states, done = [], None, None, 0
        kept = KeptStates(None if workdir is None else Path(workdir) / "bases")
        if workdir is not None:
            signals = context.enter_context(defer_signals())
            identity = _identify(module, dataset, recipe, runs, setup.task, setup.steps)
            if finetuning is not None:
                identity["finetuning"] = _describe_finetuning(finetuning, like)
            store = Checkpoints(Path(workdir) / "checkpoints", identity, seconds)
            done = store.latest or 0
            if done:
                states = store.load(done, like, len(schedule.active(done // setup.steps)))
        if states is None:
            states = schedule.begin(create, fork)
        for run in (run for run in runs if run.keep and run.end == 0):
            kept.store(run.name, jax.device_get(create(run)))
        stopped = False
        data = place_train_split(dataset, mesh)
        for at, groups in _train_from(done, setup, plan, schedule, data, states, fork, kept):
            described = _describe_progress(setup, schedule, at, groups)  # on several hosts by all
            if progress := options.get("progress"):
                progress(*described)
            number, within = divmod(at, setup.steps)
            stopped = multihost.maximum(len(signals)) > 0
            is_last = stopped or number == recipe.epochs
            due = within == 0 and number % every == 0
            if store and (is_last or (due and store.is_due())):
                store.save(at, join_states(groups, mesh))
            if is_last:
                states = gather_states(groups, len(schedule.active(number)))
                break
        if stopped and not signals:
            raise HostsError("another process received a signal to stop; start all again to resume")
    names = [run.name for run in schedule.active(recipe.epochs)]
    ends = dict(zip(names, map(jax.device_put, unstack(states)), strict=True))
    bases = {run.name: kept.load(run.name, like) for run in runs if run.keep}
    return ends | {name: jax.device_put(state) for name, state in bases.items()}


def _train_from(
    done: int,
    setup: Setup,
    plan: LoopPlan,
    schedule: RunSchedule,
    data: Samples | Split,
    states: TrainState,
    fork: ForkFn,
    kept: KeptStates,
) -> Iterator[tuple[int, list[TrainState]]]:
    """Trains on from step `done`; yields (steps done, states) after every dispatch."""
    steps, mesh, pace = setup.steps, setup.mesh, Pace()
    groups = place_states(states, plan, mesh)
    for number in range(done // steps, schedule.epochs):
        for within in run_epoch(setup, plan, data, groups, done % steps, pace):
            if within < steps:
                yield number * steps + within, groups
        done = (number + 1) * steps
        before = schedule.active(number)
        if before != schedule.active(number + 1):
            each = unstack(gather_states(groups, len(before)))
            for run, state in zip(before, each, strict=True):
                if run.keep and run.end == number + 1:
                    kept.store(run.name, state)
            groups = place_states(schedule.regroup(each, before, number + 1, fork), plan, mesh)
        yield done, groups


def _describe_progress(
    setup: Setup, schedule: RunSchedule, done: int, groups: Sequence[TrainState]
) -> tuple[int, int, str]:
    """Returns steps done and steps in all, over all runs, and words on the latest loss."""
    number, within = (done - 1) // setup.steps, (done - 1) % setup.steps + 1
    each = sharding.fetch([(group.loss[:, number], group.alive) for group in groups])
    losses = np.concatenate([loss[alive] for loss, alive in each])
    words = f"loss {losses.mean() / within:.4f}" if losses.size else "all diverged"
    counts = schedule.count_steps(done, setup.steps)
    return *counts, f"epoch {number + 1} of {schedule.epochs}, {words}"


def _create(setup: Setup, recipe: Recipe, dataset: Dataset, run: TrainingRun) -> TrainState:
    """Returns a run without a trunk before its first step."""
    rates = run.rates or recipe.rates
    state = create_state(
        setup.module, setup.recipe, run.key(), dataset.shape, setup.steps, rates, dataset.dtype
    )
    if run.finetuning is None:
        return state
    if run.finetuning.base is not None:
        variables = load_base(run.finetuning, state.variables)
        state = dataclasses.replace(state, variables=variables)
    return _begin_variant(state, run, run.finetuning)


def _fork(
    setup: Setup, recipe: Recipe, dataset: Dataset, run: TrainingRun, trunk: TrainState
) -> TrainState:
    """Returns a branch at its first step: it goes on from its trunk, or is fine-tuned from it."""
    state = fork_state(trunk, *run.stream, rates=run.rates)
    if run.finetuning is None:
        return state
    if heads := run.finetuning.heads:
        key = jax.random.wrap_key_data(state.key)
        fresh = create_state(
            setup.module, setup.recipe, key, dataset.shape, setup.steps, None, dataset.dtype
        )
        paths = leaf_paths(state.variables)
        both = zip(paths, *map(jax.tree.leaves, (state.variables, fresh.variables)), strict=True)
        leaves = [new if is_named(path, heads) else old for path, old, new in both]
        structure = jax.tree.structure(state.variables)
        state = dataclasses.replace(state, variables=jax.tree.unflatten(structure, leaves))
    return _begin_variant(restart_optimizer(recipe, state, setup.steps), run, run.finetuning)


def _begin_variant(state: TrainState, run: TrainingRun, finetuning: FineTuning) -> TrainState:
    """Returns a replica that is trained on a variant of the data, at its rate."""
    rate, rates = finetuning.variants[run.variant].learning_rate, state.rates
    if rate is not None:
        rates = rates._replace(learning_rate=np.float32(rate))
    return dataclasses.replace(state, variant=np.int32(run.variant), rates=rates)


def _read_finetuning(runs: Sequence[TrainingRun]) -> FineTuning | None:
    """Returns the fine-tunings of runs that are to be trained side by side.

    Raises:
        ConfigError: only some of them are fine-tuned.
    """
    found = {run.finetuning for run in runs}
    if len(found) > 1:
        raise ConfigError(BY_THEMSELVES)
    return found.pop() if found else None


def _check_fit(setup: Setup, dataset: Dataset) -> TrainState:
    """Checks that the network fits the data, and returns the shapes of a replica's state."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    make = functools.partial(create_state, dtype=dataset.dtype)
    state = jax.eval_shape(
        lambda key: make(setup.module, setup.recipe, key, dataset.shape, setup.steps), key
    )
    paths = leaf_paths(state.variables)
    check_patterns([name for names in setup.freeze for name in names], paths, "freeze:")
    outputs = jax.eval_shape(setup.module.apply, state.variables, dataset.inputs(2))
    if setup.task.labelled and dataset.classes is not None:
        shapes = [leaf.shape[1:] for leaf in jax.tree.leaves(outputs)]
        if len(shapes) > 1 or not shapes[0] or shapes[0][-1] < dataset.classes:
            raise ConfigError(
                f"{type(setup.module).__name__} gives outputs of shape {shapes[0]}, but "
                f"{dataset.name!r} has {dataset.classes} classes; build it with that many"
            )
    try:
        setup.task.check(outputs, dataset.targets(2), 2)
    except (GraphError, DataError) as error:
        raise ConfigError(f"{type(setup.module).__name__} on {dataset.name!r}: {error}") from error
    return state


def _identify(
    module: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    runs: Sequence[TrainingRun],
    task: Task,
    steps: int,
) -> dict[str, Any]:
    """Returns what distinguishes one training from another, as JSON."""
    skipped = ("parent", "name")
    parts = {f.name: getattr(module, f.name) for f in dataclasses.fields(module)}
    return {
        "network": {"class": type(module).__qualname__}
        | {name: _to_words(value) for name, value in parts.items() if name not in skipped},
        "task": task.described,
        "train": dataclasses.asdict(recipe),
        "steps per epoch": steps,
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


def _describe_finetuning(finetuning: FineTuning, like: TrainState) -> dict[str, Any]:
    """Returns what distinguishes fine-tunings, the weights that they start from among it."""
    described = jax.tree.map(str, dataclasses.asdict(finetuning))
    if finetuning.base is None:
        return described
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like.variables)
    return described | {"weights": hash_arrays(load_base(finetuning, fresh))}


def _to_words(value: object) -> str:
    """Returns a field's value as words that are the same in every process."""
    return getattr(value, "__qualname__", None) or str(value)
