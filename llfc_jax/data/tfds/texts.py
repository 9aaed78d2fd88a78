"""Text sets of TensorFlow Datasets, as the bytes of what stands under `text`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from llfc_jax.data import text
from llfc_jax.data.registry import DatasetRequest, RawDataset
from llfc_jax.data.tfds import records
from llfc_jax.data.tfds.records import Builder
from llfc_jax.errors import DataError

FIELD = "text"  # which feature is taken where there are several
BETWEEN = b"\n"  # stands between two texts
_CHUNK = 1000  # texts read at a time


def find_field(features: object) -> str | None:
    """Returns the name of the feature that holds a text; None where there is none, or no one."""
    if not isinstance(features, tfds.features.FeaturesDict):
        return None
    held: dict[str, Any] = dict(features.items())
    names = [name for name, of in held.items()
             if not of.shape and np.dtype(of.np_dtype) == object]  # fmt: skip
    return FIELD if FIELD in names else names[0] if len(names) == 1 else None


def read_texts(builder: Builder, field: str, request: DatasetRequest) -> RawDataset:
    """Reads a prepared text set, byte by byte (`llfc_jax.data.text.cut_pieces`).

    The texts of each part are put one after the other, with a line break between them; no more of
    them are read than the sizes of the request need. The test part is `test`, else `validation`,
    else the last tenth of the texts.

    Raises:
        DataError: it has no train split, is damaged, or too short.
    """
    present = [split for split, info in builder.info.splits.items() if info.num_examples]
    if "train" not in present:
        raise DataError(f"data set {request.name!r} has no train split, only {', '.join(present)}")
    held_out = next((split for split in ("test", "validation") if split in present), None)
    parts = ("train", held_out) if held_out else ("train[:90%]", "train[90%:]")
    length = request.length or text.LENGTH
    train, test = (
        _join(builder, part, field, None if wanted is None else wanted * length + 1)
        for part, wanted in zip(parts, (request.train_size, request.test_size), strict=True)
    )
    return text.cut_pieces(train, test, length)


def _join(builder: Builder, part: str, field: str, enough: int | None) -> bytes:
    """Returns the texts of a part one after the other, up to a number of bytes at least."""
    joined = bytearray()
    for one in _iterate(builder, part, field):
        joined += (BETWEEN if joined else b"") + one
        if enough is not None and len(joined) >= enough:
            break
    return bytes(joined)


def _iterate(builder: Builder, part: str, field: str) -> Iterator[bytes]:
    held = records.open_records(builder, part)
    for start in range(0, len(held), _CHUNK):
        some = range(start, min(start + _CHUNK, len(held)))
        yield from (record[field] for record in records.fetch(builder, held, some))
