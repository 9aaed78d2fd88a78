"""Fine-tuning: what each network of one base is trained on, and what of it moves.

All fine-tunings of a base are trained side by side, with the pretraining before them, so all of
them take their samples from one split: the variants' data one after the other. An epoch is as long
as the smallest variant's data; of larger ones every epoch draws that many samples anew.
"""

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llfc_jax import fields
from llfc_jax.data import Dataset, Split
from llfc_jax.errors import ConfigError, DataError

BY_THEMSELVES = "fine-tuned pairs are trained by themselves; name no other kind of pair beside them"


@dataclasses.dataclass(frozen=True)
class Variant:
    """A part or a change of the data set, and how a run is trained on it.

    Attributes:
        share: where the part begins and ends, as shares of each split, before all else.
        classes: only the samples with these labels; all if empty.
        labels: the new label of each class of the data set; labels stay if empty.
        rotate: degrees by which images are turned, counter-clockwise.
        learning_rate: peak rate; the recipe's if None.
        freeze: parameters that stay, by their paths or what holds them; `*` matches anything:
            "params/Dense_0", "*/bias".
    """

    share: tuple[float, float] = (0.0, 1.0)
    classes: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    rotate: float = 0.0
    learning_rate: float | None = None
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks the ranges of the numbers."""
        low, high = self.share
        if not 0 <= low < high <= 1:
            raise ConfigError(f"share must rise within 0 to 1, not {self.share!r}")
        if not np.isfinite(self.rotate):
            raise ConfigError(f"rotate must be finite, not {self.rotate!r}")
        if self.learning_rate is not None and not 0 < self.learning_rate < np.inf:
            raise ConfigError(f"learning_rate must be above 0, not {self.learning_rate!r}")

    @property
    def data(self) -> "Variant":
        """What of it bears on the data."""
        return Variant(self.share, self.classes, self.labels, self.rotate)

    def cut(self, dataset: Dataset) -> Dataset:
        """Returns the data set of this variant.

        Raises:
            DataError: labels or images are not of a kind that can be cut so, or nothing is left.
        """
        if self.data == Variant():
            return dataset
        train, test = (self._cut(split, dataset.classes) for split in (dataset.train, dataset.test))
        return dataclasses.replace(dataset, train=train, test=test, fingerprint="")

    def count(self, split: Split) -> int:
        """Returns the number of samples of a split that are kept."""
        return len(split.labels[self._choose(split)])

    def _choose(self, split: Split) -> slice | np.ndarray:
        """Returns which samples of a split are kept."""
        low, high = (round(len(split) * end) for end in self.share)
        if not self.classes:
            return slice(low, high)
        if split.labels.ndim != 1 or split.labels.dtype != np.int32:
            raise DataError("classes of a variant need data with one label for each sample")
        return low + np.flatnonzero(np.isin(split.labels[low:high], self.classes))

    def _cut(self, split: Split, classes: int | None) -> Split:
        chosen = self._choose(split)
        images, labels = split.images[chosen], split.labels[chosen]
        if self.labels:
            if labels.dtype != np.int32 or classes is None:
                raise DataError("labels of a variant need data whose targets are labels")
            if len(self.labels) != classes:
                raise DataError(f"labels of a variant must be {classes}, one for each class, "
                                f"not {len(self.labels)}")  # fmt: skip
            labels = np.asarray(self.labels, np.int32)[labels]
        if not len(labels):
            raise DataError(f"no sample is left of a split: {self}")
        if self.rotate:
            images = rotate(images, self.rotate)
        return Split(np.ascontiguousarray(images), np.ascontiguousarray(labels))


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """What networks are fine-tuned from, and on what.

    Attributes:
        base: path of the checkpoint that they start from: any file that
            `llfc_jax.checkpoints.load` reads, or the working directory of a training. Without it
            a network is trained first.
        run: which network of a working directory, such as "0/spawn_k1/a"; the first if None.
        pretrain: what the base is trained on, for the epochs that the pair's name says.
        tasks: what the networks are fine-tuned on; pairs name them by their places.
        heads: parameters that each fine-tuning starts from fresh values, by their paths.
    """

    base: str | None = None
    run: str | None = None
    pretrain: Variant = Variant()
    tasks: tuple[Variant, ...] = (Variant(), Variant())
    heads: tuple[str, ...] = ()

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The pretraining and the tasks; a run knows its own by its place here."""
        return (self.pretrain, *self.tasks)


