"""Checkpoints of a training: complete or not there, and restored to the bit.

A run's directory holds `run.json` (which network, recipe, data and seeds), one Orbax checkpoint
per saved step, `<step>/`, and beside it `<step>.json`, the SHA-256 of each of its files. That is
written last and renamed into place, so a checkpoint counts only once it is whole; and it is
checked before a checkpoint is opened, so that damage of any kind is found.

Saving costs up to a second, which a short training should not pay after every epoch. So between
two checkpoints at least `seconds` pass, and twenty times what saving took: at most a twentieth of
the time is spent on saving, and a process that is killed loses no more than that. Saving waits
until the files are written: they are then whole whatever comes next.

Arrays that lie on a mesh are written from where they are, by every process its part, into the one
directory that all share; they are read onto the host, so any number of devices can go on.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from llfc_jax.errors import WorkdirError
from llfc_jax.io import write_json
from llfc_jax.parallel import multihost
from llfc_jax.training.state import TrainState

KEEP = 2  # the newest, and the one before it to fall back on
SAVE_SHARE = 1 / 20  # of the time that is spent on saving, at most


class Checkpoints:
    """The checkpoints of one training in one directory; removes what a killed process left.

    Args:
        directory: made if need be.
        identity: JSON-like; distinguishes this training from others.
        seconds: least time between two checkpoints (`is_due`).

    Raises:
        WorkdirError: if the directory cannot be used or holds another run's checkpoints.
    """

    def __init__(self, directory: Path, identity: Mapping[str, Any], seconds: float = 0.0) -> None:
        self.directory = directory.resolve()
        self._seconds, self._saved, self._cost = seconds, time.monotonic(), 0.0
        try:
            if multihost.is_primary():
                self.directory.mkdir(parents=True, exist_ok=True)
                _claim(self.directory, json.loads(json.dumps(identity)))
                self._tidy()
            multihost.barrier()
        except OSError as error:
            raise WorkdirError(
                f"cannot write to {self.directory} ({error.strerror or error}); "
                "choose another workdir"
            ) from error

    @property
    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        names = [file.stem for file in self.directory.glob("*.json") if file.stem.isdigit()]
        return sorted(int(name) for name in names if (self.directory / name).is_dir())

    @property
    def latest(self) -> int | None:
        """Step of the newest checkpoint, None if there is none."""
        return max(self.steps, default=None)

    def is_due(self) -> bool:
        """Says whether enough time has passed since the last checkpoint; the same on all hosts."""
        wait = max(self._seconds, self._cost / SAVE_SHARE) if self._seconds else 0.0
        return multihost.maximum(int(time.monotonic() - self._saved >= wait)) > 0

    def save(self, step: int, states: TrainState) -> None:
        """Saves states as the checkpoint of `step`; the one before it is kept as well.

        Args:
            step: number of steps done.
            states: stacked replicas, on the host or on a mesh.

        Raises:
            WorkdirError: if it cannot be written, for a full disk say; earlier ones are intact.
        """
        if step in self.steps:
            return
        from orbax.checkpoint import v1 as ocp

        began = time.monotonic()
        folder = self.directory / str(step)
        try:
            ocp.save(str(folder), states, overwrite=True)
            if multihost.is_primary():
                write_json(folder.with_suffix(".json"), dict(_digests(folder)))
                for old in self.steps[:-KEEP]:
                    (self.directory / f"{old}.json").unlink()
                self._tidy()
            multihost.barrier()
        except jax.errors.JaxRuntimeError:
            raise  # another process has died (`multihost.watched`)
        except Exception as error:  # Orbax and TensorStore raise many types
            raise WorkdirError(
                f"cannot save checkpoint {folder} ({_first_line(error)}); make room or make it "
                "writable, then run again to resume"
            ) from error
        self._saved = time.monotonic()
        self._cost = self._saved - began

    def load(self, step: int, like: TrainState, count: int) -> TrainState:
        """Returns the states of a checkpoint, bit for bit, on the host.

        Args:
            step: which one.
            like: the shapes of one replica; restores optimiser states as their own types.
            count: number of replicas; the padding of a mesh comes after them and is left out.

        Raises:
            WorkdirError: if it is damaged.
        """
        from orbax.checkpoint import v1 as ocp

        folder = self.directory / str(step)
        try:
            wanted = json.loads(folder.with_suffix(".json").read_text(encoding="utf-8"))
            found = dict(_digests(folder))
            for name in wanted:
                if name not in found:
                    raise ValueError(f"{name} is missing")
                if found[name] != wanted[name]:
                    raise ValueError(f"{name} is not what was written")
            target = jax.tree.map(lambda leaf: np.zeros((count, *leaf.shape), leaf.dtype), like)
            return jax.tree.map(lambda leaf: leaf[:count], ocp.load(str(folder), target))
        except Exception as error:
            raise WorkdirError(
                f"checkpoint {folder} is damaged ({_first_line(error)}); delete it to resume from "
                f"the one before it, or delete {self.directory} to train anew"
            ) from error

    def _tidy(self) -> None:
        """Removes incomplete checkpoints: folders without a digest, digests without a folder."""
        whole = {str(step) for step in self.steps}
        for path in self.directory.iterdir():
            if path.is_dir() and path.name not in whole:
                shutil.rmtree(path)
            elif path.name.startswith(".") or (path.stem.isdigit() and path.stem not in whole):
                path.unlink()


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields (path, SHA-256) of every file below a folder, the path relative to it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            yield path.relative_to(folder).as_posix(), digest


def _claim(directory: Path, ours: dict[str, Any]) -> None:
    """Writes the identity beside the checkpoints, or compares it with the one there."""
    file = directory / "run.json"
    if not file.exists():
        if any(path.name.isdigit() for path in directory.iterdir()):
            raise WorkdirError(
                f"{directory} holds checkpoints but no run.json that says of which training; "
                "delete that directory or choose another workdir"
            )
        write_json(file, ours)
        return
    try:
        theirs = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WorkdirError(
            f"{file} is damaged ({_first_line(error)}); delete {directory} to train anew"
        ) from error
    there, here = _flatten(theirs), _flatten(ours)
    for name in here | there:
        a, b = (repr(side[name]) if name in side else "nothing" for side in (there, here))
        if a != b:
            raise WorkdirError(
                f"{directory} holds checkpoints of another training ({name}: {a} there, {b} here); "
                "choose another workdir or delete that directory"
            )


def _flatten(value: object, prefix: str = "") -> dict[str, Any]:
    """Flattens nested dicts to one, with dotted names."""
    if not isinstance(value, dict):
        return {prefix: value}
    parts = (_flatten(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in value.items())
    return {name: leaf for part in parts for name, leaf in part.items()}


def _first_line(error: BaseException) -> str:
    """Returns an error's first line, cut short."""
    return (str(error).strip() or type(error).__name__).partition("\n")[0][:200]
