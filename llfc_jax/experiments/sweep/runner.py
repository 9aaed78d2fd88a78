"""Running a sweep, or a part of it: what has one shape is trained as one batch, then measured."""

import hashlib
import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from llfc_jax.errors import TrainingError
from llfc_jax.experiments import run as experiment
from llfc_jax.experiments.config import Config
from llfc_jax.experiments.sweep.gather import gather
from llfc_jax.experiments.sweep.grid import Run, done, expand, families, shard, together
from llfc_jax.experiments.workdir import Workdir, claim
from llfc_jax.io import Row
from llfc_jax.parallel import multihost
from llfc_jax.progress import Reporter


def run(
    config: Config, workdir: Path, reporter: Reporter, which: str = "0/1"
) -> tuple[list[Row], list[str]]:
    """Runs a sweep, or a part of it, and gather what is done.

    Args:
        config: with `sweep` filled in; every combination is checked before the first starts.
        workdir: directory of the sweep.
        reporter: shows progress.
        which: part "i/n".

    Returns:
        The means over seeds, and the names of runs that are not done yet; nothing in a process
        that does not lead.

    Raises:
        ConfigError: see `expand` and `shard`.
        WorkdirError: a run's directory holds something else, or another process has it.
    """
    runs = expand(config)
    batches = together(shard(families(runs), which), config.together)
    mine = sum(map(len, batches))
    reporter.say(
        f"a sweep of {len(runs)} runs, {mine} of them here, trained in {len(batches)} batches; "
        f"into {workdir}"
    )
    for run in itertools.chain(*batches):
        with _claim(workdir, run):
            pass  # a directory that holds something else is found before anything is trained
    for number, batch in enumerate(batches):
        reporter.say(f"[{number + 1}/{len(batches)}] {', '.join(run.name for run in batch)}")
        _run_batch(batch, workdir, reporter)
    return gather(config, workdir) if multihost.is_primary() else ([], [])


def _claim(workdir: Path, run: Run) -> AbstractContextManager[Workdir]:
    """Holds the directory of one run."""
    return claim(workdir / "runs" / run.name, run.config.identity(), Config().identity())


def _run_batch(batch: Sequence[Run], workdir: Path, reporter: Reporter) -> None:
    missing = [run for run in batch if not multihost.broadcast(lambda r=run: done(workdir, r))]
    if not missing:
        return
    if not multihost.broadcast(_trained(workdir, batch).exists):
        batch = missing  # a sweep that has grown trains what is new
    pairs = experiment.train([run.config for run in batch], _trained(workdir, batch), reporter)
    for run, trained in zip(batch, pairs, strict=True):
        if run not in missing:
            continue
        with _claim(workdir, run) as held:
            try:
                experiment.run(run.config, held, reporter, trained)
            except TrainingError as error:  # said in its summary; the other runs go on
                reporter.say(f"{run.name}: {error}")


def _trained(workdir: Path, batch: Sequence[Run]) -> Path:
    """Directory of a batch's checkpoints: what its runs have in common, and a digest of all."""
    words = [run.name.split(",") for run in batch]
    common = [word for word in words[0] if all(word in others for others in words)]
    digest = hashlib.sha256("\n".join(run.name for run in batch).encode()).hexdigest()[:8]
    return workdir / "trained" / ",".join([*common, digest])
