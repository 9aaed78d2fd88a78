"""Training: recipes, a loop that stays on the device, true spawning, exact resumption."""

from llfc_jax.training.history import History
from llfc_jax.training.pairs import Pair, Trial, parse_pair, train_pairs, train_seeds, train_trials
from llfc_jax.training.recipe import Rates, Recipe
from llfc_jax.training.state import State, create, fork
from llfc_jax.training.trainer import Run, train

__all__ = [
    "History",
    "Pair",
    "Rates",
    "Recipe",
    "Run",
    "State",
    "Trial",
    "create",
    "fork",
    "parse_pair",
    "train",
    "train_pairs",
    "train_seeds",
    "train_trials",
]
