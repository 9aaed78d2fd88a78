"""The command line: `python -m llfc_jax.main --config configs/quickstart.py --workdir out/q`.

Any field of the config can be set from here: `--config.seed=1`. `--list` says what there is to
choose from, `--plan` what a run would do. `--rerun out/q` runs what a result records once more,
into a directory of its own, and compares every number. `--compare out/a out/b` shows runs side by
side on one page.

Exit status: 0 done; 1 a rerun gave other numbers; 2 a mistake in the input, and one line says
which; 3 another process of the job is gone; 130 stopped by Ctrl-C, and the same command goes on.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console

from llfc_jax.errors import ConfigError, HostsError, LlfcError

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file; set its fields with --config.FIELD=VALUE."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory for checkpoints and results; out/NAME of the config by default."
)
SHARD = flags.DEFINE_string(
    "shard", "0/1", "Part i/n of a sweep's runs, i from 0; '0/0' only gathers what is done."
)
QUIET = flags.DEFINE_bool("quiet", False, "Print the summary only.")
JSON = flags.DEFINE_bool("json", False, "Print the summary as JSON, and nothing else, to stdout.")
LIST = flags.DEFINE_bool("list", False, "List configs, networks, data sets, alignments, measures.")
RERUN = flags.DEFINE_string(
    "rerun", None, "Run what a summary.json, or the directory with it, records; compare."
)
COMPARE = flags.DEFINE_bool(
    "compare", False, "Show the runs in the directories that follow side by side on one page."
)
PLAN = flags.DEFINE_bool("plan", False, "Say what a run would do and need; do nothing.")
DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "One of several processes, which JAX finds by itself (SLURM, TPU).",
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "Or HOST:PORT of process 0; with --processes and --process."
)
PROCESSES = flags.DEFINE_integer("processes", None, "How many processes the job has.")
PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.")

# The summary's columns that fit a terminal; the page and summary.json have them all.
SHOWN = (
    "pair",
    "align",
    "error_a",
    "error_b",
    "error_barrier",
    "llfc_median",
    "llfc_ratio",
    "verdict",
)
DIFFERENT, MISTAKE, GONE, INTERRUPTED = 1, 2, 3, 130


def main(argv: Sequence[str]) -> None:
    """Run the experiment that the flags describe."""
    console = Console(stderr=True)
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every step of every checkpoint
    try:
        if len(argv) > 1 and not COMPARE.value:
            raise ConfigError(f"unexpected argument {argv[1]!r}; flags begin with --")
        _run(console, argv[1:])
    except HostsError as error:
        _stop(str(error), GONE)
    except LlfcError as error:
        _stop(f"error: {error}", MISTAKE)
    except KeyboardInterrupt:
        _stop("stopped; run the same command again to go on", INTERRUPTED)


def _given() -> Any:
    """The config file's config with the flags applied.

    Raises:
        ConfigError: there is none, or reading it fails.
    """
    if CONFIG.value is None:
        raise ConfigError("name a config: --config configs/quickstart.py")
    file, _ = _file()
    if not file.is_file():
        raise ConfigError(f"there is no config file {file}")
    try:
        return CONFIG.value.copy_and_resolve_references()
    except Exception as error:  # whatever a config file raises, it is its author's mistake
        cause = error.__cause__ or error
        raise ConfigError(f"the config file {file} cannot be read: {cause}") from error


def _file() -> tuple[Path, str]:
    """The config file, and what stands behind the colon: the argument of its `get_config`."""
    name = config_flags.get_config_filename(flags.FLAGS["config"])
    file, _, argument = name.partition(".py:")
    return (Path(f"{file}.py"), argument) if argument else (Path(name), "")


def _name() -> str:
    """Of the config, for its directory."""
    file, argument = _file()
    return f"{file.stem}-{argument}" if argument else file.stem


def _run(console: Console, paths: Sequence[str]) -> None:
    if LIST.value:
        _list()
        return
    if COMPARE.value:
        _compare(paths)
        return
    if RERUN.value and CONFIG.value is not None:
        raise ConfigError("--rerun takes its config from the record; leave out --config")
    given: Any = None if RERUN.value else _given()
    # What follows imports JAX: flags are looked at first, so that their mistakes show at once.
    from llfc_jax.experiments import config as configs
    from llfc_jax.experiments import rerun as record
    from llfc_jax.parallel import multihost

    before = record.read(RERUN.value) if RERUN.value else None
    config = before.config if before else configs.check(given)
    if PLAN.value:
        _plan(config)
        return
    if not _alone():
        multihost.join(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    with multihost.watched():
        _work(config, before, console)


def _work(config: Any, before: Any, console: Console) -> None:
    """Run a checked config, or the one of the record `before`."""
    from llfc_jax.experiments import run as experiment
    from llfc_jax.experiments import sweep
    from llfc_jax.experiments.workdir import claim
    from llfc_jax.io import to_json
    from llfc_jax.parallel import multihost
    from llfc_jax.progress import Reporter
    from llfc_jax.report import table

    workdir = Path(WORKDIR.value or (before.again if before else Path("out") / _name()))
    if before:
        before.prepare(workdir)
    out = Console(quiet=JSON.value or not multihost.is_primary())
    with Reporter(console, quiet=QUIET.value or not multihost.is_primary()) as reporter:
        if config.sweep:
            means, missing = sweep.run(config, workdir, reporter, SHARD.value)
            found: Any = {"summary": means, "not done": missing}
            if not JSON.value and multihost.is_primary():
                table.show(means, sweep.columns(means), console=out)
            if missing:
                reporter.say(f"not done yet: {len(missing)} runs, {missing[0]} the first")
        else:
            with claim(workdir, config.identity()) as held:
                outcome = experiment.run(config, held, reporter)
            found = outcome.to_dict()
            if not JSON.value:
                shown = {name: outcome.columns[name] for name in SHOWN if name in outcome.columns}
                table.show(outcome.summary, shown, console=out)
            out.print(str(outcome), highlight=False, markup=False, soft_wrap=True)
    out.print(f"report: {workdir.resolve() / 'report.html'}", highlight=False, soft_wrap=True)
    if JSON.value and multihost.is_primary():
        print(to_json(found | {"report": str(workdir.resolve() / "report.html")}))
    if before and multihost.is_primary():
        _differ(before, workdir)


def _differ(before: Any, workdir: Path) -> None:
    differ = before.differences(workdir)
    changes = "; ".join(before.changes()) or "the same versions and device"
    if differ:
        _stop(f"not as in {before.file.parent}: {', '.join(differ)} ({changes})", DIFFERENT)
    print(f"every number as in {before.file.parent}, to the bit ({changes})", file=sys.stderr)


def _compare(paths: Sequence[str]) -> None:
    from llfc_jax.experiments import compare as comparing
    from llfc_jax.io import to_json

    page = (Path(WORKDIR.value or "out") / comparing.PAGE).resolve()
    rows = comparing.compare(paths, page)
    print(to_json({"summary": rows, "report": str(page)}) if JSON.value else f"report: {page}")


def _list() -> None:
    from llfc_jax.experiments import dry_run as outline
    from llfc_jax.io import to_json

    found = outline.choices()
    print(to_json(found) if JSON.value else outline.lines(found))


def _plan(config: Any) -> None:
    from llfc_jax.experiments import dry_run as outline
    from llfc_jax.io import to_json

    found = outline.plan(config)
    print(to_json(found) if JSON.value else outline.lines(found))


def _alone() -> bool:
    """Whether this process is the whole job."""
    return not (flags.FLAGS.is_parsed() and (DISTRIBUTED.value or COORDINATOR.value))


def _stop(line: str, code: int) -> NoReturn:
    print(" ".join(line.split()), file=sys.stderr)
    if not _alone():
        from llfc_jax.parallel import multihost

        multihost.leave(code)
    sys.exit(code)


def parse(argv: Sequence[str]) -> list[str]:
    """Parse the flags; a mistake in them or in the config file is one line and exit status 2."""
    try:
        return flags.FLAGS(list(argv))
    except SystemExit:
        # absl ends --help, which it shows while parsing, with status 1.
        sys.exit(0 if any(flag.startswith(("--help", "-help")) for flag in argv) else MISTAKE)
    except (AttributeError, KeyError) as error:  # ml_collections: a field that the config lacks
        said = str(error.args[0] if error.args else error).replace("\\", "")
        wrong = re.search(r"""['"](\w+)['"]""", said)
        near = re.search(r'Did you mean "(\w+)"', said)
        hint = f"; did you mean {near[1]!r}?" if near else ""
        _stop(f"error: the config has no field {(wrong[1] if wrong else said)!r}{hint}", MISTAKE)
    except (flags.Error, TypeError, ValueError) as error:
        # What goes wrong in a config file comes with its traceback: the last line says what.
        _stop(f"error: {str(error).strip().splitlines()[-1]}", MISTAKE)
    except Exception as error:
        _stop(f"error: the config file cannot be read: {error}", MISTAKE)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
