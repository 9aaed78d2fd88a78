"""A file in which a long search keeps how far it is, so that it can go on after it was killed."""

import hashlib
import time
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.io import aside
from llfc_jax.types import AnyArray, Variables

SECONDS = 10.0  # between two writes


class Journal:
    """How far one search is, as named arrays.

    Attributes:
        path: the file; without one nothing is kept.
        search: what is searched for; the file of another search is not read.
    """

    def __init__(self, path: Path | None, search: str) -> None:
        self.path = path
        self.search = search
        self._written = time.monotonic()

    def read(self) -> dict[str, np.ndarray] | None:
        """Returns what was written last, or None where there is nothing of this search."""
        if self.path is None or not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, zipfile.BadZipFile):
            return None  # damaged: the search starts again
        return arrays if str(arrays.pop("search", "")) == self.search else None

    def write(self, arrays: Mapping[str, AnyArray], *, now: bool = False) -> None:
        """Writes the file, unless it was written a moment ago.

        Args:
            arrays: all that is needed to go on.
            now: writes in any case.
        """
        if self.path is None or not (now or time.monotonic() - self._written > SECONDS):
            return
        with aside(self.path) as place, place.open("wb") as file:
            np.savez(file, search=np.array(self.search), **jax.tree.map(np.asarray, dict(arrays)))  # pyright: ignore
        self._written = time.monotonic()


def fingerprint(words: Iterable[str], trees: Iterable[Variables]) -> str:
    """Returns a digest of what a search depends on: words, and arrays."""
    found = hashlib.sha256()
    for word in words:
        found.update(word.encode())
        found.update(b"\0")
    for leaf in jax.tree.leaves(list(trees)):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
