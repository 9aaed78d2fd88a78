"""Evaluation: every pair aligned in every way, and every measure taken of it.

Both the experiment, of the pairs that it trains, and `llfc_jax.study`, of those that users bring,
come here. Whatever the working directory holds already is read from there.
"""

import dataclasses
import functools
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import jax

from llfc_jax import matching, symmetry
from llfc_jax.experiments.merges import Merges, diagnose_pair, measured_key
from llfc_jax.experiments.settings import UNALIGNED, Settings
from llfc_jax.experiments.study_result import Alignment, Study, summary_columns
from llfc_jax.experiments.verdicts import in_short
from llfc_jax.experiments.workdir import NullWorkdir, Workdir
from llfc_jax.frameworks import Network
from llfc_jax.io import Row
from llfc_jax.measures import Measure, PairEvaluator
from llfc_jax.merging.prepare import with_heads
from llfc_jax.pair import ModePair
from llfc_jax.parallel import multihost
from llfc_jax.parallel.sharding import on_one_device
from llfc_jax.tasks import read_batch
from llfc_jax.types import Batches, ProgressFn

MATCHING_STREAM = 7  # folded into the seed's key for whatever randomness a matching method needs
BEGUN = ".begun"  # in names of files in which a method keeps what it has reached


class Reporter(Protocol):
    """Takes the progress of the work; `progress.Reporter` is one."""

    def task(self, title: str) -> ProgressFn: ...  # noqa: D102
    def say(self, line: str) -> None: ...  # noqa: D102


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is evaluated: one network on its data, by some settings, into one directory.

    Attributes:
        network: the network of all modes.
        data: split -> its batches; "test", and "train" if there is any.
        settings: how pairs are evaluated.
        workdir: holds rows and permutations.
        reporter: takes progress.
        data_of: pair -> split -> batches, of pairs that have data of their own.
        heads: parameters that each mode has for its own task, which are not merged.
    """

    network: Network
    data: Mapping[str, Batches]
    settings: Settings
    workdir: Workdir | NullWorkdir
    reporter: Reporter
    data_of: Mapping[str, Mapping[str, Batches]] = dataclasses.field(default_factory=dict)
    heads: tuple[str, ...] = ()

    @property
    def train_batches(self) -> Batches:
        """The train split, or the only one that there is."""
        return self.data.get("train", self.data["test"])

    def for_pair(self, name: str) -> "Evaluation":
        """Returns the evaluation on the data of a pair."""
        return dataclasses.replace(self, data=self.data_of.get(name, self.data))


def check_pair_on_data(evaluation: Evaluation, pair: ModePair) -> None:
    """Checks that modes, data, network and settings fit each other, before anything long starts.

    Raises:
        ModeError: the modes are no pair.
        GraphError: the network does not take the data, returns no logits, or lacks a site.
        DataError: labels that are none.
    """
    for batches in evaluation.data.values():
        evaluator(evaluation, pair, batches)


def evaluator(evaluation: Evaluation, pair: ModePair, batches: Batches) -> PairEvaluator:
    """Returns a pair under evaluation on a split."""
    return PairEvaluator(
        evaluation.network,
        pair.a,
        pair.b,
        batches,
        evaluation.settings.eval,
        train_batches=evaluation.train_batches,
        progress=evaluation.reporter.task(f"{pair.name}, renormalising"),
        base=pair.base,
    )


def evaluate_pairs(evaluation: Evaluation, pairs: Iterable[ModePair]) -> Study:
    """Aligns and measures every pair; what the working directory has is read from there."""
    settings = evaluation.settings
    rows: dict[str, list[Row]] = {name: [] for name in settings.measures}
    summary: list[Row] = []
    aligned: dict[tuple[str, str], Alignment] = {}
    pairs, merges = list(pairs), Merges()
    total, overall = len(pairs) * len(settings.align), evaluation.reporter.task("all pairs")
    for pair in pairs:
        here = evaluation.for_pair(pair.name)
        for method in settings.align:
            row: Row = {"pair": pair.name, "align": method, "diverged": pair.diverged or ""}
            if not pair.diverged:
                if method != UNALIGNED:
                    aligned[pair.name, method] = align_pair(here, pair, method)
                    b = aligned[pair.name, method].variables
                    measured = ModePair(pair.name, pair.a, b)  # its units are not the base's
                else:
                    measured = pair
                metrics, found = measure_pair(here, measured, method)
                row |= metrics
                if settings.merge:
                    of_pair = diagnose_pair(here, measured, method)
                    row, merges = row | of_pair.summary(), merges + of_pair
                for name in settings.measures:
                    rows[name] += found[name]
            summary.append(row | {"verdict": in_short(row)})
            overall(len(summary), total, describe_alignment(pair, method))
    columns, notes = summary_columns(settings.measures, summary), list(settings.left_out.values())
    notes += [
        f"{pair} aligned by {method}: {found.transport.remark}"
        for (pair, method), found in aligned.items()
        if found.transport is not None and found.transport.remark
    ]
    return Study(summary, columns, rows, aligned, notes=notes, merges=merges)


def describe_alignment(pair: ModePair, method: str) -> str:
    """Returns the name of a pair and how it is aligned, in words."""
    return pair.name if method == UNALIGNED else f"{pair.name} aligned by {method}"


def measure_pair(
    evaluation: Evaluation, pair: ModePair, method: str
) -> tuple[Row, dict[str, list[Row]]]:
    """Returns the summary metrics and the rows of every measure of one pair, aligned by `method`.

    All measures that are taken on a split share its forward passes.
    """
    workdir, measures = evaluation.workdir, evaluation.settings.build_measures()
    for split, batches in evaluation.data.items():
        missing = {
            _key(pair.name, method, measure, split): measure
            for measure in measures
            if split in choose_splits(evaluation.settings, measure, evaluation.data)
            and not workdir.has(_key(pair.name, method, measure, split))
        }
        if not missing:
            continue
        title = f"measuring {describe_alignment(pair, method)}, {split} split"
        there = with_task_heads(pair, split, evaluation.heads)
        results = evaluator(evaluation, there, batches).measure(
            list(missing.values()), batches, evaluation.reporter.task(title)
        )
        for key, measure in missing.items():
            result = results[measure.name]
            where = {"pair": pair.name, "align": method, "split": split}
            found = [where | row for row in result.records()]
            workdir.store(key, measure.summary_metrics(result), found)
    metrics: Row = {}
    rows: dict[str, list[Row]] = {measure.name: [] for measure in measures}
    for measure in measures:
        of_splits = []
        for split in choose_splits(evaluation.settings, measure, evaluation.data):
            of_split, found = workdir.load(_key(pair.name, method, measure, split))
            rows[measure.name] += found
            of_splits.append(of_split)
        metrics |= measure.join_splits(of_splits)
    return metrics, rows


def with_task_heads(pair: ModePair, split: str, heads: Sequence[str]) -> ModePair:
    """Returns a pair as it is measured on a split: on a task's data, all with that task's head.

    So a task's data meet the trunks of both networks, and of what lies between them.
    """
    owner = {"task_a": pair.a, "task_b": pair.b}.get(split)
    if owner is None or not heads:
        return pair
    a, b = (with_heads(mode, owner, heads) for mode in (pair.a, pair.b))
    base = None if pair.base is None else with_heads(pair.base, owner, heads)
    return dataclasses.replace(pair, a=a, b=b, base=base)


def choose_splits(settings: Settings, measure: Measure, available: Collection[str]) -> list[str]:
    """Returns the splits on which a measure is taken, of those that there are."""
    wanted = settings.eval.splits or measure.splits
    return [split for split in wanted if split in available] or ["test"]


def list_measured(pairs: Mapping[str, Collection[str]], settings: Settings) -> Iterator[str]:
    """Yields the names under which a directory keeps all measurements.

    Args:
        pairs: pair -> the splits that there are of its data.
        settings: how it is measured.
    """
    measures = settings.build_measures()
    for pair, method in itertools.product(pairs, settings.align):
        for measure in measures:
            for split in choose_splits(settings, measure, pairs[pair]):
                yield _key(pair, method, measure, split)
        if settings.merge:
            yield measured_key(pair, method, settings.merge)


def _key(pair: str, method: str, measure: Measure, split: str) -> str:
    return f"{pair}-{method}-{measure.name}-{split}"


def align_pair(evaluation: Evaluation, pair: ModePair, method: str) -> Alignment:
    """Returns how b is aligned with a by a method; a permutation on file is read from there."""
    network, file = evaluation.network, evaluation.workdir.permutation(f"{pair.name}-{method}")
    if file and multihost.broadcast(file.exists):
        return _read_alignment(file, pair, network)
    if file and not multihost.is_primary():  # one process searches, so that all get the same
        multihost.barrier()
        return _read_alignment(file, pair, network)
    settings = evaluation.settings
    batches = on_one_device(evaluation.train_batches)
    key = jax.random.fold_in(jax.random.key(settings.seed), MATCHING_STREAM)
    evaluation.reporter.say(f"aligning {pair.name} by {method} matching")
    build = settings.build_method(method)
    x = read_batch(next(iter(batches))).x
    beyond, learns = matching.goes_beyond(build), isinstance(build, matching.LearnedMatching)
    spec = None if beyond else symmetry.permutation_spec(network.apply, pair.a, x)
    match = matching.align(
        build,
        key,
        network,
        pair.a,
        pair.b,
        batches,
        spec=spec,
        task=settings.eval.task,
        progress=evaluation.reporter.task(f"{pair.name}, {method} matching"),
        checkpoint=file.with_suffix(f"{BEGUN}.npz") if file and learns else None,
    )
    if match.transport is not None:
        aligned = _transported(match.transport, pair, network)
        save = match.transport.save
    else:
        assert spec is not None
        aligned = Alignment(spec, match.permutation, pair.b, network)
        save = functools.partial(spec.save, permutation=match.permutation)
    if file:
        save(file)
        for kept in file.parent.glob(f"{file.stem}{BEGUN}*.npz"):
            kept.unlink()
        multihost.barrier()
    return aligned


def _read_alignment(file: Path, pair: ModePair, network: Network) -> Alignment:
    """Returns an alignment that was found before."""
    found = symmetry.load(file)
    if isinstance(found, symmetry.Transport):
        return _transported(found, pair, network)
    return Alignment(*found, pair.b, network)


def _transported(transport: symmetry.Transport, pair: ModePair, network: Network) -> Alignment:
    permutation = transport.element.permutation
    return Alignment(transport.spec.permutations, permutation, pair.b, network, transport)
