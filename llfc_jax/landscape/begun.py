"""Fits that were begun, kept in a file: one that was stopped goes on with the same bits."""

import hashlib
import os
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PyTree

from llfc_jax.errors import WorkdirError
from llfc_jax.io import aside

SECONDS = 30.0  # least time between two writes
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class BegunFit:
    """What a fit has reached, in an `.npz` file.

    Args:
        path: the file; None keeps nothing.
        identity: all that the fit's bits depend on, in words.
    """

    def __init__(self, path: str | os.PathLike[str] | None, identity: str) -> None:
        self._path = None if path is None else Path(path).expanduser()
        self._identity = hashlib.sha256(identity.encode()).hexdigest()
        self._written = time.monotonic()

    def load(self, state: PyTree) -> tuple[PyTree, Float[np.ndarray, "steps pairs"] | None]:
        """Returns the state and the losses so far; as they are at first where nothing was kept.

        Args:
            state: the first state, of the same structure.

        Raises:
            WorkdirError: the file is damaged, or of another fit.
        """
        if self._path is None or not self._path.exists():
            return state, None
        try:
            # NumPy would leave a damaged file open.
            with self._path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                identity, losses = str(kept["identity"]), kept["losses"]
                leaves = [kept[f"state_{i}"] for i in range(len(jax.tree.leaves(state)))]
        except _DAMAGED as error:
            raise WorkdirError(f"{self._path} is damaged; delete it to fit anew") from error
        if identity != self._identity:
            raise WorkdirError(
                f"{self._path} is of another fit (other modes, data, network or options); choose "
                "another file"
            )
        return jax.tree.unflatten(jax.tree.structure(state), leaves), losses

    def store(self, state: PyTree, losses: Float[np.ndarray, "steps pairs"], *, last: bool) -> None:
        """Keeps what was reached, if the last time is a while ago or the fit has ended.

        Raises:
            WorkdirError: the file cannot be written.
        """
        if self._path is None or (time.monotonic() - self._written < SECONDS and not last):
            return
        named: dict[str, Any] = {
            f"state_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))
        }
        with aside(self._path) as place, place.open("wb") as stream:
            np.savez(stream, identity=np.array(self._identity), losses=losses, **named)
        self._written = time.monotonic()
