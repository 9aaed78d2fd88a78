"""The working directory of one experiment: who owns it, what it already holds.

Everything in it is written aside and then renamed, so that a run that is killed leaves whole files
only, and the next run with the same config goes on from them.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llfc_jax.errors import WorkdirError
from llfc_jax.io import LEFT, Row, nan_for_none, read_sealed, to_json, write_json, write_sealed
from llfc_jax.parallel import multihost

# Fields that may differ between runs into one directory: they only add to what is there.
ADDITIVE = ("measures", "align")


class Workdir:
    """A directory held by this process.

    Attributes:
        path: absolute path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def measured(self, name: str, make: Callable[[], list[Row]]) -> list[Row]:
        """Rows that were measured before under this name, or those that `make` measures now."""
        file = self.path / "measured" / f"{name}.json"
        if not multihost.broadcast(file.exists):
            rows = make()
            if multihost.is_primary():
                write_sealed(file, {"rows": rows, "nan": "null stands for NaN"})
            multihost.barrier()
        return [nan_for_none(row) for row in read_sealed(file)["rows"]]

    def permutation(self, name: str) -> Path:
        """File of the permutation of this name."""
        return self.path / "permutations" / f"{name}.npz"


class Nowhere:
    """Stands for a working directory where nothing is to be kept."""

    def measured(self, name: str, make: Callable[[], list[Row]]) -> list[Row]:
        """The rows that `make` measures, as a directory would give them back."""
        return [nan_for_none(row) for row in json.loads(to_json(make()))]

    def permutation(self, name: str) -> None:
        """No file."""


@contextlib.contextmanager
def claim(path: str | os.PathLike[str], config: Mapping[str, Any]) -> Iterator[Workdir]:
    """Hold a directory for the experiment that `config` describes; the leading process does.

    Raises:
        WorkdirError: it cannot be written, another process holds it, or it belongs to another
            experiment.
    """
    directory = Path(path).expanduser().resolve()
    if not multihost.is_primary():
        multihost.barrier()
        yield Workdir(directory)
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise WorkdirError(
            f"cannot write to {directory}: {error.strerror}; choose another --workdir"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise WorkdirError(
                f"another run is writing to {directory}; wait for it or choose another --workdir"
            ) from error
        _identify(directory, json.loads(json.dumps(config)))
        for path in directory.rglob(".*"):  # what a killed run left half-written
            if LEFT.fullmatch(path.name):
                path.unlink(missing_ok=True)
        multihost.barrier()
        yield Workdir(directory)
    finally:
        os.close(lock)


def _identify(directory: Path, config: dict[str, Any]) -> None:
    """Compare the config with the one that the directory was made for, or note it."""
    file = directory / "config.json"
    if file.exists():
        try:
            made_for = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise WorkdirError(f"{file} is damaged; choose another --workdir") from error
        differ = [
            f"{key} ({old!r} there, {new!r} here)"
            for key, old, new in _differences(made_for, config)
            if key.split(".")[0] not in ADDITIVE
        ]
        if differ:
            raise WorkdirError(
                f"{directory} holds another experiment: {'; '.join(differ[:3])}; "
                "choose another --workdir"
            )
    write_json(file, config)


def _differences(old: Any, new: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            where = f"{at}.{key}" if at else key
            yield from _differences(old.get(key), new.get(key), where)
    elif old != new:
        yield at, old, new