def build_finetuning(values: Mapping[str, Any], where: str = "finetune") -> FineTuning:
    """Returns fine-tunings from nested fields, as a config has them.

    Raises:
        ConfigError: an unknown field, or a value of the wrong type or out of range.
    """
    values = dict(values)
    if "pretrain" in values:
        values["pretrain"] = _build_variant(values["pretrain"], f"{where}.pretrain")
    if "tasks" in values:
        tasks = values["tasks"]
        if not isinstance(tasks, (list, tuple)):
            raise ConfigError(f"{where}.tasks must be a tuple of groups of fields, not {tasks!r}")
        values["tasks"] = tuple(
            _build_variant(task, f"{where}.tasks[{i}]") for i, task in enumerate(tasks)
        )
    return fields.make(FineTuning, where, values)


def _build_variant(values: Any, where: str) -> Variant:
    if isinstance(values, Variant):
        return values
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} must be a group of fields, not {values!r}")
    try:
        return fields.make(Variant, where, dict(values))
    except ConfigError as error:
        raise ConfigError(str(error) if where in str(error) else f"{where}.{error}") from None


def rotate(images: np.ndarray, degrees: float) -> np.ndarray:
    """Returns images turned counter-clockwise about their centre; corners are filled with zeros.

    Raises:
        DataError: they are no images [n, h, w, c].
    """
    if images.ndim != 4:
        raise DataError(f"rotate needs images [n, h, w, c], not {images.shape}")
    turns, rest = divmod(degrees, 90)
    if not rest and (turns % 2 == 0 or images.shape[1] == images.shape[2]):
        return np.rot90(images, int(turns), axes=(1, 2))
    from scipy import ndimage

    turned = ndimage.rotate(images, degrees, axes=(2, 1), reshape=False, order=1, output=np.float32)
    return turned if images.dtype != np.uint8 else np.rint(turned).clip(0, 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class JoinedData:
    """The data of several variants in one data set.

    Attributes:
        dataset: the variants' splits one after the other; equal ones stand there once.
        ranges: first sample and number of samples in the train split, of each variant.
    """

    dataset: Dataset
    ranges: tuple[tuple[int, int], ...]


def join_variants(dataset: Dataset, variants: Sequence[Variant]) -> JoinedData:
    """Returns the data of all variants as one data set, and where those of each lie.

    Raises:
        DataError: a variant does not fit the data.
    """
    cut = {data: data.cut(dataset) for data in dict.fromkeys(v.data for v in variants)}
    sizes = [len(part.train) for part in cut.values()]
    starts = dict(zip(cut, np.cumsum([0, *sizes]).tolist(), strict=False))
    ranges = tuple((starts[v.data], len(cut[v.data].train)) for v in variants)
    if len(cut) == 1:
        return JoinedData(next(iter(cut.values())), ranges)
    train, test = (
        _concatenate([getattr(part, name) for part in cut.values()]) for name in ("train", "test")
    )
    joined = dataclasses.replace(dataset, train=train, test=test, fingerprint="")
    return JoinedData(joined, ranges)


def _concatenate(splits: Sequence[Split]) -> Split:
    images, labels = ([getattr(split, name) for split in splits] for name in ("images", "labels"))
    return Split(np.concatenate(images), np.concatenate(labels))


def is_named(path: str, patterns: Sequence[str]) -> bool:
    """Returns whether patterns name a leaf by its path, or by what holds it."""
    return any(
        fnmatch.fnmatchcase(path, pattern + end) for pattern in patterns for end in ("", "/*")
    )


def check_patterns(patterns: Sequence[str], paths: Sequence[str], what: str) -> None:
    """Checks that each pattern names a parameter.

    Raises:
        ConfigError: one does not; nothing would be done about it.
    """
    for pattern in patterns:
        if not any(is_named(path, (pattern,)) for path in paths):
            raise ConfigError(f"{what} {pattern!r} names no parameter; there are "
                              f"{', '.join(paths[:6])}, ...")  # fmt: skip
