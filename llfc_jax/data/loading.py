"""`load`: any data set by name."""

import os

from llfc_jax.data import arrays, digit_parts, digits, statistics, text, transform  # noqa: F401 - registers data sets
from llfc_jax.data.checks import check_positive, limit_samples
from llfc_jax.data.dataset import Dataset, Split
from llfc_jax.data.registry import DATASETS, DatasetRequest, RawDataset
from llfc_jax.errors import DataError
from llfc_jax.types import ProgressFn

MAX_SIDE = 4096  # height and width of images, and their channels


def load(
    name: str,
    *,
    path: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    length: int | None = None,
    size: int | None = None,
    pad_to: int | None = None,
    channels: int | None = None,
    resident_mb: int | None = None,
    progress: ProgressFn | None = None,
) -> Dataset:
    """Loads a data set by name.

    Args:
        name: one of `llfc_jax.data.DATASETS`: `digits` (embedded, `llfc_jax.data.digits`), `text`
            (embedded or the user's own, `llfc_jax.data.text`), `npz` (the user's own file,
            `llfc_jax.data.arrays.read_npz`), ...; or any image classification or text set of
            TensorFlow Datasets that has been prepared (`llfc_jax.data.tfds.prepared`).
        path: the user's file; `npz` needs it, `text` takes it.
        data_dir: where TFDS keeps its data sets; its own default if None.
        train_size: only the first so many train samples. The order is fixed and, for the digits
            and for TFDS, shuffled; an `.npz` is taken as it is.
        test_size: only the first so many test samples.
        length: tokens in a sample, of texts: `text`, and text sets of TFDS.
        size: resize images to size x size: the shorter side is scaled and the middle cut out.
        pad_to: put black pixels around images up to pad_to x pad_to, after `size`.
        channels: copy the one channel to so many. (With `pad_to=32, channels=3` Fashion-MNIST
            stands in for CIFAR-10.)
        resident_mb: larger splits are streamed (`Dataset.resident_mb`).
        progress: called as (done, in all, words) while images are decoded.

    Returns:
        The data set. Its mean and std are published constants (`llfc_jax.data.statistics`) where
        there are some, else computed over the train split before padding; use
        `dataclasses.replace` for others.

    Raises:
        DataError: in one line, if anything is missing or does not fit.

    Examples:
        >>> digits = load("digits", train_size=1000)
        >>> digits.shape, len(digits.train), len(digits.test), digits.classes
        ((8, 8, 1), 1000, 360, 10)
    """
    _check(name, path, size=size, pad_to=pad_to, channels=channels, length=length)
    raw = _read(DatasetRequest(name, path, data_dir, train_size, test_size, length, size, progress))
    train = _keep_first(raw.train, train_size, "train_size")
    test = _keep_first(raw.test, test_size, "test_size")
    if size is not None:
        train, test = transform.resize(train, size), transform.resize(test, size)
    if raw.mean is not None and raw.std is not None:
        mean, std = raw.mean, raw.std
    else:
        mean, std = statistics.mean_and_std(train)
    if channels is not None:
        if len(mean) == 1:
            mean, std = mean * channels, std * channels
        train, test = (transform.repeat_channels(part, channels) for part in (train, test))
    if pad_to is not None:
        train, test = transform.pad(train, pad_to), transform.pad(test, pad_to)
    return Dataset(name, train, test, raw.classes, mean, std, resident_mb=resident_mb)


def _read(request: DatasetRequest) -> RawDataset:
    """Reads a registered data set, or one of TFDS."""
    if request.name in DATASETS:
        return DATASETS[request.name].read(request)
    from llfc_jax.data.tfds.prepared import read_prepared  # imports TFDS

    return read_prepared(request)


def _check(name: str, path: str | os.PathLike[str] | None, **numbers: int | None) -> None:
    """Checks the arguments of `load` before anything is read."""
    if not isinstance(name, str) or not name:
        raise DataError(f"data set name must be words, not {name!r}")
    needs_path = name in DATASETS and DATASETS[name].needs_path
    if needs_path and path is None:
        raise DataError(f"data set {name!r} needs the path of the file")
    for what, given, field in (
        ("path", path, "takes_path"),
        ("length", numbers["length"], "takes_length"),
    ):
        takers = [known for known, reader in DATASETS.items() if getattr(reader, field)]
        elsewhere = what == "length" and name not in DATASETS  # TFDS has texts as well
        if given is not None and name not in takers and not elsewhere:
            words = " or ".join(map(repr, takers))
            raise DataError(f"a {what} goes with data set {words} only, not with {name!r}")
    for what, value in numbers.items():
        if value is not None:
            check_positive(value, what)
            if value > MAX_SIDE:
                raise DataError(f"{what} must be at most {MAX_SIDE}, not {value}")


def _keep_first(split: Split, wanted: int | None, what: str) -> Split:
    """Keeps the first `wanted` samples."""
    count = limit_samples(len(split), wanted, what)
    return split if wanted is None else Split(split.images[:count], split.labels[:count])
