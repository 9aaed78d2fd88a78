"""Training: recipes, a loop that stays on the device, true spawning, exact resumption."""

from llfc_jax.training.finetuning import FineTuning, Variant
from llfc_jax.training.history import History
from llfc_jax.training.pair_kinds import (
    PAIR_KINDS,
    PairKind,
    PairOrigin,
    pair_kind,
    parse_pair_name,
)
from llfc_jax.training.pairs import (
    TrainedPair,
    Trial,
    list_runs,
    train_pairs,
    train_seeds,
    train_trials,
)
from llfc_jax.training.recipe import Rates, Recipe
from llfc_jax.training.schedule import TrainingRun
from llfc_jax.training.state import TrainState, create_state, fork_state
from llfc_jax.training.trainer import TrainOptions, train

__all__ = [
    "PAIR_KINDS",
    "FineTuning",
    "History",
    "PairKind",
    "PairOrigin",
    "Rates",
    "Recipe",
    "TrainOptions",
    "TrainState",
    "TrainedPair",
    "TrainingRun",
    "Trial",
    "Variant",
    "create_state",
    "fork_state",
    "list_runs",
    "pair_kind",
    "parse_pair_name",
    "train",
    "train_pairs",
    "train_seeds",
    "train_trials",
]
