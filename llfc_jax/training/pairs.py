"""Pairs of modes: spawned from a common trunk, or independent of each other.

All networks of an experiment are trained in lockstep, one epoch after the other, as one batch of
replicas, whatever their seeds, pairs and rates. A trunk is trained once; at the end of epoch k the
branches of `spawn_k<k>` join the batch as copies of it with randomness of their own, and the trunk
leaves when the last have forked. So each pair shares exactly the first k epochs, and nothing is
trained twice.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from flax import linen as nn
from jax.sharding import Mesh

from llfc_jax.data import Dataset
from llfc_jax.errors import ConfigError
from llfc_jax.parallel.loops import LoopPlan
from llfc_jax.training.history import History, history
from llfc_jax.training.recipe import Rates, Recipe
from llfc_jax.training.trainer import Progress, Run, train

TRUNK, INDEPENDENT = 0, 1  # streams of a seed: the trunk's is 0, independent ends have 1 and 2


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two trained networks and how they came about.

    Attributes:
        name: `spawn_k<k>` or `independent`.
        a: variables of the first mode.
        b: variables of the second.
        history: training loss and accuracy of both, by epoch.
    """

    name: str
    a: Any
    b: Any
    history: History

    @property
    def diverged(self) -> str | None:
        """One line that says which mode diverged and when, or None."""
        words = [
            f"{run} diverged in epoch {when}"
            for run, when in zip(self.history.run, self.history.diverged.tolist(), strict=True)
            if when
        ]
        return f"{self.name}: {', '.join(words)}; lower train.learning_rate" if words else None


def parse_pair(name: str, epochs: int) -> int | None:
    """The epoch at which a pair forks; None for an independent pair.

    Args:
        name: `spawn_k0`, `spawn_k1`, ... or `independent`.
        epochs: length of the training.

    Raises:
        ConfigError: for another name, or a fork after the end of training.

    Example:
        >>> parse_pair("spawn_k5", epochs=20)
        5
    """
    if name == "independent":
        return None
    match = re.fullmatch(r"spawn_k(0|[1-9][0-9]*)", name) if isinstance(name, str) else None
    if match is None:
        raise ConfigError(f"unknown pair {name!r}; write 'spawn_k<epoch>' or 'independent'")
    fork = int(match[1])
    if fork > epochs:
        raise ConfigError(f"pair {name!r} forks after the end of training ({epochs} epochs)")
    return fork


@dataclasses.dataclass(frozen=True)
class Trial:
    """What one experiment wants trained.

    Attributes:
        recipe: how its networks are trained.
        pairs: names; see `parse_pair`.
        seed: its trunk and independent ends derive from it.
    """

    recipe: Recipe
    pairs: Sequence[str] = ("spawn_k1", "independent")
    seed: int = 0


def lineage(pairs: Sequence[str], seed: int, epochs: int, rates: Rates | None = None) -> list[Run]:
    """The runs that the pairs of one seed need: the trunk, the branches, the independent ends.

    Names are `<root>/trunk` and `<root>/<pair>/a`, `.../b`, where the root is the seed, and the
    rates if there are any.
    """
    if not pairs or len(set(pairs)) != len(pairs):
        raise ConfigError(f"pairs must be one or more different names, not {tuple(pairs)!r}")
    forks = {pair: parse_pair(pair, epochs) for pair in pairs}
    spawned = [fork for fork in forks.values() if fork is not None]
    root, runs = _named(seed, rates), []
    if spawned:
        runs.append(Run(f"{root}/trunk", (seed, TRUNK), end=max(spawned), rates=rates))
    for pair, fork in forks.items():
        for branch, letter in enumerate("ab"):
            name = f"{root}/{pair}/{letter}"
            if fork is None:
                runs.append(Run(name, (seed, INDEPENDENT + branch), end=epochs, rates=rates))
            else:
                runs.append(Run(name, (branch,), trunk=f"{root}/trunk", start=fork, end=epochs))
    return runs


