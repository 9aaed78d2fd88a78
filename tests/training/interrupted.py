"""Trains into a directory until it is killed: python interrupted.py WORKDIR EPOCH."""

import os
import signal
import sys

from tiny import RECIPE, Small, make_dataset

from llfc_jax.training import train_pairs

workdir, epoch = sys.argv[1:]


def progress(done: int, total: int, words: str) -> None:
    """Kill, with no chance to clean up, in the middle of an epoch."""
    if words.startswith(f"epoch {epoch} "):
        os.kill(os.getpid(), signal.SIGKILL)


train_pairs(
    Small(3),
    make_dataset(),
    RECIPE,
    ("spawn_k1",),
    workdir=workdir,
    checkpoint_seconds=0,
    progress=progress,
)
