"""Checkpoints of a run, written whole or not at all, and restored to the bit.

A run's directory holds `run.json` (which network, recipe, data and seeds), and one Orbax
checkpoint per saved step. Orbax commits a checkpoint only when all of it is on disk. A digest of
every array is kept with it, so damage that leaves the files readable is found as well.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from llfc_jax.errors import WorkdirError
from llfc_jax.results import write_json
from llfc_jax.training.state import State


class Checkpoints:
    """The checkpoints of one run, in one directory. A context manager.

    Args:
        directory: made if need be.
        identity: JSON-like; tells this run from others.

    Raises:
        WorkdirError: if the directory cannot be used or holds another run's checkpoints.
    """

    def __init__(self, directory: Path, identity: Mapping[str, Any]) -> None:
        self.directory = directory.resolve()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            _claim(self.directory, identity)
        except OSError as error:
            raise WorkdirError(f"cannot write to {self.directory}: {error}") from error
        policies = ocp.training.preservation_policies
        try:
            self._orbax = ocp.training.Checkpointer(
                str(self.directory),
                preservation_policy=policies.LatestN(2),  # pyright: ignore[reportArgumentType]
                cleanup_tmp_directories=True,
            )
        except Exception as error:
            raise WorkdirError(
                f"the checkpoints in {self.directory} cannot be listed ({_line(error)}); "
                "delete that directory to train anew"
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._orbax.close()

    @property
    def latest(self) -> int | None:
        """Step of the newest checkpoint, None if there is none."""
        return self._orbax.latest.step if self._orbax.latest else None

    def save(self, step: int, states: State) -> None:
        """Save states on the host as the checkpoint of `step`; the one before it is kept as well.

        Raises:
            WorkdirError: if it cannot be written, for a full disk say.
        """
        if step == self.latest:
            return
        try:
            self._orbax.save(step, {"states": states, "digest": digest(states)}, force=True)
        except Exception as error:
            raise WorkdirError(
                f"cannot save checkpoint {step} in {self.directory} ({_line(error)}); "
                "make room or make it writable, then run again to resume"
            ) from error

    def load(self, step: int, like: State, count: int) -> State:
        """The states of a checkpoint, bit for bit, on the host.

        Args:
            step: which one.
            like: the shapes of one replica; restores optimiser states as their own types.
            count: number of replicas.

        Raises:
            WorkdirError: if it is damaged.
        """
        target = jax.tree.map(lambda leaf: np.zeros((count, *leaf.shape), leaf.dtype), like)
        try:
            tree = self._orbax.load(step, {"states": target, "digest": np.zeros(32, np.uint8)})
            if not np.array_equal(tree["digest"], digest(tree["states"])):
                raise ValueError("its contents differ from what was saved")
        except Exception as error:
            raise WorkdirError(
                f"checkpoint {self.directory / str(step)} is damaged ({_line(error)}); delete it "
                f"to resume from the one before it, or delete {self.directory} to train anew"
            ) from error
        return tree["states"]


def digest(tree: Any) -> np.ndarray:
    """SHA-256 over paths, types, shapes and bytes of all leaves, uint8 [32]."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape} ".encode())
        total.update(array.data)
    return np.frombuffer(total.digest(), np.uint8)


def _claim(directory: Path, identity: Mapping[str, Any]) -> None:
    """Write the run's identity beside its checkpoints, or compare it with the one there."""
    file = directory / "run.json"
    ours = json.loads(json.dumps(identity))
    if not file.exists():
        if any(child.is_dir() and child.name.isdigit() for child in directory.iterdir()):
            raise WorkdirError(
                f"{directory} holds checkpoints but no run.json that says whose; "
                "delete that directory or choose another workdir"
            )
        write_json(file, ours)
        return
    try:
        theirs = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WorkdirError(
            f"{file} is damaged ({_line(error)}); delete {directory} to train anew"
        ) from error
    there, here = _flat(theirs), _flat(ours)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise WorkdirError(
                f"{directory} holds checkpoints of another run ({name}: {there.get(name)!r} "
                f"there, {here.get(name)!r} here); choose another workdir or delete it"
            )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted names."""
    if not isinstance(value, dict):
        return {prefix: value}
    parts = (_flat(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in value.items())
    return {name: leaf for part in parts for name, leaf in part.items()}


def _line(error: BaseException) -> str:
    """An error's first line, cut short."""
    return (str(error).strip() or type(error).__name__).partition("\n")[0][:200]
