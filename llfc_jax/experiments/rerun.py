"""The record that a result carries, `summary.json`, and whether it comes out the same again.

    python -m llfc_jax.main --rerun out/quickstart

runs the config of that record anew, into a directory of its own, and compares every number. On the
machine, device and versions that the record names, all bits agree on CPU.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llfc_jax import data
from llfc_jax.errors import ConfigError, DataError, LlfcError, WorkdirError
from llfc_jax.experiments.config import Config, check
from llfc_jax.experiments.study_result import environment
from llfc_jax.io import read_sealed

NAMES = ("summary.json", "sweep.json")
SHOWN = ("summary", "means")  # what of it are numbers


@dataclasses.dataclass(frozen=True)
class Record:
    """How a result was made, and what it says.

    Attributes:
        file: where it was read.
        config: of the experiment or the sweep.
        content: all of it.
    """

    file: Path
    config: Config
    content: Mapping[str, Any]

    def changes(self) -> list[str]:
        """What is different here from where the result was made: versions, device."""
        there, here = self.content.get("environment", {}), environment()
        return [
            f"{name} {there[name]} there, {here.get(name, 'nothing')} here"
            for name in there
            if there[name] != here.get(name)
        ]

    @property
    def again(self) -> Path:
        """The directory that a rerun goes to where none is named."""
        return self.file.parent.with_name(f"{self.file.parent.name}-again")

    def prepare(self, workdir: Path) -> None:
        """See that the data are those of the record, and that the directory is not its own.

        Raises:
            DataError: they are missing or others.
            WorkdirError: there would be nothing to compare.
        """
        if workdir.expanduser().resolve() == self.file.parent:
            raise WorkdirError(f"{workdir} holds the record itself; choose another --workdir")
        there = self.content.get("data fingerprint")
        here = data.load(**dataclasses.asdict(self.config.data)).fingerprint
        if there not in (None, here):
            raise DataError(
                f"data set {self.config.data.name!r} is not that of {self.file}: its fingerprint "
                f"is {here} here, {there} there"
            )

    def differences(self, workdir: Path) -> list[str]:
        """Names of the tables, and of the record itself, that a rerun gave otherwise."""
        ours = read_sealed(workdir / self.file.name)
        names = [self.file.name] if _numbers(ours) != _numbers(self.content) else []
        folder = self.file.parent
        tables = {path.name for where in (folder, workdir) for path in where.glob("[!.]*.csv")}
        return names + sorted(t for t in tables if _bytes(folder / t) != _bytes(workdir / t))


def read(path: str | os.PathLike[str]) -> Record:
    """The record in a file, or in the directory of a run or of a sweep.

    Raises:
        WorkdirError: there is none, or it is damaged.
        ConfigError: it is of `llfc_jax.study`, whose networks it does not hold.
    """
    file = Path(path).expanduser()
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
    return {name: content[name] for name in SHOWN if name in content}


def _bytes(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None
