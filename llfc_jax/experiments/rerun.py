"""Run again what a result records in `summary.json`, and compare every number.

    python -m llfc_jax.main --rerun out/quickstart

runs the config of that record again, into another directory, and compares every number. With the
device and versions that the record names, all bits agree on CPU.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llfc_jax import data
from llfc_jax.errors import ConfigError, DataError, LlfcError, WorkdirError
from llfc_jax.experiments.config import Config, check
from llfc_jax.experiments.provenance import environment
from llfc_jax.io import read_sealed

NAMES = ("summary.json", "sweep.json")
NUMBERS = ("summary", "means")  # the parts of a record that are numbers


@dataclasses.dataclass(frozen=True)
class Record:
    """How a result was made, and its numbers.

    Attributes:
        file: where it was read.
        config: of the experiment or the sweep.
        content: all of it.
    """

    file: Path
    config: Config
    content: Mapping[str, Any]

    def changes(self) -> list[str]:
        """Returns which versions and device differ here from those of the result."""
        there, here = self.content.get("environment", {}), environment()
        return [
            f"{name} {there[name]} there, {here.get(name, 'nothing')} here"
            for name in there
            if there[name] != here.get(name)
        ]

    @property
    def default_workdir(self) -> Path:
        """The directory of a rerun where none is named."""
        return self.file.parent.with_name(f"{self.file.parent.name}-again")

    def prepare(self, workdir: Path) -> None:
        """Checks that the data are those of the record, and that the directory is another.

        Raises:
            DataError: they are missing or others.
            WorkdirError: there would be nothing to compare.
        """
        if workdir.expanduser().resolve() == self.file.parent:
            raise WorkdirError(f"{workdir} holds the record itself; choose another workdir")
        there = self.content.get("data fingerprint")
        here = data.load(**dataclasses.asdict(self.config.data)).fingerprint
        if there not in (None, here):
            raise DataError(
                f"data set {self.config.data.name!r} is not that of {self.file}: its fingerprint "
                f"is {here} here, {there} there"
            )

    def differences(self, workdir: Path) -> list[str]:
        """Returns the names of the tables, or of the record itself, that differ after a rerun."""
        ours = read_sealed(workdir / self.file.name)
        names = [self.file.name] if _numbers(ours) != _numbers(self.content) else []
        folder = self.file.parent
        tables = {path.name for where in (folder, workdir) for path in where.glob("[!.]*.csv")}
        return names + sorted(t for t in tables if _bytes(folder / t) != _bytes(workdir / t))


def read(path: str | os.PathLike[str]) -> Record:
    """Returns the record in a file, or in the directory of a run or of a sweep.

    Raises:
        WorkdirError: there is none, or it is damaged.
        ConfigError: it is of `llfc_jax.study`, whose networks it does not hold.
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise WorkdirError(f"there is no file or directory {file}")
    if file.is_dir():
        found = [file / name for name in NAMES if (file / name).is_file()]
        if not found:
            raise WorkdirError(f"{file} holds no {' or '.join(NAMES)}; has the run ended?")
        file = found[0]
    content = read_sealed(file)
    if "study" in content and "config" not in content:
        raise ConfigError(f"{file} is of llfc_jax.study, called with networks; call it again")
    try:
        return Record(file.resolve(), check(content["config"]), content)
    except LlfcError as error:
        raise ConfigError(f"the config in {file} is none for this version: {error}") from error
    except KeyError as error:
        raise WorkdirError(f"{file} is no record of a run: there is no config in it") from error


def _numbers(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: content[name] for name in NUMBERS if name in content}


def _bytes(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None
