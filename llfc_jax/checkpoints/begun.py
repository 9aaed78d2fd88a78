"""Long work that was begun, kept in a file: killed and called again, it goes on where it was."""

import os
import time
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llfc_jax.errors import WorkdirError
from llfc_jax.io import aside
from llfc_jax.types import AnyArray

SECONDS = 15.0  # least time between two writes
_DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


class Begun:
    """What some work has reached, as named arrays in an `.npz` file.

    Args:
        path: the file; None keeps nothing.
        identity: a digest of all that the result's bits depend on.
    """

    def __init__(self, path: str | os.PathLike[str] | None, identity: str) -> None:
        self._path = None if path is None else Path(path).expanduser()
        self._identity = identity
        self._written = time.monotonic()

    def read(self) -> dict[str, np.ndarray] | None:
        """Returns what was kept last, or None where nothing was.

        Raises:
            WorkdirError: the file is damaged, of other work, or cannot be read.
        """
        if self._path is None or not self._path.exists():
            return None
        if self._path.is_dir():
            raise WorkdirError(f"{self._path} is a directory; name a file to keep the work in")
        try:
            # NumPy would leave a damaged file open.
            with self._path.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
                arrays = {name: kept[name] for name in kept.files}
        except _DAMAGED as error:
            raise WorkdirError(f"{self._path} is damaged; delete it to begin anew") from error
        if str(arrays.pop("identity", "")) != self._identity:
            raise WorkdirError(
                f"{self._path} is of other work (other modes, data, network or options); choose "
                "another file, or delete it"
            )
        return arrays

    def write(self, arrays: Mapping[str, AnyArray], *, last: bool = False) -> None:
        """Keeps arrays, if the last time is a while ago.

        Args:
            arrays: all that is needed to go on.
            last: the work has ended; they are kept in any case.

        Raises:
            WorkdirError: the file cannot be written.
        """
        if self._path is None or (time.monotonic() - self._written < SECONDS and not last):
            return
        named: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
        with aside(self._path) as place, place.open("wb") as stream:
            np.savez(stream, identity=np.array(self._identity), **named)
        self._written = time.monotonic()