def _named(seed: int, rates: Rates | None) -> str:
    """The first part of the names of a seed's runs."""
    return f"{seed}" if rates is None else f"{seed},{rates.learning_rate},{rates.weight_decay}"


def train_pairs(
    module: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    pairs: Sequence[str] = ("spawn_k1", "independent"),
    seed: int = 0,
    **options: Any,
) -> dict[str, Pair]:
    """Train pairs of modes of one seed (`train_trials`, which says the options and errors).

    Returns:
        Pair name -> pair.
    """
    return train_trials(module, dataset, [Trial(recipe, pairs, seed)], **options)[0]


def train_seeds(
    module: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    pairs: Sequence[str] = ("spawn_k1", "independent"),
    seeds: Sequence[int] = (0,),
    **options: Any,
) -> dict[int, dict[str, Pair]]:
    """Train the same pairs for several seeds, all of them side by side (`train_trials`).

    Returns:
        Seed -> pair name -> pair.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds must be one or more different integers, not {tuple(seeds)!r}")
    trials = [Trial(recipe, pairs, seed) for seed in seeds]
    return dict(zip(seeds, train_trials(module, dataset, trials, **options), strict=True))


def train_trials(
    module: nn.Module,
    dataset: Dataset,
    trials: Sequence[Trial],
    *,
    plan: LoopPlan | None = None,
    mesh: Mesh | None = None,
    workdir: Any = None,
    checkpoint_every: int = 1,
    progress: Progress | None = None,
) -> list[dict[str, Pair]]:
    """Train the pairs of several trials side by side, and nothing twice.

    Trials may differ in seed, pairs, learning rate and weight decay. Those that differ in their
    pairs alone share trunk and independent ends.

    Args:
        module: a Linen network called as `module(x, train=...)`.
        dataset: its train split is used.
        trials: one or more.
        plan: how the loops are run; by default what suits network and backend.
        mesh: the devices, where there are several (`llfc_jax.parallel.sharding.make`).
        workdir: checkpoints go below it, and a run that was stopped resumes from there with the
            same bits; None keeps nothing.
        checkpoint_every: epochs between checkpoints.
        progress: called as (steps done, steps in all, words), steps counted over all replicas.

    Returns:
        Pair name -> pair, of each trial. A mode that diverged is as it was before;
        `Pair.diverged` says so.

    Raises:
        ConfigError, DataError: if pairs, recipes, network and data do not fit together.
        WorkdirError: if the checkpoints cannot be used.
    """
    if not trials or not all(trial.recipe.alike(trials[0].recipe) for trial in trials):
        raise ConfigError(
            "trials must be one or more whose recipes differ in learning_rate and weight_decay "
            "alone; train the others in another call"
        )
    recipe = trials[0].recipe
    differ = len({trial.recipe.rates for trial in trials}) > 1
    rates = [trial.recipe.rates if differ else None for trial in trials]
    runs: dict[str, Run] = {}
    for trial, own in zip(trials, rates, strict=True):
        for run in lineage(trial.pairs, trial.seed, recipe.epochs, own):
            have = runs.setdefault(run.name, run)
            if run.end > have.end:  # a trunk is trained for the latest of all forks
                runs[run.name] = run
    states = train(
        module,
        dataset,
        recipe,
        list(runs.values()),
        plan=plan,
        mesh=mesh,
        workdir=workdir,
        checkpoint_every=checkpoint_every,
        progress=progress,
    )
    steps = len(dataset.train.images) // recipe.batch_size

    def pair(root: str, name: str) -> Pair:
        ends = {letter: states[f"{root}/{name}/{letter}"] for letter in "ab"}
        return Pair(
            name, ends["a"].variables, ends["b"].variables, history(ends, steps, recipe.batch_size)
        )

    roots = [_named(trial.seed, own) for trial, own in zip(trials, rates, strict=True)]
    return [
        {name: pair(root, name) for name in trial.pairs}
        for trial, root in zip(trials, roots, strict=True)
    ]
