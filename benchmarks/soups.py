"""Soups over learning rates: networks fine-tuned from one base, merged, beside ensemble and best.

    TFDS_DATA_DIR=DIR python benchmarks/soups.py        # prints the table
    TFDS_DATA_DIR=DIR python benchmarks/soups.py --store  # keeps it in benchmarks/measured

After Wortsman et al. (ICML 2022), in small: an MLP learns the classes 0 to 4 of Fashion-MNIST, and
six copies of it the others, each at a learning rate and in an order of its own. The greedy soup and
the best single network are chosen on a tenth of the training data that none was trained on. Two
minutes a seed on one core.
"""

import argparse
import math

import jax
import jax.numpy as jnp
import numpy as np
from results import table
from summaries import MEASURED, Row, Summary, shorten_environment, store

from llfc_jax import data, merging, networks
from llfc_jax.experiments.provenance import provenance
from llfc_jax.training import FineTuning, Recipe, Variant, train_pairs
from llfc_jax.types import Variables

RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 4e-3)
FEW = 3  # of the lowest rates, for a soup of their own
REST = (5, 6, 7, 8, 9)
WIDTHS = (512, 512, 512)
RECIPE = Recipe(epochs=30, batch_size=128, optimizer="adam", learning_rate=1e-3,
                schedule="constant")  # fmt: skip
TASKS = tuple(Variant((0.0, 0.9), REST, learning_rate=rate) for rate in RATES)
FINETUNING = FineTuning(pretrain=Variant(classes=(0, 1, 2, 3, 4)), tasks=TASKS)
PAIRS = tuple(f"finetune_k15_{i}_{i + 1}" for i in range(0, len(RATES), 2))


def measure(seed: int) -> list[Row]:
    """Returns a row for each network and each merge, of one seed."""
    dataset = data.load("fashion_mnist", train_size=12_000, test_size=2_000)
    module = networks.build("mlp", dataset.classes, widths=WIDTHS)
    pairs = train_pairs(module, dataset, RECIPE, PAIRS, seed, FINETUNING).values()
    models = [mode for pair in pairs for mode in (pair.a, pair.b)]
    held = Variant((0.9, 1.0), REST).cut(dataset).train
    x, y = next(iter(data.Batches(held, dataset, len(held))))

    @jax.jit
    def accuracy(variables: Variables) -> jax.Array:
        return (jnp.asarray(module.apply(variables, x)).argmax(-1) == y).mean()

    rules = [merging.Mean(), merging.GreedySoup(accuracy)]
    test = data.Batches(Variant(classes=REST).cut(dataset).test, dataset, 500)
    found = merging.diagnose(module, models, test, rules)
    best = int(np.argmax([float(accuracy(model)) for model in models]))
    singles = {f"one, at {rate:g}": i for i, rate in enumerate(RATES)}
    rows = [
        _row(seed, name, found.model_loss[i], found.model_accuracy[i])
        for name, i in {**singles, "the best one on held-out data": best}.items()
    ]
    few = merging.diagnose(module, models[:FEW], test, rules[:1])
    for name, of, i in (
        ("uniform soup", found, 0),
        (f"uniform soup of the {FEW} slowest", few, 0),
        ("greedy soup", found, 1),
    ):
        distance = float(np.nanmean(np.asarray(of.distance)[i]))
        rows.append(_row(seed, name, of.loss[i], of.accuracy[i], distance))
    for name, of in (("mean of outputs", found), (f"mean of outputs of the {FEW} slowest", few)):
        rows.append(_row(seed, name, of.ensemble_loss, of.ensemble_accuracy))
    return rows


def _row(seed: int, name: str, loss, accuracy, distance: float = math.nan) -> Row:
    return {
        "seed": seed, "network": name, "pair": "", "align": "", "k": math.nan,
        "error": 1 - float(np.mean(accuracy)), "loss": float(np.mean(loss)),
        "mixture_distance": distance,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--store", action="store_true", help="keep it in benchmarks/measured")
    given = parser.parse_args()
    rows = [row for seed in given.seeds for row in measure(seed)]
    train = {"epochs": "15 + 15", "optimizer": RECIPE.optimizer, "batch_size": RECIPE.batch_size}
    config = {
        "network": {"name": "mlp", "widths": list(WIDTHS)},
        "data": {"name": "fashion_mnist", "train_size": 12_000, "test_size": 2_000},
        "train": train,
    }
    summary = Summary(config, ["network"], shorten_environment(provenance()), "runs", rows)
    print(table(summary))
    if given.store:
        store(summary, MEASURED / "soups.json")


if __name__ == "__main__":
    main()
