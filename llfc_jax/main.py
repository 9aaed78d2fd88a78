"""Trains, aligns and measures pairs of networks, and shows what was found.

    llfc-jax run configs/quickstart.py --config.seed=1    runs a config; any field can be set
    llfc-jax sweep configs/sweep_spawn_mlp.py             runs a sweep
    llfc-jax plan configs/quickstart.py                   says what a run would do and need
    llfc-jax list                                         lists configs, networks, measures, ...
    llfc-jax compare out/a out/b                          shows several runs on one page
    llfc-jax rerun out/quickstart                         runs a recorded run again, and compares
    llfc-jax report out/quickstart --figures pdf          makes page and figures again
    llfc-jax completion                                   prints a line for ~/.bashrc

`python -m llfc_jax.main` does the same, with flags in place of the commands: `--config FILE`,
`--plan --config FILE`, `--list`, `--compare DIR DIR`, `--rerun DIR`, `--report DIR`.

Exit status: 0 done; 1 a rerun gave other numbers; 2 a mistake in the input, and one line says
which; 3 another process of the job is gone; 130 stopped by Ctrl-C, and the same command goes on.
"""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console

from llfc_jax import arguments
from llfc_jax.errors import ConfigError, HostsError, LlfcError, unknown
from llfc_jax.version import __version__

if TYPE_CHECKING:
    from llfc_jax.experiments.config import Config
    from llfc_jax.experiments.rerun import Record
    from llfc_jax.progress import Reporter

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
WIDE = flags.DEFINE_bool("wide", False, "Print tables in one piece, however wide the terminal.")
LIST = flags.DEFINE_bool("list", False, "List configs, networks, data sets, alignments, measures.")
COMPLETION = flags.DEFINE_bool(
    "completion", False, "Print a line for ~/.bashrc that completes commands, flags and files."
)
VERSION = flags.DEFINE_bool("version", False, "Print the version.")
RERUN = flags.DEFINE_string(
    "rerun", None, "Run what a summary.json, or the directory with it, records; compare."
)
REPORT = flags.DEFINE_string(
    "report", None, "Make the page of a run's directory again from its stored results."
)
FIGURES = flags.DEFINE_list(
    "figures", [], "With --report: write its figures for a paper too, as pdf, svg or png."
)
COMPARE = flags.DEFINE_bool(
    "compare", False, "Show the runs in the directories that follow side by side on one page."
)
MERGE = flags.DEFINE_list(
    "merge", None, "Rules by which pairs are merged, and where each breaks: mean,task_arithmetic."
)
PLAN = flags.DEFINE_bool("plan", False, "Say what a run would do and need; do nothing.")
COMPILED = flags.DEFINE_string(
    "compiled", None, "Folder for compiled programs, in the user's cache by default; 'off': none."
)
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
TERMINAL_COLUMNS = (
    "pair",
    "align",
    "verdict",
    "error_a",
    "error_b",
    "loss_a",
    "loss_b",
    "error_barrier",
    "llfc_median",
    "llfc_ratio",
)
DIFFERENT, MISTAKE, GONE, INTERRUPTED = 1, 2, 3, 130


