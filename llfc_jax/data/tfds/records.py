"""The records of a prepared set: random access, decoding by Pillow, the cache of decoded arrays."""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from llfc_jax.data.checks import first_line, limit_samples
from llfc_jax.data.dataset import Split
from llfc_jax.data.tfds import cache
from llfc_jax.data.transform import MODES, resize_image
from llfc_jax.errors import DataError
from llfc_jax.types import ProgressFn

Builder: TypeAlias = Any
"""TFDS's builder of a data set (its own annotations do not say what its features are)."""

Record: TypeAlias = dict[str, Any]
_FORMAT = 1  # of the cache; raise it whenever the same records would be decoded otherwise
_CHUNK = 1000  # records read and decoded at a time


def open_records(builder: Builder, part: str) -> Sequence[Record]:
    """Opens a part for random access to its records (`train`, `train[:80%]`), images left encoded.

    Raises:
        DataError: if the set was prepared in a format that only TensorFlow reads, or is damaged.
    """
    features = builder.info.features.items()
    skip = {
        k: tfds.decode.SkipDecoding() for k, f in features if isinstance(f, tfds.features.Image)
    }
    try:
        return builder.as_data_source(part, decoders=skip)
    except NotImplementedError as error:
        raise DataError(
            f"{builder.data_dir} holds {builder.info.file_format.value} files, which only "
            "TensorFlow reads; delete it, or choose another data_dir, and prepare the set again "
            "with `python -m llfc_jax.data.tfds.prepare`"
        ) from error
    except Exception as error:
        raise _damaged(builder, error) from error


def fetch(builder: Builder, records: Sequence[Record], which: range) -> list[Record]:
    """Reads some records at once.

    Raises:
        DataError: if the files are damaged.
    """
    try:
        read: Any = records  # TFDS reads several at once faster than one by one
        return read.__getitems__(list(which))
    except Exception as error:
        raise _damaged(builder, error) from error


def read_split(
    builder: Builder,
    part: str,
    *,
    words: str,
    wanted: int | None,
    size: int | None,
    progress: ProgressFn | None,
) -> Split:
    """Returns the first `wanted` samples of a part, decoded, from the cache if they are there.

    The cache is the folder `llfc_jax` beside the records. The names of its files hold a digest of
    all on which their contents depend, so files made from other records are never taken.

    Args:
        builder: of a prepared set.
        part: in TFDS's notation.
        words: what the part is for, `train` or `test`.
        wanted: how many samples, or None for all.
        size: resize images to size x size, or None.
        progress: called as (done, in all, words) while images are decoded.

    Raises:
        DataError: if records are damaged, fewer than wanted, or differ in size.
    """
    records = open_records(builder, part)
    total = len(records)
    count = limit_samples(total, wanted, f"{words}_size")
    shape = _shape(builder, records, size)
    folder = Path(builder.data_dir) / "llfc_jax"

    def key(count: int) -> str:
        splits = [(s.name, s.num_bytes, s.shard_lengths) for s in builder.info.splits.values()]
        parts = [_FORMAT, builder.name, str(builder.version), splits, part, count, size]
        return f"{words}-{count}-" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    def report(done: int) -> None:
        if progress is not None:
            progress(done, count, f"decoding {builder.name}, {words}")

    def decode() -> Iterator[cache.Chunk]:
        for start in range(0, count, _CHUNK):
            report(start)
            yield _decode(builder, records, range(start, min(start + _CHUNK, count)), shape, size)
        report(count)

    whole = cache.find(folder, key(total), (total, *shape))
    if whole is not None:
        return Split(whole[0][:count], whole[1][:count])
    return Split(*cache.cached(folder, key(count), (count, *shape), decode))


def _shape(builder: Builder, records: Sequence[Record], size: int | None) -> tuple[int, ...]:
    """Returns the shape of every image: as resized, as declared, or that of the first image."""
    declared = builder.info.features["image"].shape
    if size is not None:
        return (size, size, declared[-1])
    if None not in declared:
        return tuple(declared)
    return _image(builder, fetch(builder, records, range(1))[0]["image"], None).shape


def _decode(
    builder: Builder,
    records: Sequence[Record],
    which: range,
    shape: tuple[int, ...],
    size: int | None,
) -> cache.Chunk:
    some = fetch(builder, records, which)
    images = np.empty((len(some), *shape), np.uint8)
    for i, record in enumerate(some):
        image = _image(builder, record["image"], size)
        if image.shape != shape:
            raise DataError(
                f"images of {builder.name!r} differ in size ({shape[0]}x{shape[1]} and "
                f"{image.shape[0]}x{image.shape[1]}); give a size to which all are resized"
            )
        images[i] = image
    return images, np.array([record["label"] for record in some], np.int32)


def _image(builder: Builder, encoded: bytes, size: int | None) -> np.ndarray:
    """Decodes one image, uint8 [height, width, channels]."""
    channels = builder.info.features["image"].shape[-1]
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image = image.convert(MODES[channels])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _damaged(builder, error) from error
    if size is not None:
        image = resize_image(image, size)
    return np.asarray(image).reshape(image.height, image.width, channels)


def _damaged(builder: Builder, error: Exception) -> DataError:
    return DataError(
        f"cannot read {builder.data_dir} ({first_line(error)}); delete it and prepare it again"
    )
