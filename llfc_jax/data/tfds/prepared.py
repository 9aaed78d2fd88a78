"""Image classification and text sets of TensorFlow Datasets, read by name without TensorFlow.

A set is prepared once (`llfc_jax.data.tfds.prepare`); from then on it is read by random access
(`as_data_source`), decoded by Pillow and kept decoded in a folder `llfc_jax` beside its records,
so that 60,000 images take seconds the first time and are there at once later.
"""

import difflib
import os
import re
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import constants, read_only_builder, registered

import llfc_jax.data.tfds.tiny_imagenet  # noqa: F401  # one more set that TFDS then knows
from llfc_jax.data.checks import first_line
from llfc_jax.data.registry import DATASETS, DatasetRequest, RawDataset
from llfc_jax.data.statistics import CONSTANTS
from llfc_jax.data.tfds import records, texts
from llfc_jax.data.tfds.records import Builder
from llfc_jax.data.transform import MODES
from llfc_jax.errors import DataError, unknown


def read_prepared(request: DatasetRequest) -> RawDataset:
    """Reads a prepared set of TensorFlow Datasets.

    The test split is `test` if the set has one whose labels are known, else `validation`; a set
    with neither is cut, its first 80 % for training and the rest for testing (TFDS has shuffled
    the records). Text is read by bytes (`texts.read_texts`).

    Args:
        request: its name is as TFDS writes it: `cifar10`, `emnist/letters`, `cifar10:3.0.2`. Its
            sizes are honoured while images are decoded: only what is needed is.

    Raises:
        DataError: if the set is unknown, not prepared, damaged or no image classification or
            text set.
    """
    name = request.name
    builder = find_builder(name, request.data_dir)
    field = texts.find_field(builder.info.features)
    if field is not None and "image" not in builder.info.features:
        return texts.read_texts(builder, field, request)
    if request.length is not None:
        raise DataError(f"a length goes with text only, not with {name!r}")
    check_features(name, builder.info.features)
    sizes = (request.train_size, request.test_size)
    train, test = (
        records.read_split(
            builder, part, words=words, wanted=wanted, size=request.size, progress=request.progress
        )
        for part, words, wanted in zip(_parts(name, builder), ("train", "test"), sizes, strict=True)
    )
    label: Any = builder.info.features
    mean, std = CONSTANTS.get(builder.name, (None, None))
    return RawDataset(train, test, label["label"].num_classes, mean, std)


def find_builder(name: str, data_dir: str | os.PathLike[str] | None) -> Builder:
    """Returns TFDS's builder of a prepared set, made from its files alone.

    Raises:
        DataError: if there is none.
    """
    place = None if data_dir is None else os.path.expanduser(data_dir)
    try:
        return read_only_builder.builder_from_files(name, data_dir=place)
    except registered.DatasetNotFoundError:
        raise not_found(name, place) from None
    except Exception as error:  # a name that TFDS cannot parse, or files that it cannot
        hint = "; a file of your own is data.name=npz with data.path=FILE" if "." in name else ""
        raise DataError(
            f"cannot open data set {name!r}: {first_line(error).rstrip('.')}{hint}"
        ) from error


def not_found(name: str, data_dir: str | None) -> DataError:
    """Returns the error for a set that is not there: misspelt, or not prepared yet."""
    base = re.split("[/:]", name)[0]
    known = tfds.list_builders(with_community_datasets=False)
    if base not in known:
        near = difflib.get_close_matches(base, known)
        known = unknown("data set", name, [*DATASETS, *near])
        return DataError(f"{known} and others of TensorFlow Datasets")
    where = "" if data_dir is None else f" --data-dir {data_dir}"
    return DataError(
        f"data set {name!r} is not prepared in {data_dir or constants.DATA_DIR}; do so once with "
        f"`python -m llfc_jax.data.tfds.prepare {name}{where}` (needs the extra llfc-jax[prepare]; "
        "without network also --archives DIR)"
    )


def check_features(name: str, features: object) -> None:
    """Checks that a set has uint8 images `image` and classes `label`, or texts.

    Raises:
        DataError: if it has not.
    """
    if texts.find_field(features) is not None and "image" not in cast(Any, features):
        return
    kinds = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    if not isinstance(features, tfds.features.FeaturesDict) or not all(
        name in features and isinstance(features[name], kind) for name, kind in kinds.items()
    ):
        raise DataError(
            f"data set {name!r} is not for image classification: "
            "it has no features 'image' and 'label' of that kind, and no text of one feature"
        )
    image: Any = features["image"]
    label: Any = features["label"]
    dtype, channels = np.dtype(image.np_dtype), image.shape[-1]
    if dtype != np.uint8 or channels not in MODES:
        raise DataError(
            f"images of {name!r} are {dtype} with {channels} channels; "
            "only uint8 with 1, 3 or 4 can be read"
        )
    if not label.num_classes:
        raise DataError(f"data set {name!r} does not say how many classes it has")


def _parts(name: str, builder: Builder) -> tuple[str, str]:
    """Returns which splits, in TFDS's notation, to train and to test on."""
    present = [split for split, info in builder.info.splits.items() if info.num_examples]
    if "train" not in present:
        raise DataError(f"data set {name!r} has no train split, only {', '.join(present)}")
    if "test" in present and _labelled(builder):
        return "train", "test"
    if "validation" in present:
        return "train", "validation"
    return "train[:80%]", "train[80%:]"


def _labelled(builder: Builder) -> bool:
    """Says whether the test split's labels are known: TFDS writes -1 for hidden ones."""
    test = records.open_records(builder, "test")
    return records.fetch(builder, test, range(1))[0]["label"] >= 0