def main(argv: Sequence[str]) -> None:
    """Runs what the flags describe."""
    console = Console(stderr=True)
    logging.set_verbosity(logging.WARNING)  # Orbax logs every step of every checkpoint
    try:
        if len(argv) > 1 and not COMPARE.value:
            if not any((CONFIG.value, LIST.value, REPORT.value, RERUN.value, COMPLETION.value)):
                raise ConfigError(unknown("command", argv[1], arguments.SUBCOMMANDS))
            raise ConfigError(f"unexpected argument {argv[1]!r}; flags begin with --")
        _dispatch(console, argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # of `llfc-jax plan ... | head`, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except HostsError as error:
        _stop(str(error), GONE)
    except LlfcError as error:
        _stop(f"error: {error}", MISTAKE)
    except KeyboardInterrupt:
        _stop("stopped; run the same command again to go on", INTERRUPTED)


def _dispatch(console: Console, paths: Sequence[str]) -> None:
    """Does the one thing that the flags ask for. JAX is imported only where it is needed."""
    if VERSION.value:
        print(f"llfc_jax {__version__}")
        return
    if COMPLETION.value:
        known = flags.FLAGS.get_key_flags_for_module(sys.modules[__name__])
        print(arguments.completion([flag.name for flag in known]))
        return
    if LIST.value:
        _list()
        return
    if COMPARE.value:
        _compare(paths)
        return
    if REPORT.value:
        _rebuild(REPORT.value)
        return
    if RERUN.value and CONFIG.value is not None:
        raise ConfigError("--rerun takes its config from the record; leave out --config")
    given: Any = None if RERUN.value else _read_config()
    if not (QUIET.value or JSON.value or PLAN.value):
        console.print(f"llfc_jax: {RERUN.value or _config_name()}, starting", highlight=False)
    from llfc_jax.experiments import config as configs
    from llfc_jax.experiments import rerun
    from llfc_jax.parallel import compile_cache, multihost

    record = rerun.read(RERUN.value) if RERUN.value else None
    config = record.config if record else configs.check(given)
    if PLAN.value:
        _plan(config)
        return
    if not _is_single_process():
        multihost.join(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    if COMPILED.value != "off":
        compile_cache.enable(COMPILED.value)
    with multihost.watched():
        _run(config, record, console)


def _read_config() -> Any:
    """Returns the config file's config with the flags applied.

    Raises:
        ConfigError: there is none, or reading it fails.
    """
    if CONFIG.value is None:
        raise ConfigError("name a config: --config configs/quickstart.py; --help has all flags")
    file, _ = _config_file()
    if not file.is_file():
        raise ConfigError(f"there is no config file {file}")
    try:
        config = CONFIG.value.copy_and_resolve_references()
    except Exception as error:  # whatever a config file raises, it is its author's mistake
        cause = error.__cause__ or error
        raise ConfigError(f"the config file {file} cannot be read: {cause}") from error
    if MERGE.value is not None:
        config.merge = tuple(MERGE.value)
    return config


def _config_file() -> tuple[Path, str]:
    """Returns the config file, and what follows the colon: the argument of its `get_config`."""
    name = config_flags.get_config_filename(flags.FLAGS["config"])
    file, _, argument = name.partition(".py:")
    return (Path(f"{file}.py"), argument) if argument else (Path(name), "")


def _config_name() -> str:
    """Returns the config's name, which is also that of the run's default directory."""
    file, argument = _config_file()
    return f"{file.stem}-{argument}" if argument else file.stem


def _run(config: "Config", record: "Record | None", console: Console) -> None:
    """Runs a checked config, and compares the results with a record's if one is given."""
    from llfc_jax.io import to_json
    from llfc_jax.parallel import multihost
    from llfc_jax.progress import Reporter

    if SHARD.value != "0/1" and not config.sweep:
        raise ConfigError("--shard takes a part of a sweep, and this config has none")
    default = record.default_workdir if record else Path("out") / _config_name()
    workdir = Path(WORKDIR.value or default)
    if record:
        record.prepare(workdir)
    primary = multihost.is_primary()
    out = Console(quiet=JSON.value or not primary)
    with Reporter(console, quiet=QUIET.value or not primary) as reporter:
        run = _run_sweep if config.sweep else _run_experiment
        result = run(config, workdir, reporter, out)
    page = str(workdir.resolve() / "report.html")
    out.print(f"report: {page}", highlight=False, soft_wrap=True)
    if JSON.value and primary:
        print(to_json(result | {"report": page}))
    if record and primary:
        _compare_with_record(record, workdir)


def _run_sweep(
    config: "Config", workdir: Path, reporter: "Reporter", out: Console
) -> dict[str, Any]:
    """Runs a sweep, prints its means, and returns them."""
    from llfc_jax.experiments import sweep
    from llfc_jax.report import table

    means, missing = sweep.run(config, workdir, reporter, SHARD.value)
    if not out.quiet:
        title = "Means over the seeds ± 95 % intervals"
        table.show(
            means,
            sweep.columns(means),
            title=title,
            spread=sweep.spread(means),
            wide=WIDE.value,
            console=out,
        )
    if missing:
        reporter.say(f"{len(missing)} runs are not done yet; the first is {missing[0]}")
    return {"summary": means, "not done": missing}


def _run_experiment(
    config: "Config", workdir: Path, reporter: "Reporter", out: Console
) -> dict[str, Any]:
    """Runs one experiment, prints its summary and verdicts, and returns them."""
    from llfc_jax.experiments import run
    from llfc_jax.experiments.workdir import claim
    from llfc_jax.report import table

    with claim(workdir, config.identity(), type(config)().identity()) as held:
        study = run.run(config, held, reporter)
    if not out.quiet:
        columns = {n: study.columns[n] for n in TERMINAL_COLUMNS if n in study.columns}
        table.show(study.summary, columns, wide=WIDE.value, console=out)
    out.print(str(study), highlight=False, markup=False, soft_wrap=True)
    return study.to_dict()


def _compare_with_record(record: "Record", workdir: Path) -> None:
    """Says whether a rerun gave the record's numbers; exits with status 1 if not."""
    differ = record.differences(workdir)
    changes = "; ".join(record.changes()) or "the same versions and device"
    where = record.file.parent
    if differ:
        _stop(f"the rerun differs from {where} in {', '.join(differ)} ({changes})", DIFFERENT)
    print(f"every number equals that in {where}, to the bit ({changes})", file=sys.stderr)


def _compare(paths: Sequence[str]) -> None:
    from llfc_jax.experiments.compare import PAGE, compare

    page = (Path(WORKDIR.value or "out") / PAGE).resolve()
    _print({"summary": compare(paths, page), "report": str(page)}, f"report: {page}")


def _rebuild(directory: str) -> None:
    """Makes the page of a directory again, and its figures where they are asked for."""
    from llfc_jax.report import figures, stored, style

    page = stored.rebuild(directory).resolve()
    folder = page.parent / "figures"
    if FIGURES.value:
        for section, rows in stored.read(directory).sections:
            figures.save_all(section, rows, folder, FIGURES.value, style.PAPER)
    said = {"report": str(page)} | ({"figures": str(folder)} if FIGURES.value else {})
    _print(said, "\n".join(f"{name}: {path}" for name, path in said.items()))


def _list() -> None:
    from llfc_jax.experiments import listing

    found = listing.choices()
    _print(found, listing.render(found))


def _plan(config: "Config") -> None:
    from llfc_jax.experiments import dry_run, listing

    found = dry_run.plan(config)
    _print(found, listing.render(found))


def _print(content: object, text: str) -> None:
    """Prints content as JSON where --json asks for it, else its text."""
    from llfc_jax.io import to_json

    print(to_json(content) if JSON.value else text)


def _is_single_process() -> bool:
    return not (flags.FLAGS.is_parsed() and (DISTRIBUTED.value or COORDINATOR.value))


def _stop(line: str, code: int) -> NoReturn:
    """Prints one line and exits; of several processes, without waiting for the others."""
    print(" ".join(line.split()), file=sys.stderr)
    if not _is_single_process():
        from llfc_jax.parallel import multihost

        multihost.leave(code)
    sys.exit(code)


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the flags; a mistake in them or in the config file is one line and exit status 2."""
    argv, swept = arguments.split_sweep(arguments.expand_subcommand(list(argv)))
    sys.argv = argv  # where the config's flag looks for its fields
    try:
        rest = flags.FLAGS(argv)
        for field, values in swept.items():
            arguments.set_sweep(CONFIG.value, field, values)
        return rest
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
        _stop(
            f"error: {arguments.explain_flag_error(str(error).strip().splitlines()[-1])}", MISTAKE
        )
    except Exception as error:
        _stop(f"error: {arguments.explain_flag_error(str(error))}", MISTAKE)


def cli() -> None:
    """Runs the command line: the console script `llfc-jax`."""
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    cli()
