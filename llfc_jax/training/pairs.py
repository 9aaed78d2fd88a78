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
from llfc_jax.training.finetuning import FineTuning, Variant
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
        base: variables of the network that both were fine-tuned from, where there is one.
    """

    name: str
    a: Variables
    b: Variables
    history: History
    base: Variables | None = None

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
        finetuning: what fine-tuned pairs are made of.
    """

    recipe: Recipe
    pairs: Sequence[str] = ("spawn_k1", "independent")
    seed: int = 0
    finetuning: FineTuning = dataclasses.field(default_factory=FineTuning)


def train_pairs(
    module: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    pairs: Sequence[str] = ("spawn_k1", "independent"),
    seed: int = 0,
    finetuning: FineTuning | None = None,
    **options: Unpack[TrainOptions],
) -> dict[str, TrainedPair]:
    """Trains pairs of modes of one seed; see `train_trials` for options and errors.

    Returns:
        Pair name -> pair.
    """
    trial = Trial(recipe, pairs, seed, finetuning or FineTuning())
    return train_trials(module, dataset, [trial], **options)[0]


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
    each = [_runs_of_pairs(trial, trial.recipe.rates if differ else None) for trial in trials]
    runs = _merge_runs(run for of in each for pair in of.values() for run in pair)
    states = train(module, dataset, recipe, runs, **options)
    return [
        {name: _make_pair(states, name, pair, dataset, recipe) for name, pair in of.items()}
        for of in each
    ]


def list_runs(
    pairs: Sequence[str],
    seed: int,
    epochs: int,
    rates: Rates | None = None,
    finetuning: FineTuning | None = None,
) -> list[TrainingRun]:
    """Lists the runs that the pairs of one seed need, those that several need once.

    Names are `<root>/<pair>/a`, `.../b`, and what the kinds of pair add (`<root>/trunk`), where
    the root is the seed, and the rates if there are any.

    Raises:
        ConfigError: a name is unknown, given twice, or does not fit the epochs.
    """
    trial = Trial(Recipe(epochs=epochs), pairs, seed, finetuning or FineTuning())
    return _merge_runs(run for of in _runs_of_pairs(trial, rates).values() for run in of)


def _runs_of_pairs(trial: Trial, rates: Rates | None) -> dict[str, list[TrainingRun]]:
    """Returns the runs that each pair of a trial needs, its two modes being the last."""
    pairs, epochs = trial.pairs, trial.recipe.epochs
    if not pairs or len(set(pairs)) != len(pairs):
        raise ConfigError(f"pairs must be one or more different names, not {tuple(pairs)!r}")
    root = f"{trial.seed}" if rates is None else _name_root(trial.seed, rates)
    origin = PairOrigin(root, trial.seed, epochs, rates, trial.finetuning)
    return {name: parse_pair_name(name, epochs).make_runs(name, origin) for name in pairs}


def _merge_runs(runs: Iterable[TrainingRun]) -> list[TrainingRun]:
    """Keeps one run of each name: a trunk is trained until the latest of all forks."""
    merged: dict[str, TrainingRun] = {}
    for run in runs:
        if run.name not in merged or run.end > merged[run.name].end:
            merged[run.name] = run
    return list(merged.values())


def _name_root(seed: int, rates: Rates) -> str:
    """Returns the first part of the names of a seed's runs, where rates differ."""
    return f"{seed},{rates.learning_rate},{rates.weight_decay}"


def _make_pair(
    states: Mapping[str, TrainState],
    name: str,
    runs: Sequence[TrainingRun],
    dataset: Dataset,
    recipe: Recipe,
) -> TrainedPair:
    """Returns a pair out of the final states of all runs."""
    finetuning = runs[0].finetuning
    variants = (Variant(),) if finetuning is None else finetuning.variants
    samples = min(variant.count(dataset.train) for variant in variants)
    ends = {mode: states[run.name] for mode, run in zip("ab", runs[-2:], strict=True)}
    history = make_history(ends, samples // recipe.batch_size, recipe.batch_size)
    bases = [states[run.name].variables for run in runs if run.keep]
    return TrainedPair(name, ends["a"].variables, ends["b"].variables, history, *bases)
