"""Networks that others are fine-tuned from: read by path, and kept when their training ends."""

import json
import re
import zipfile
import zlib
from pathlib import Path

import jax
import numpy as np

from llfc_jax import checkpoints
from llfc_jax.checkpoints.names import fit, flatten, nest
from llfc_jax.errors import DataError, WorkdirError, unknown
from llfc_jax.io import aside
from llfc_jax.pair import leaf_paths
from llfc_jax.parallel import multihost
from llfc_jax.training.finetuning import FineTuning, is_named
from llfc_jax.training.state import TrainState
from llfc_jax.types import Variables

_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def load_base(finetuning: FineTuning, fresh: Variables) -> Variables:
    """Loads the network that others are fine-tuned from.

    Args:
        finetuning: whose `base` is a path.
        fresh: variables of the network; the heads are these.

    Raises:
        DataError: there is no such checkpoint, or it cannot be read.
        ModeError: it is of another network.
    """
    path = Path(finetuning.base or "").expanduser()
    places = (path / "checkpoints", path)
    training = next((place for place in places if (place / "run.json").is_file()), None)
    if training is not None:
        loaded = load_trained(training, finetuning.run)
    elif finetuning.run is not None:
        raise DataError(f"{path} is no working directory of a training, so it has no runs; "
                        "leave out finetune.run")  # fmt: skip
    else:
        loaded = checkpoints.load(path)
    if finetuning.heads:
        loaded = _with_heads(loaded, fresh, finetuning.heads)
    return jax.tree.map(jax.numpy.asarray, fit(loaded, fresh, path))


def load_trained(folder: Path, run: str | None = None) -> Variables:
    """Loads the final variables of a run from the checkpoints of a training.

    Args:
        folder: holds `run.json` and the checkpoints.
        run: its name; the first of those that were trained to the end if None.

    Raises:
        DataError: the training has not ended, or has no such run.
    """
    try:
        about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        epochs, runs = about["train"]["epochs"], about["runs"]
        last = epochs * about["steps per epoch"]
        ends = {name: re.search(r"epochs \d+ to (\d+)", words) for name, words in runs.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'run.json'} is damaged or of another version") from error
    final = [name for name, found in ends.items() if found and int(found[1]) == epochs]
    run = final[0] if run is None else run
    if run not in final:
        raise DataError(unknown(f"run of {folder}", run, final))
    if not (folder / str(last)).is_dir():
        raise DataError(f"the training in {folder} has not ended; run it to its end first")
    tree, place = checkpoints.load(folder / str(last)), final.index(run)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[place], tree["variables"])


def _with_heads(loaded: Variables, fresh: Variables, heads: tuple[str, ...]) -> Variables:
    """Returns loaded weights with the heads of others, which may have other shapes."""
    found = flatten(loaded, "/") if isinstance(loaded, dict) else {}
    prefix = "" if any(name.startswith("params/") for name in found) else "params/"
    named = {prefix + name: leaf for name, leaf in found.items()}
    kept = {name: leaf for name, leaf in named.items() if not is_named(name, heads)}
    own = zip(leaf_paths(fresh), jax.tree.leaves(fresh), strict=True)
    return nest(kept | {name: leaf for name, leaf in own if is_named(name, heads)})


class KeptStates:
    """States of runs that end before the training does, kept beside its checkpoints.

    Args:
        directory: where they are written; None keeps them in memory.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._held: dict[str, TrainState] = {}

    def store(self, name: str, state: TrainState) -> None:
        """Keeps the state of a run, a tree of arrays on the host."""
        self._held[name] = state
        if self._directory is not None and multihost.is_primary():
            file = self._file(self._directory, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            with aside(file) as place, place.open("wb") as stream:
                np.savez(stream, *map(np.asarray, jax.tree.leaves(state)))
        multihost.barrier()

    def load(self, name: str, like: TrainState) -> TrainState:
        """Returns the state of a run, with the structure of another.

        Raises:
            WorkdirError: its file is damaged.
        """
        if name in self._held or self._directory is None:
            return self._held[name]
        file = self._file(self._directory, name)
        try:
            # NumPy would leave a damaged file open.
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                leaves = [stored[f"arr_{i}"] for i in range(len(jax.tree.leaves(like)))]
        except _DAMAGED as error:
            raise WorkdirError(
                f"{file} is missing or damaged; delete {file.parent.parent} to train anew"
            ) from error
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    @staticmethod
    def _file(directory: Path, name: str) -> Path:
        return directory / f"{name.replace('/', ',')}.npz"
