"""Pairs of modes: spawned from a common trunk, or independent of each other.

All networks of an experiment are trained in lockstep, one epoch after the other, as one batch of
replicas. A trunk is trained once; at the end of epoch k the branches of `spawn_k<k>` join the
batch as copies of it with randomness of their own, and the trunk leaves when the last have
forked. So each pair shares exactly the first k epochs, and nothing is trained twice.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from flax import linen as nn

from llfc_jax.data import Dataset
from llfc_jax.errors import ConfigError
from llfc_jax.execution import Plan
from llfc_jax.training.history import History, history
from llfc_jax.training.lockstep import Progress, Run, train
from llfc_jax.training.recipe import Recipe

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


def lineage(pairs: Sequence[str], seed: int, epochs: int) -> list[Run]:
    """The runs that the pairs of one seed need: the trunk, the branches, the independent ends.

    Names are `<seed>/trunk` and `<seed>/<pair>/a`, `.../b`.
    """
    if not pairs or len(set(pairs)) != len(pairs):
        raise ConfigError(f"pairs must be one or more different names, not {tuple(pairs)!r}")
    forks = {pair: parse_pair(pair, epochs) for pair in pairs}
    spawned = [fork for fork in forks.values() if fork is not None]
    runs = []
    if spawned:
        runs.append(Run(f"{seed}/trunk", (seed, TRUNK), end=max(spawned)))
    for pair, fork in forks.items():
        for branch, letter in enumerate("ab"):
            name = f"{seed}/{pair}/{letter}"
            if fork is None:
                runs.append(Run(name, (seed, INDEPENDENT + branch), end=epochs))
            else:
                runs.append(Run(name, (branch,), trunk=f"{seed}/trunk", start=fork, end=epochs))
    return runs


def train_pairs(
    module: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    pairs: Sequence[str] = ("spawn_k1", "independent"),
    seed: int = 0,
    **options: Any,
) -> dict[str, Pair]:
    """Train pairs of modes of one seed (`train_seeds`, which says the options and errors).

    Returns:
        Pair name -> pair.
    """
    return train_seeds(module, dataset, recipe, pairs, (seed,), **options)[seed]


def train_seeds(
    module: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    pairs: Sequence[str] = ("spawn_k1", "independent"),
    seeds: Sequence[int] = (0,),
    *,
    plan: Plan | None = None,
    workdir: Any = None,
    checkpoint_every: int = 1,
    progress: Progress | None = None,
) -> dict[int, dict[str, Pair]]:
    """Train the same pairs for several seeds, all of them side by side.

    Args:
        module: a Linen network called as `module(x, train=...)`.
        dataset: its train split is used.
        recipe: how to train.
        pairs: names; see `parse_pair`.
        seeds: each gives a trunk and independent ends of its own.
        plan: how the loops are run; by default what suits network and backend.
        workdir: checkpoints go below it, and a run that was stopped resumes from there with the
            same bits; None keeps nothing.
        checkpoint_every: epochs between checkpoints.
        progress: called as (steps done, steps in all, words), steps counted over all replicas.

    Returns:
        Seed -> pair name -> pair. A mode that diverged is as it was before; `Pair.diverged` says
        so.

    Raises:
        ConfigError, DataError: if pairs, recipe, network and data do not fit together.
        WorkdirError: if the checkpoints cannot be used.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds must be one or more different integers, not {tuple(seeds)!r}")
    runs = [run for seed in seeds for run in lineage(pairs, seed, recipe.epochs)]
    states = train(
        module,
        dataset,
        recipe,
        runs,
        plan=plan,
        workdir=workdir,
        checkpoint_every=checkpoint_every,
        progress=progress,
    )
    steps = len(dataset.train.images) // recipe.batch_size

    def pair(seed: int, name: str) -> Pair:
        ends = {letter: states[f"{seed}/{name}/{letter}"] for letter in "ab"}
        return Pair(
            name, ends["a"].variables, ends["b"].variables, history(ends, steps, recipe.batch_size)
        )

    return {seed: {name: pair(seed, name) for name in pairs} for seed in seeds}
