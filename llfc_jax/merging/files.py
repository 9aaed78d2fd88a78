"""Checkpoints in files, merged leaf by leaf into files.

What is read is read block by block and dropped again, and each merged leaf is written at once, so
memory holds one leaf of the result and a few blocks, and never a whole file.
"""

import contextlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from llfc_jax.checkpoints.files import INDEX, load_named
from llfc_jax.checkpoints.mapped import release
from llfc_jax.checkpoints.safetensors import make_header
from llfc_jax.errors import DataError, MergeError
from llfc_jax.io import aside, write_text
from llfc_jax.merging.options import MergeOptions
from llfc_jax.merging.prepare import prepare_inputs
from llfc_jax.merging.registry import build_rule
from llfc_jax.merging.rule import LeafRule, Rule
from llfc_jax.types import AnyArray, ProgressFn

SINGLE = "model.safetensors"


def merge_files(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    rule: str | Rule = "mean",
    *,
    base: str | os.PathLike[str] | None = None,
    options: MergeOptions | None = None,
    progress: ProgressFn | None = None,
    **rule_options: object,
) -> Path:
    """Merges checkpoints in files, in memory for one leaf and a few blocks.

    Args:
        paths: the models, as `llfc_jax.load` takes them: files of any kind it reads without a
            copy, indices of models in several files, or directories that hold one of these.
        out: the directory to write, in safetensors: the first model's files by name, and its
            index, where it has these; one file `model.safetensors` otherwise.
        rule: see `merge`; one that goes leaf by leaf.
        base: the model that they were fine-tuned from.
        options: see `merge`; paths of leaves are their names in the files.
        progress: called as (leaves done, leaves in all, name).
        **rule_options: the fields of the rule's class, where `rule` is a name.

    Returns:
        The path of the written index, or of the one file.

    Raises:
        DataError: a file is missing, damaged, or of an unknown kind.
        MergeError: `out` holds one of the models, the rule needs more than leaves, or see `merge`.
    """
    built = build_rule(rule, **rule_options)
    if not isinstance(built, LeafRule) or built.needs_statistics:
        raise MergeError(
            f"merge rule {built.name!r} needs more than the leaves in files; load the models and "
            "use merge"
        )
    folder = Path(out).expanduser().absolute()
    named = [load_named(path) for path in paths]
    of_base = None if base is None else load_named(base)
    for file, _ in (*named, *((of_base,) if of_base else ())):
        if file.parent == folder:
            raise MergeError(f"{folder} holds one of the models; write the merge elsewhere")
    models = [leaves for _, leaves in named]
    inputs = prepare_inputs(models, of_base[1] if of_base else None, built, None, options)
    files = _lay_out(named[0][0], models[0])
    with contextlib.ExitStack() as stack:
        writers = [_Writer(folder / name, leaves, stack) for name, leaves in files.items()]
        places = {name: writer for writer in writers for name in writer.places}
        for done, (slot, merged) in enumerate(inputs.merged(built), 1):
            places[slot.name].write(slot.name, merged)
            if progress:
                progress(done, len(inputs.slots), slot.name)
    if len(files) == 1 and not named[0][0].name.endswith(INDEX):
        return folder / next(iter(files))
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in models[0].values())
    index = {name: file for file, leaves in files.items() for name in leaves}
    content = {"metadata": {"total_size": size}, "weight_map": {n: index[n] for n in models[0]}}
    write_text(folder / named[0][0].name, json.dumps(content, indent=2) + "\n")
    return folder / named[0][0].name


def _lay_out(first: Path, leaves: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns which leaves stand in which file of the result: name of the file -> leaves."""
    if first.name.endswith(INDEX):
        places = json.loads(first.read_text(encoding="utf-8"))["weight_map"]
        files: dict[str, dict[str, Any]] = {}
        for name, leaf in leaves.items():
            file = Path(places[name]).with_suffix(".safetensors").name
            files.setdefault(file, {})[name] = leaf
        return files
    return {first.name if first.suffix == ".safetensors" else SINGLE: dict(leaves)}


class _Writer:
    """A safetensors file of the result, written a leaf at a time; it appears when it is whole."""

    def __init__(self, path: Path, leaves: Mapping[str, Any], stack: contextlib.ExitStack) -> None:
        try:
            header, self.places = make_header(leaves)
        except ValueError as error:
            raise DataError(f"cannot write {path}: {error}") from error
        self.file: BinaryIO = stack.enter_context(stack.enter_context(aside(path)).open("wb"))
        self.file.write(header)

    def write(self, name: str, leaf: AnyArray) -> None:
        """Writes one leaf into its place."""
        self.file.seek(self.places[name])
        self.file.write(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
        if isinstance(leaf, np.ndarray):
            release(leaf)  # one that is kept lies in the first model's file
