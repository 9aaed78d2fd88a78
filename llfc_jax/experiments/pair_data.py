"""What each pair of a config is measured on: the data set, or its own tasks."""

from collections.abc import Mapping

from jax.sharding import Mesh

from llfc_jax import data
from llfc_jax.experiments.config import Config
from llfc_jax.measures.options import SPLITS
from llfc_jax.training import Variant, parse_pair_name
from llfc_jax.training.finetuning import join_variants
from llfc_jax.training.pair_kinds.finetune import FineTune
from llfc_jax.types import Batches


def read_variants(config: Config, pair: str) -> tuple[Variant, Variant] | None:
    """Returns what the modes of a fine-tuned pair were trained on; None for other pairs."""
    if pair in config.checkpoints:
        return None
    kind = parse_pair_name(pair, config.train.epochs)
    if not isinstance(kind, FineTune):
        return None
    tasks = config.finetune.tasks
    return tasks[kind.first].data, tasks[kind.second].data


def list_splits(config: Config, pair: str) -> tuple[str, ...]:
    """Returns the names of the splits on which a pair can be measured."""
    variants = read_variants(config, pair)
    return SPLITS if variants is not None and len(set(variants)) > 1 else SPLITS[:2]


def split_data(
    config: Config, dataset: data.Dataset, mesh: Mesh | None = None
) -> dict[str, dict[str, Batches]]:
    """Returns fine-tuned pair -> split -> batches.

    "train" and "test" hold the data of both tasks, "task_a" and "task_b" the test data of each,
    and "train_a" and "train_b" what each mode was trained on.
    """
    found: dict[str, dict[str, Batches]] = {}
    for pair in config.pairs:
        variants = read_variants(config, pair)
        if variants is None:
            continue
        sets = {"": join_variants(dataset, variants).dataset}
        if len(set(variants)) > 1:
            cut = (variant.cut(dataset) for variant in variants)
            sets |= dict(zip(("_a", "_b"), cut, strict=True))
        found[pair] = {
            name: data.Batches(split, dataset, config.eval.batch_size, mesh)
            for which, of in sets.items()
            for name, split in _name_splits(which, of).items()
        }
    return found


def _name_splits(which: str, dataset: data.Dataset) -> Mapping[str, data.Split]:
    test = f"task{which}" if which else "test"
    return {f"train{which}": dataset.train, test: dataset.test}
