"""Several processes that work as one job, usually one on each host (`jax.distributed`).

All run the same program on the same data. They meet wherever a program spans the devices of
several (`mesh`), so what decides which programs run next has to be the same in all: where it might
not be (a clock, a signal, a file), they `agree`. Only the one that `leads` writes results.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from llfc_jax.errors import ConfigError, HostsError


def join(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Becomes one of the processes of a job; before any device is used.

    What is None, JAX finds out by itself on SLURM, Open MPI, Kubernetes, Cloud TPU and the like.

    Args:
        coordinator: host:port of process 0, at which all meet.
        processes: how many there are.
        process: which of them this is, from 0.

    Raises:
        ConfigError: JAX cannot find out what is None, or the others do not come.
    """
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (ValueError, RuntimeError) as error:
        said = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"the processes do not come together ({said}); give each --coordinator=HOST:PORT, "
            "--processes=N and --process=I"
        ) from error


def several() -> bool:
    """Returns whether this is one of several processes."""
    return jax.process_count() > 1


def is_primary() -> bool:
    """Returns whether this process writes what the job finds; one alone does."""
    return jax.process_index() == 0


def maximum(value: int) -> int:
    """Returns the largest of the values that the processes pass; all wait for each other."""
    if not several():
        return value
    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def barrier() -> None:
    """Waits until every process of the job has come here."""
    maximum(0)


def broadcast(question: Callable[[], bool]) -> bool:
    """Returns the leading process's answer; the others wait for it and do not look themselves."""
    return bool(maximum(int(is_primary() and question())))


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Says in one line that another process is gone.

    Raises:
        HostsError: in place of what the runtime says when a peer does not answer.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not several():
            raise
        raise HostsError(
            f"process {jax.process_index()} stops, since another process of this job is gone; "
            "start all of them again to go on from the last checkpoint"
        ) from error


def leave(status: int) -> NoReturn:
    """Ends this process at once; JAX's own way out would wait for processes that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
