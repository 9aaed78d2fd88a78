"""The user's own data: an `.npz` file with a train and a test part."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from llfc_jax.data.checks import first_line
from llfc_jax.data.dataset import Split
from llfc_jax.data.registry import DatasetRequest, RawDataset, dataset
from llfc_jax.errors import DataError

LAYOUTS = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)
_DAMAGED = (ValueError, EOFError, KeyError, NotImplementedError, RuntimeError)
_DAMAGED += (zipfile.BadZipFile, zlib.error)


@dataset("npz", needs_path=True)
def read_npz(request: DatasetRequest) -> RawDataset:
    """Reads your own `.npz` file, at `data.path`.

    The file holds the arrays `x_train`, `y_train`, `x_test`, `y_test` (or `train_images`,
    `train_labels`, `test_images`, `test_labels`); other arrays are ignored. Images are
    [n, height, width, channels], [n, height, width] (one channel) or [n, features]; uint8 or
    another whole type within 0 to 255, or floating (kept as they are, as float32). Labels are
    whole numbers from 0, [n] or [n, 1]; the number of classes is the highest train label plus 1.
    Pickled objects are never loaded.

    Raises:
        DataError: if the file is missing or damaged, or an array is missing or does not fit.
    """
    path = Path(request.path or "").expanduser()
    arrays = _open(path)
    splits: dict[str, Split] = {}
    for words, (x, y) in zip(("train", "test"), _pairs(path, arrays), strict=True):
        try:
            splits[words] = Split(_images(arrays[x]), _labels(arrays[y]))
        except DataError as error:
            raise DataError(f"{path}, {x} and {y}: {error}") from error
    return RawDataset(splits["train"], splits["test"], _count_classes(path, **splits))


def _open(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays whose names are known."""
    known = {name for layout in LAYOUTS for name in layout}
    try:
        with open(path, "rb") as stream:  # NumPy would leave it open on a damaged file
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is no .npz file; write it with numpy.savez")
            return {name: file[name] if name in known else np.empty(0) for name in file.files}
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except _DAMAGED as error:
        raise DataError(
            f"{path} is damaged, no .npz file, or holds Python objects: {first_line(error)}"
        ) from error


def _pairs(path: Path, arrays: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """Returns the names of images and labels, of train and of test."""
    for layout in LAYOUTS:
        if all(name in arrays for name in layout):
            return [layout[:2], layout[2:]]
    present = ", ".join(sorted(arrays)) or "nothing"
    raise DataError(f"{path} must hold {', '.join(LAYOUTS[0])}; it holds {present}")


def _images(images: np.ndarray) -> np.ndarray:
    kind = images.dtype.kind
    if kind in "iu" and images.size and (images.min() < 0 or images.max() > 255):
        raise DataError(
            f"whole-number images must lie in 0 to 255, not {images.min()} to {images.max()}; "
            "scale them, or store them as float32"
        )
    if kind in "iu":
        images = images.astype(np.uint8)
    elif kind == "f":
        with np.errstate(over="ignore"):  # what overflows is found as infinity
            images = images.astype(np.float32)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise DataError(
            f"images {images.shape} seem to have channels first; "
            "make them [n, height, width, channels]"
        )
    return np.ascontiguousarray(images)


def _labels(labels: np.ndarray) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu":
        raise DataError(f"labels are {labels.dtype}; make them whole numbers, 0 to classes - 1")
    if labels.size and (labels.min() < 0 or labels.max() > np.iinfo(np.int32).max):
        raise DataError(f"labels run from {labels.min()} to {labels.max()}; number them from 0")
    if labels.ndim != 1:
        raise DataError(f"labels are int32 {labels.shape}; make them int32 [n]")
    return labels.astype(np.int32)


def _count_classes(path: Path, train: Split, test: Split) -> int:
    classes = int(train.labels.max()) + 1
    if classes < 2:
        raise DataError(f"{path}: every train label is 0; there must be at least two classes")
    if classes > len(train):
        raise DataError(
            f"{path}: train labels run up to {classes - 1}, but there are only {len(train)} "
            "images; number the classes 0, 1, 2, ..."
        )
    if test.labels.max() >= classes:
        raise DataError(
            f"{path}: test labels run up to {test.labels.max()}, "
            f"but train labels only to {classes - 1}"
        )
    return classes
