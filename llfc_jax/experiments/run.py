"""An experiment: data, trained pairs, and their evaluation.

Whatever was finished before (checkpoints, measured rows) is read from the working directory, so a
run that was stopped goes on, and one that was finished is shown again in seconds.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from flax import linen as nn

from llfc_jax import checkpoints, data, networks, training
from llfc_jax.errors import TrainingError
from llfc_jax.experiments import trackers
from llfc_jax.experiments.config import Config
from llfc_jax.experiments.evaluate import Evaluation, evaluate_pairs
from llfc_jax.experiments.finished import read_finished
from llfc_jax.experiments.pair_data import split_data
from llfc_jax.experiments.provenance import provenance
from llfc_jax.experiments.study_result import QUESTION, Study
from llfc_jax.experiments.workdir import Workdir
from llfc_jax.frameworks import Network
from llfc_jax.graph import trace
from llfc_jax.measures.renormalise import check as check_renormalisation
from llfc_jax.pair import ModePair, check_pair
from llfc_jax.parallel import multihost, sharding
from llfc_jax.progress import Reporter
from llfc_jax.report import stored
from llfc_jax.report.page import flatten

TrainedPairs = Mapping[str, training.TrainedPair]


def run(
    config: Config, workdir: Workdir, reporter: Reporter, pairs: TrainedPairs | None = None
) -> Study:
    """Runs an experiment and write its results and report into the working directory.

    Args:
        config: the experiment.
        workdir: holds what was finished before, and takes the results.
        reporter: shows progress.
        pairs: pairs that were trained already (`train`); they are trained here if None.

    Raises:
        LlfcError: any of its kinds, each with one line; before long work starts where the
            config, the data or the network is at fault.
    """
    if pairs is None and (finished := read_finished(config, workdir)):
        _track(config, finished, workdir, reporter)
        return finished
    dataset = data.load(**dataclasses.asdict(config.data))
    module = build_network(config, dataset)
    if pairs is None:
        reporter.say(describe_work(config, workdir.path))
        (pairs,) = train([config], workdir.path, reporter, dataset)
    mesh = sharding.make(**dataclasses.asdict(config.mesh))
    batches = {
        name: data.Batches(split, dataset, config.eval.batch_size, mesh)
        for name, split in (("train", dataset.train), ("test", dataset.test))
    }
    network, of_pairs = Network.of(module), split_data(config, dataset, mesh)
    evaluation = Evaluation(
        network, batches, config.settings, workdir, reporter, of_pairs, config.finetune.heads
    )
    modes = [ModePair(p.name, p.a, p.b, p.diverged, p.base) for p in pairs.values()]
    modes += read_pairs(config, module, dataset)
    study = dataclasses.replace(
        evaluate_pairs(evaluation, modes),
        title=f"{config.network['name']} on {config.data.name}",
        lead=describe_pairs(config),
        details={
            "config": config.to_dict(),
            "data fingerprint": dataset.fingerprint,
            **provenance(),
        },
        history=[
            {"pair": pair.name} | row for pair in pairs.values() for row in pair.history.records()
        ],
    )
    if multihost.is_primary():
        for pair in pairs.values():
            pair.history.save(workdir.path / "history" / f"{pair.name}.csv")
        reporter.say("writing tables, figures and page")
        study.write(workdir.path)
        _track(config, study, workdir, reporter)
    if pairs and all(pair.diverged for pair in pairs.values()):
        raise TrainingError(
            "every pair diverged: " + "; ".join(str(p.diverged) for p in pairs.values())
        )
    return study


def train(
    configs: Sequence[Config],
    path: Path,
    reporter: Reporter,
    dataset: data.Dataset | None = None,
) -> list[dict[str, training.TrainedPair]]:
    """Trains the pairs of configs that differ in seed, pairs and rates alone, side by side.

    Args:
        configs: the first one's data, network and `checkpoint_every` are those of all.
        path: checkpoints go below it.
        reporter: shows progress.
        dataset: the data set, where it was loaded already.

    Returns:
        Pair name -> pair, of each config.
    """
    config = configs[0]
    if not any(each.pairs for each in configs):
        return [{} for _ in configs]
    dataset = dataset or data.load(**dataclasses.asdict(config.data))
    return training.train_trials(
        build_network(config, dataset),
        dataset,
        [training.Trial(each.train, each.pairs, each.seed, each.finetune) for each in configs],
        task=config.eval.task,
        mesh=sharding.make(**dataclasses.asdict(config.mesh)),
        workdir=path,
        checkpoint_every=config.checkpoint_every,
        progress=reporter.task("training"),
    )


def read_pairs(config: Config, module: nn.Module, dataset: data.Dataset) -> list[ModePair]:
    """Returns the pairs that are read from checkpoints.

    Raises:
        DataError, ModeError: a checkpoint cannot be read, or is of another network.
    """
    if not config.checkpoints:
        return []
    key, x = jax.random.key(0), dataset.inputs(1)
    like = jax.eval_shape(lambda key: networks.init(module, key, x), key)
    found = []
    for name, paths in config.checkpoints.items():
        trees = {mode: jax.device_put(checkpoints.load(path, like)) for mode, path in paths.items()}
        check_pair(trees["a"], trees["b"])
        found.append(ModePair(name, trees["a"], trees["b"], base=trees.get("base")))
    return found


def build_network(config: Config, dataset: data.Dataset) -> nn.Module:
    """Returns the network, after a check that it has what the measures of the config read."""
    fields = {k: v for k, v in config.network.items() if k != "name"}
    module = networks.build(config.network["name"], dataset.classes, **fields)
    x = dataset.inputs(2)
    variables = jax.eval_shape(lambda key: networks.init(module, key, x), jax.random.key(0))
    graph = trace(module.apply, variables, x)
    graph.select(config.eval.sites)
    check_renormalisation(graph, config.eval.renormalise)
    for measure in config.settings.build_measures():
        measure.plan(graph, config.eval)  # names what the network lacks for it
    return module


def _track(config: Config, study: Study, workdir: Workdir, reporter: Reporter) -> None:
    """Logs a finished run, which is called as its directory is, with the config's trackers."""
    if config.trackers and multihost.is_primary():
        path = workdir.path
        fields = {row["name"]: row["value"] for row in flatten(config.to_dict())}
        run = trackers.TrackedRun(
            path.name, path, fields, study.history, study.summary, path / stored.PAGE
        )
        trackers.log(config.trackers, run, reporter.say)


def describe_work(config: Config, path: Path) -> str:
    """Returns what a run is about to do, and where, in a line."""
    return (
        f"{config.network['name']} on {config.data.name}: {len(config.list_runs())} networks "
        f"(trunks included), trained for {config.train.epochs} epochs; pairs "
        f"{', '.join(config.pair_names)}; alignments "
        f"{', '.join(config.align)}; {len(config.measures)} measures; on {jax.device_count()} "
        f"{jax.devices()[0].device_kind}; into {path}"
    )


def describe_pairs(config: Config) -> str:
    """Returns what the experiment was, in two sentences."""
    made = []
    for pair in config.pairs:
        kind = training.parse_pair_name(pair, config.train.epochs)
        made.append(f"`{pair}`: {kind.describe(config.train.epochs)}")
    made += [f"`{pair}`: read from checkpoints" for pair in config.checkpoints]
    return f"{QUESTION} Pairs measured here: {'; '.join(made)}."
