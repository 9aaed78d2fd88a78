"""The registry of data sets: a name, and a function that reads the data set.

To add one, write a file like `digits.py` with `@dataset(name)` and import it in `loading.py`. Any
other name is one of TensorFlow Datasets (`llfc_jax.data.tfds`).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from llfc_jax.data.dataset import Split
from llfc_jax.types import ProgressFn


@dataclass(frozen=True)
class DatasetRequest:
    """What is to be read.

    Attributes:
        name: of the data set.
        path: the user's file, for data sets that have one.
        data_dir: where TFDS keeps its data sets; its own default if None.
        train_size: number of train samples that will be kept, from the first; None keeps all. A
            reader may return more.
        test_size: the same of the test samples.
        length: tokens in a sample, of text; the reader's own default if None.
        size: images will be resized to size x size; a reader may return them as they are.
        progress: called as (done, in all, words).
    """

    name: str
    path: str | os.PathLike[str] | None = None
    data_dir: str | os.PathLike[str] | None = None
    train_size: int | None = None
    test_size: int | None = None
    length: int | None = None
    size: int | None = None
    progress: ProgressFn | None = None


@dataclass(frozen=True)
class RawDataset:
    """A data set as it was read, before samples are left out and images are changed.

    Attributes:
        train: the train split.
        test: the test split.
        classes: number of classes, or of outputs; None where the data do not say.
        mean: pixel mean per channel, where the field has a published constant; else None.
        std: pixel deviation per channel, likewise.
    """

    train: Split
    test: Split
    classes: int | None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


ReadFn: TypeAlias = Callable[[DatasetRequest], RawDataset]


@dataclass(frozen=True)
class Reader:
    """A registered data set.

    Attributes:
        read: `(request) -> data set`; the first line of its docstring says what it is.
        needs_path: whether it is a file of the user's.
        takes_path: whether it may be one.
        takes_length: whether samples are cut to a length.
    """

    read: ReadFn
    needs_path: bool = False
    takes_path: bool = False
    takes_length: bool = False


DATASETS: dict[str, Reader] = {}


def dataset(
    name: str, *, needs_path: bool = False, takes_path: bool = False, takes_length: bool = False
) -> Callable[[ReadFn], ReadFn]:
    """Registers a function as the reader of the data set of this name."""

    def register(read: ReadFn) -> ReadFn:
        DATASETS[name] = Reader(read, needs_path, needs_path or takes_path, takes_length)
        return read

    return register
