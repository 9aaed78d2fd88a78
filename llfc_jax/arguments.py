"""What is typed on the command line, before the flags are parsed, and mistakes in it in words."""

import ast
import re
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

# `llfc-jax plan configs/quickstart.py` is `--plan --config configs/quickstart.py`.
SUBCOMMANDS = {
    "run": ["--config"],
    "sweep": ["--config"],
    "plan": ["--plan", "--config"],
    "list": ["--list"],
    "compare": ["--compare"],
    "rerun": ["--rerun"],
    "report": ["--report"],
    "completion": ["--completion"],
    "help": ["--help"],
}
# Flag -> what has to be named with it.
NEEDED = {
    "config": "a config file, as configs/quickstart.py",
    "report": "the directory of a run, as out/quickstart",
    "rerun": "the directory of a run, as out/quickstart",
}


def completion(flags: Sequence[str]) -> str:
    """Returns the line of bash that completes commands, flags and files of `llfc-jax`."""
    words = " ".join([*SUBCOMMANDS, *(f"--{flag}" for flag in flags)])
    return f"complete -o default -W '{words}' llfc-jax"


def explain_flag_error(line: str) -> str:
    """Returns what a mistake in a flag is, where the flag parser's own words do not say it."""
    if "malformed node" in line:
        return (
            "a flag gives one value to a group of fields; set a field of it, as in "
            "--config.network.name=mlp"
        )
    if missing := re.search(r"No such file or directory: '([^']+)'", line):
        return f"there is no config file {missing[1]}"
    if missing := re.match(r"Missing value for flag --(\w+)", line):
        return f"name {NEEDED.get(missing[1], f'a value for --{missing[1]}')}"
    if wrong := re.match(r"flag --([\w.]+)=(.*): invalid literal for int", line):
        return f"{wrong[1]} must be a whole number, not {wrong[2]}"
    if wrong := re.match(r"flag --([\w.]+)=(.*): could not convert string to float", line):
        return f"{wrong[1]} must be a number, not {wrong[2]}"
    if wrong := re.match(r"Unknown command line flag '(\w+)'(?:\. Did you mean: (\w+))?", line):
        return f"there is no flag --{wrong[1]}" + (
            f"; did you mean --{wrong[2]}?" if wrong[2] else ""
        )
    if "get_config() takes 0 positional arguments" in line:
        return "the config file takes no argument; leave out the colon and what follows it"
    if "Configuration is not available" in line:
        return f"the config file cannot be read: {line.rpartition(': ')[2]}"
    return re.sub(r"^llfc_jax\.errors\.\w+: ", "", line)


def expand_subcommand(argv: list[str]) -> list[str]:
    """Returns the arguments with a subcommand replaced by the flags that it stands for."""
    if len(argv) > 1 and argv[1] in SUBCOMMANDS:
        return [argv[0], *SUBCOMMANDS[argv[1]], *argv[2:]]
    return argv


def split_sweep(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Returns the arguments without those that sweep over a field, and these: field -> values.

    A config holds no empty place for every field that can be swept over, as the flags' own parser
    wants it.
    """
    rest, swept = [], {}
    for argument in argv:
        if found := re.fullmatch(r"--?config\.sweep\.([\w.]+)=(.*)", argument, re.DOTALL):
            swept[found[1]] = found[2]
        else:
            rest.append(argument)
    return rest, swept


def set_sweep(config: ConfigDict | None, field: str, values: str) -> None:
    """Sets the values that a field takes in a sweep; what they are is checked with the config.

    Raises:
        ValueError: there is no config, or the values are no Python literal.
    """
    if config is None:
        raise ValueError("name a config: --config configs/quickstart.py")
    try:
        listed = ast.literal_eval(values)
    except (ValueError, SyntaxError):
        raise ValueError(
            f'--config.sweep.{field} takes a tuple of values, as in "(0.1,0.2)", not {values!r}'
        ) from None
    with config.unlocked():
        *groups, name = field.split(".")
        place: Any = config.sweep
        for group in groups:
            if not isinstance(place.get(group), ConfigDict):
                place[group] = ConfigDict()
            place = place[group]
        place[name] = listed
