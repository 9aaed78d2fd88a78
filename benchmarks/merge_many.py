"""Merging 2 to 8 independently trained networks: how they are placed beside each other, and REPAIR.

    TFDS_DATA_DIR=DIR python benchmarks/merge_many.py        # prints the table
    TFDS_DATA_DIR=DIR python benchmarks/merge_many.py --store  # keeps it in benchmarks/measured

After Crisostomi et al. (NeurIPS 2024), in small: MLPs on Fashion-MNIST, each from random weights of
its own. Each is permuted into a common order of units, by matching it to the one before ("chain"),
to the mean of those before and then to the mean of all others in turns ("turns", Git Re-Basin's
MergeMany), or all at once ("joint", C²M³); then all are averaged. Two minutes a seed on one core.
"""

import argparse
import math
import time

import jax
import numpy as np
from results import table
from summaries import MEASURED, Row, Summary, shorten_environment, store

from llfc_jax import data, landscape, merging, networks, symmetry
from llfc_jax.experiments.provenance import provenance
from llfc_jax.merging import merge_many
from llfc_jax.merging.rebasin import Placement
from llfc_jax.training import Recipe, train_seeds
from llfc_jax.types import Variables

COUNTS = (2, 4, 8)
WIDTHS = (128, 128, 128)
TRAIN_SIZE, TEST_SIZE = 12_000, 2_000
RECIPE = Recipe(epochs=12, batch_size=128, optimizer="adam", learning_rate=1e-3)
PLACES: dict[str, tuple[Placement, int]] = {
    "chain": ("chain", 1),
    "turns": ("mean", 20),
    "joint": ("joint", 1),
}
REPAIR = landscape.PointOptions(renormalise="repair")


def measure(seed: int, counts: tuple[int, ...]) -> list[Row]:
    """Returns a row for each number of networks and each way of placing them, of one seed."""
    dataset = data.load("fashion_mnist", train_size=TRAIN_SIZE, test_size=TEST_SIZE)
    module = networks.build("mlp", dataset.classes, widths=WIDTHS)
    seeds = range(100 * seed, 100 * seed + -(-max(counts) // 2))
    trained = train_seeds(module, dataset, RECIPE, ["independent"], tuple(seeds))
    modes = [mode for of in trained.values() for pair in of.values() for mode in (pair.a, pair.b)]
    x, _ = next(iter(data.Batches(dataset.test, dataset, 2)))
    spec = symmetry.permutation_spec(module, modes[0], x)
    rows = []
    for count in counts:
        test = data.Batches(dataset.test, dataset, 500)
        found = merging.diagnose(module, modes[:count], test)
        for name, loss, accuracy in (
            ("one network", found.model_loss, found.model_accuracy),
            ("mean of outputs", found.ensemble_loss, found.ensemble_accuracy),
        ):
            rows.append(_row(seed, count, name, np.mean(loss), 1 - np.mean(accuracy)))
        for name in ("none", *PLACES):
            start = time.process_time()
            placed = place(name, spec, modes[:count])
            seconds = time.process_time() - start if name in PLACES else math.nan
            row = _judge(module, placed, dataset)
            rows.append(_row(seed, count, name, *row, seconds=seconds))
            print(rows[-1], flush=True)
    return rows


def place(name: str, spec: symmetry.PermutationSpec, modes: list[Variables]) -> list[Variables]:
    """Returns the modes in a common order of units."""
    if name == "none":
        return modes
    how, rounds = PLACES[name]
    return list(merge_many(jax.random.key(0), spec, modes, place=how, rounds=rounds).modes)


def _judge(module, modes: list[Variables], dataset: data.Dataset) -> list[float]:
    """Returns loss and error of the mean, and with REPAIR."""
    numbers = []
    for options in (None, REPAIR):
        found = landscape.measure_mixtures(module, modes, dataset, options=options)
        numbers += [float(found.loss[-1]), float(found.error[-1])]
    return numbers


def _row(
    seed: int,
    count: int,
    name: str,
    loss,
    error,
    repaired_loss: float = math.nan,
    repaired_error: float = math.nan,
    seconds: float = math.nan,
) -> Row:
    return {
        "seed": seed, "networks": count, "placed by": name, "pair": "", "align": "", "k": math.nan,
        "loss": float(loss), "error": float(error), "repaired_loss": repaired_loss,
        "repaired_error": repaired_error, "seconds": seconds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--store", action="store_true", help="keep it in benchmarks/measured")
    given = parser.parse_args()
    rows = [row for seed in given.seeds for row in measure(seed, tuple(given.counts))]
    train = {"epochs": RECIPE.epochs, "optimizer": RECIPE.optimizer,
             "batch_size": RECIPE.batch_size, "learning_rate": RECIPE.learning_rate}  # fmt: skip
    config = {
        "network": {"name": "mlp", "widths": list(WIDTHS)},
        "data": {"name": "fashion_mnist", "train_size": TRAIN_SIZE, "test_size": TEST_SIZE},
        "train": train,
    }
    fields = ["networks", "placed by"]
    summary = Summary(config, fields, shorten_environment(provenance()), "runs", rows)
    print(table(summary))
    if given.store:
        store(summary, MEASURED / "merge_many.json")


if __name__ == "__main__":
    main()
