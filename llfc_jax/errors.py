"""Errors that a user's input can cause, one type for each part of the package.

Every message is one line that says what is wrong and what to do. The command line prints it
without a traceback; library users catch the type, or `LlfcError` for all of them.
"""

import difflib
from collections.abc import Iterable


class LlfcError(Exception):
    """Base of every error that the caller can correct."""


class ConfigError(LlfcError, ValueError):
    """A config says something it may not."""


class DataError(LlfcError, ValueError):
    """Data is missing, damaged, or does not fit."""


class ModeError(LlfcError, ValueError):
    """Parameter trees that are no pair of modes of one network."""


class GraphError(LlfcError, ValueError):
    """A network that cannot be traced, or a site that it does not have."""


class MatchingError(LlfcError, ValueError):
    """A permutation or a permutation spec that does not fit."""


class MergeError(LlfcError, ValueError):
    """Models that cannot be merged, or a merge rule that does not fit them."""


class TrainingError(LlfcError, RuntimeError):
    """Training cannot start or has diverged."""


class WorkdirError(LlfcError, RuntimeError):
    """A working directory or checkpoint that cannot be used."""


class ReportError(LlfcError, RuntimeError):
    """A figure or a page that cannot be made."""


class HostsError(LlfcError, RuntimeError):
    """Another process of a job that runs as several is gone."""


def unknown(what: str, given: object, known: Iterable[str]) -> str:
    """Returns one line for a name that is not among `known`, with the nearest one.

    Examples:
        >>> unknown("network", "mpl", ["lenet5", "mlp"])
        "unknown network 'mpl'; did you mean 'mlp'? Known: lenet5, mlp"
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(given), names, n=1)
    hint = f"did you mean {near[0]!r}? Known" if near else "known"
    return f"unknown {what} {given!r}; {hint}: {', '.join(names)}"
