"""The working directory of one experiment: which process holds it, and what it contains already.

Every file in it is written aside and then renamed, so that a run that is killed leaves whole files
only, and the next run with the same config goes on from them.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from llfc_jax.errors import WorkdirError
from llfc_jax.io import LEFT, Row, nan_for_none, read_sealed, to_json, write_json, write_sealed
from llfc_jax.parallel import multihost

FORMAT = 2  # of the files in a directory; raised where an older one cannot be read
# Fields that may differ between runs into one directory: they only add to what is there.
ADDITIVE = ("measures", "align", "merge")


class Workdir:
    """A directory held by this process.

    Attributes:
        path: absolute path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def has(self, name: str) -> bool:
        """Returns whether rows are stored under this name; all processes get one answer."""
        return multihost.broadcast(self._file(name).exists)

    def store(self, name: str, metrics: Mapping[str, Any], rows: Sequence[Row]) -> None:
        """Stores the summary metrics and the rows of one measurement."""
        if multihost.is_primary():
            content = {"metrics": dict(metrics), "rows": list(rows), "nan": "null stands for NaN"}
            write_sealed(self._file(name), content)
        multihost.barrier()

    def load(self, name: str) -> tuple[Row, list[Row]]:
        """Returns the summary metrics and the rows stored under a name.

        Raises:
            WorkdirError: the file is damaged.
        """
        content = read_sealed(self._file(name))
        return nan_for_none(content["metrics"]), [nan_for_none(row) for row in content["rows"]]

    def permutation(self, name: str) -> Path:
        """Returns the file of a permutation."""
        return self.path / "permutations" / f"{name}.npz"

    def _file(self, name: str) -> Path:
        return self.path / "measured" / f"{name}.json"


class NullWorkdir:
    """Stands for a working directory where nothing is to be written."""

    def __init__(self) -> None:
        self._stored: dict[str, tuple[Row, list[Row]]] = {}

    def has(self, name: str) -> bool:
        """Returns whether this study has measured it already."""
        return name in self._stored

    def store(self, name: str, metrics: Mapping[str, Any], rows: Sequence[Row]) -> None:
        """Keeps rows in memory, as a directory would give them back."""
        content = json.loads(to_json({"metrics": dict(metrics), "rows": list(rows)}))
        rows = [nan_for_none(row) for row in content["rows"]]
        self._stored[name] = nan_for_none(content["metrics"]), list(rows)

    def load(self, name: str) -> tuple[Row, list[Row]]:
        """Returns the summary metrics and the rows stored under a name."""
        return self._stored[name]

    def permutation(self, name: str) -> None:
        """Returns no file."""


@contextlib.contextmanager
def claim(
    path: str | os.PathLike[str], config: Mapping[str, Any], defaults: Mapping[str, Any] = {}
) -> Iterator[Workdir]:
    """Holds a directory for the experiment that `config` describes.

    Of several processes the primary one holds it for all.

    Args:
        path: the directory; made if need be.
        config: what the experiment is.
        defaults: what fields stand for in a directory that was made before there were such fields.

    Raises:
        WorkdirError: it cannot be written, another process holds it, or it belongs to another
            experiment or was written by another version.
    """
    directory = Path(path).expanduser().resolve()
    if not multihost.is_primary():
        multihost.barrier()
        yield Workdir(directory)
        return
    lock = _acquire(directory)
    try:
        _identify(directory, as_stored({"format": FORMAT, **config}), as_stored(defaults))
        for leftover in directory.rglob(".*"):  # what a killed run left half-written
            if LEFT.fullmatch(leftover.name):
                leftover.unlink(missing_ok=True)
        multihost.barrier()
        yield Workdir(directory)
    finally:
        lock.release()


def _acquire(directory: Path) -> filelock.BaseFileLock:
    """Returns the held lock of a directory, which is made if need be."""
    lock = filelock.FileLock(directory / ".lock", timeout=0)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise WorkdirError(
            f"another run is writing to {directory}; wait for it or choose another workdir"
        ) from error
    except OSError as error:
        raise WorkdirError(
            f"cannot write to {directory}: {error.strerror}; choose another workdir"
        ) from error
    return lock


def as_stored(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config as its file gives it back."""
    return json.loads(to_json(dict(config)))


def filled(stored: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a stored config with the fields that were added after it, at their defaults."""
    whole = {**defaults, **stored}
    for key, default in defaults.items():
        if isinstance(default, Mapping) and isinstance(whole[key], Mapping):
            whole[key] = filled(whole[key], default)
    return whole


def _identify(directory: Path, config: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Compares the config with the one that the directory was made for, or writes it there.

    A run that stored nothing, since its input was refused, leaves the directory free.
    """
    file = directory / "config.json"
    used = {entry.name for entry in directory.iterdir()} - {file.name, ".lock"}
    if used and file.exists():
        try:
            made_for = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise WorkdirError(f"{file} is damaged; choose another workdir") from error
        if not isinstance(made_for, dict) or made_for.get("format") != FORMAT:
            raise WorkdirError(
                f"{directory} was written by another version of llfc_jax, whose files this one "
                "does not read; choose another workdir"
            )
        differ = [
            f"{key} ({old!r} there, {new!r} here)"
            for key, old, new in _differences(filled(made_for, defaults), config)
            if key.split(".")[0] not in ADDITIVE
        ]
        if differ:
            raise WorkdirError(
                f"{directory} holds another experiment: {'; '.join(differ[:3])}; "
                "choose another workdir"
            )
    write_json(file, config)


def _differences(old: object, new: object, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields (dotted key, old value, new value) wherever two nested mappings differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            where = f"{at}.{key}" if at else key
            yield from _differences(old.get(key), new.get(key), where)
    elif old != new:
        yield at, old, new
