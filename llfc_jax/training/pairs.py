"""Pairs of modes of all kinds, trained side by side.

All networks of an experiment are trained in lockstep, one epoch after the other, as one batch of
replicas, whatever their seeds, pairs and rates. A trunk is trained once; at the epoch of a fork
the branches join the batch as copies of it with randomness of their own, and the trunk leaves when
the last have forked. So a pair `spawn_k<k>` shares exactly the first k epochs, and nothing is
trained twice.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Unpack

from flax import linen as nn

from llfc_jax.data import Dataset
from llfc_jax.errors import ConfigError
from llfc_jax.training.history import History, make_history
from llfc_jax.training.pair_kinds import PairOrigin, parse_pair_name
from llfc_jax.training.recipe import Rates, Recipe
from llfc_jax.training.schedule import TrainingRun
from llfc_jax.training.state import TrainState
from llfc_jax.training.trainer import TrainOptions, train
from llfc_jax.types import Variables


@dataclasses.dataclass(frozen=True)
class TrainedPair:
    """Two trained networks.

    Attributes:
        name: of the pair, such as `spawn_k1` or `independent`.
        a: variables of the first mode.
        b: variables of the second.
        history: training loss and accuracy of both, by epoch.
    """

    name: str
    a: Variables
    b: Variables
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


@dataclasses.dataclass(frozen=True)
class Trial:
    """The pairs that one experiment trains.

    Attributes:
        recipe: how its networks are trained.
        pairs: names of `llfc_jax.training.pair_kinds`.
        seed: from which the randomness of all its networks derives.
    """

    recipe: Recipe
    pairs: Sequence[str] = ("spawn_k1", "independent")
    seed: int = 0


def train_pairs(
    module: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    pairs: Sequence[str] = ("spawn_k1", "independent"),
    seed: int = 0,
    **options: Unpack[TrainOptions],
) -> dict[str, TrainedPair]:
    """Trains pairs of modes of one seed; see `train_trials` for options and errors.

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
    **options: Unpack[TrainOptions],
) -> dict[int, dict[str, TrainedPair]]:
    """Trains the same pairs for several seeds, all of them side by side; see `train_trials`.

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
    **options: Unpack[TrainOptions],
) -> list[dict[str, TrainedPair]]:
    """Trains the pairs of several trials side by side, and nothing twice.

    Trials may differ in seed, pairs, learning rate and weight decay. Those that differ in their
    pairs alone share trunk and independent modes.

    Args:
        module: a Linen network called as `module(x, train=...)`.
        dataset: its train split is used.
        trials: one or more.
        **options: see `llfc_jax.training.trainer.TrainOptions`.

    Returns:
        Pair name -> pair, of each trial. A mode that diverged is as it was before;
        `TrainedPair.diverged` says so.

    Raises:
        ConfigError, DataError: if pairs, recipes, network and data do not fit together.
        WorkdirError: if the checkpoints cannot be used.
    """
    if not trials or not all(t.recipe.is_same_program(trials[0].recipe) for t in trials):
        raise ConfigError(
            "trials must be one or more whose recipes differ in learning_rate and weight_decay "
            "alone; train the others in another call"
        )
    recipe = trials[0].recipe
    differ = len({trial.recipe.rates for trial in trials}) > 1
    rates = [trial.recipe.rates if differ else None for trial in trials]
    runs = _merge_runs(
        run
        for trial, own in zip(trials, rates, strict=True)
        for run in list_runs(trial.pairs, trial.seed, recipe.epochs, own)
    )
    states = train(module, dataset, recipe, runs, **options)
    steps = len(dataset.train.images) // recipe.batch_size
    roots = [_name_root(trial.seed, own) for trial, own in zip(trials, rates, strict=True)]
    return [
        {name: _make_pair(states, root, name, steps, recipe.batch_size) for name in trial.pairs}
        for trial, root in zip(trials, roots, strict=True)
    ]


def list_runs(
    pairs: Sequence[str], seed: int, epochs: int, rates: Rates | None = None
) -> list[TrainingRun]:
    """Lists the runs that the pairs of one seed need, those that several need once.

    Names are `<root>/<pair>/a`, `.../b`, and what the kinds of pair add (`<root>/trunk`), where
    the root is the seed, and the rates if there are any.

    Raises:
        ConfigError: a name is unknown, given twice, or does not fit the epochs.
    """
    if not pairs or len(set(pairs)) != len(pairs):
        raise ConfigError(f"pairs must be one or more different names, not {tuple(pairs)!r}")
    origin = PairOrigin(_name_root(seed, rates), seed, epochs, rates)
    kinds = {name: parse_pair_name(name, epochs) for name in pairs}
    return _merge_runs(run for name, kind in kinds.items() for run in kind.make_runs(name, origin))


def _merge_runs(runs: Iterable[TrainingRun]) -> list[TrainingRun]:
    """Keeps one run of each name: a trunk is trained until the latest of all forks."""
    merged: dict[str, TrainingRun] = {}
    for run in runs:
        if run.name not in merged or run.end > merged[run.name].end:
            merged[run.name] = run
    return list(merged.values())


def _name_root(seed: int, rates: Rates | None) -> str:
    """Returns the first part of the names of a seed's runs."""
    return f"{seed}" if rates is None else f"{seed},{rates.learning_rate},{rates.weight_decay}"


def _make_pair(
    states: Mapping[str, TrainState], root: str, name: str, steps_per_epoch: int, batch_size: int
) -> TrainedPair:
    """Returns a pair out of the final states of all runs."""
    ends = {mode: states[f"{root}/{name}/{mode}"] for mode in "ab"}
    history = make_history(ends, steps_per_epoch, batch_size)
    return TrainedPair(name, ends["a"].variables, ends["b"].variables, history)
