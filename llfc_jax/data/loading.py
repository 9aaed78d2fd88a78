"""`load`: any data set by name."""

import os
from typing import TYPE_CHECKING

from llfc_jax.data import arrays, digits, statistics, transform
from llfc_jax.data.checks import limit, positive
from llfc_jax.data.dataset import Dataset, Split
from llfc_jax.errors import DataError

if TYPE_CHECKING:
    from llfc_jax.data.tfds.records import Progress

LARGEST = 4096  # height and width of images, and their channels


def load(
    name: str,
    *,
    path: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    size: int | None = None,
    pad_to: int | None = None,
    channels: int | None = None,
    resident_mb: int | None = None,
    progress: "Progress | None" = None,
) -> Dataset:
    """Load a data set by name.

    Args:
        name: `digits` (embedded, `llfc_jax.data.digits`), `npz` (the user's own file, see
            `llfc_jax.data.arrays.read`), or any image classification set of TensorFlow Datasets
            (`llfc_jax.data.tfds.prepared.read`), which must have been prepared once.
        path: the user's file; with `npz` only, and then it must be given.
        data_dir: where TFDS keeps its sets; its own default if None.
        train_size: only the first so many train samples. The order is fixed and, for the digits
            and for TFDS, shuffled; an `.npz` is taken as it is.
        test_size: only the first so many test samples.
        size: resize images to size x size: shorter side scaled, middle cut out.
        pad_to: put black pixels around images up to pad_to x pad_to, after `size`.
        channels: copy the one channel to so many. (With `pad_to=32, channels=3` Fashion-MNIST
            stands in for CIFAR-10.)
        resident_mb: larger splits are streamed (`Dataset.resident_mb`).
        progress: told (done, all, words) while images are decoded.

    Returns:
        The data set. Its mean and std are the constants of `llfc_jax.data.statistics` if the
        name is listed there, else computed over the train split before padding; use
        `dataclasses.replace` for others.

    Raises:
        DataError: in one line, if anything is missing or does not fit.

    Example:
        >>> digits = load("digits", train_size=1000)
        >>> digits.shape, len(digits.train), len(digits.test), digits.classes
        ((8, 8, 1), 1000, 360, 10)
    """
    _check(name, path, size=size, pad_to=pad_to, channels=channels)
    train, test, classes, known_as = _read(
        name, path, data_dir, train_size, test_size, size, progress
    )
    if size is not None:
        train, test = transform.resize(train, size), transform.resize(test, size)
    known = statistics.CONSTANTS.get(known_as)
    mean, std = known if known is not None else statistics.mean_and_std(train)
    if channels is not None:
        if len(mean) == 1:
            mean, std = mean * channels, std * channels
        train, test = (transform.repeat_channels(part, channels) for part in (train, test))
    if pad_to is not None:
        train, test = transform.pad(train, pad_to), transform.pad(test, pad_to)
    return Dataset(name, train, test, classes, mean, std, resident_mb=resident_mb)


def _check(name: str, path: str | os.PathLike[str] | None, **numbers: int | None) -> None:
    if not isinstance(name, str) or not name:
        raise DataError(f"data set name must be words, not {name!r}")
    if (name == "npz") != (path is not None):
        raise DataError(
            "data set 'npz' needs the path of the file"
            if name == "npz"
            else f"a path goes with data set 'npz' only, not with {name!r}"
        )
    for what, value in numbers.items():
        if value is not None:
            positive(value, what)
            if value > LARGEST:
                raise DataError(f"{what} must be at most {LARGEST}, not {value}")


def _read(
    name: str,
    path: str | os.PathLike[str] | None,
    data_dir: str | os.PathLike[str] | None,
    train_size: int | None,
    test_size: int | None,
    size: int | None,
    progress: "Progress | None",
) -> tuple[Split, Split, int, str]:
    """Train, test, number of classes, and the name under which constants are listed."""
    if path is None and name != "digits":
        from llfc_jax.data.tfds import prepared  # imports TFDS, which the others can do without

        found = prepared.read(
            name,
            data_dir,
            train_size=train_size,
            test_size=test_size,
            size=size,
            progress=progress,
        )
        return found.train, found.test, found.classes, found.name
    if path is None:
        (train, test), classes = digits.read(), digits.CLASSES
    else:
        train, test, classes = arrays.read(path)
    return (
        _first(train, train_size, "train_size"),
        _first(test, test_size, "test_size"),
        classes,
        "",
    )


def _first(split: Split, wanted: int | None, what: str) -> Split:
    count = limit(len(split), wanted, what)
    return split if wanted is None else Split(split.images[:count], split.labels[:count])
