"""A batch as people have it, taken apart: inputs, targets, and what counts.

A batch is `(x, targets)`, `(x, targets, mask)`, or a mapping whose entry `labels` (or another name
of `TARGETS`) holds the targets, the rest being `x`; targets may be None where nothing looks at
them. `x` is an array or any tree of arrays, the
samples along each one's first axis. Arrays may be of any library that NumPy can read.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from llfc_jax.errors import DataError
from llfc_jax.types import Batches, Inputs, Targets

TARGETS = ("labels", "label", "targets", "target", "y")
MASK, ATTENTION = "mask", "attention_mask"


class Batch(NamedTuple):
    """A batch.

    Attributes:
        x: inputs, an array or a tree of arrays [n, ...].
        y: targets, the same; or None.
        mask: 1 for what counts, [n] or [n, t]; None where all does.
    """

    x: Inputs
    y: Targets
    mask: Any = None


def read_batch(batch: object) -> Batch:
    """Returns a batch taken apart.

    Raises:
        DataError: it is none, what it holds is no array of numbers, or the numbers of samples
            differ.
    """
    parts = _take_apart(batch)
    if parts is None:
        raise DataError(
            "batches must be pairs (x [n, ...], labels [n]), arrays both or trees of arrays, "
            f"(x, labels, mask), or mappings with an entry {TARGETS[0]!r}; not {_words(batch)}"
        )
    x, y, mask = parts
    x, y = _as_arrays(x, "x"), _as_arrays(y, "labels")
    if mask is None and isinstance(x, Mapping) and ATTENTION in x and np.ndim(x[ATTENTION]) == 2:
        mask = x[ATTENTION]
    mask = None if mask is None else _as_arrays(mask, "the mask")
    counts = [np.shape(leaf)[:1] for leaf in jax.tree.leaves((x, y, mask))]
    if not jax.tree.leaves(x) or len(set(counts)) != 1 or counts[0] in ((), (0,)):
        shapes = [", ".join(str(np.shape(leaf)) for leaf in jax.tree.leaves(t)) for t in (x, y)]
        masked = "" if mask is None else f" and a mask {np.shape(mask)}"
        raise DataError(
            f"a batch needs x [n, ...] and labels [n]; got {shapes[0] or '()'} and "
            f"{shapes[1] or '()'}{masked}"
        )
    if mask is not None and np.ndim(mask) not in (1, 2):
        raise DataError(f"a mask must be [n] or [n, t], not {np.shape(mask)}")
    if isinstance(mask, np.ndarray) and not (mask >= 0).all():
        raise DataError(
            "a mask holds negative numbers or NaN; it must be 1 for what counts, else 0"
        )
    return Batch(x, y, mask)


def _take_apart(batch: object) -> tuple[Any, Any, Any] | None:
    if isinstance(batch, Mapping):
        name = next((name for name in TARGETS if name in batch), "")
        rest = {k: v for k, v in batch.items() if k not in (name, MASK)}
        return rest, batch.get(name), batch.get(MASK)
    if isinstance(batch, (tuple, list)) and len(batch) in (2, 3):
        return batch[0], batch[1], batch[2] if len(batch) == 3 else None
    return None


def _as_arrays(tree: Inputs, what: str) -> Any:
    """Returns a tree of arrays that JAX takes; other libraries' arrays are NumPy's."""
    if tree is None:
        return None
    if isinstance(tree, Mapping):
        return {name: _as_arrays(part, f"{what}[{name!r}]") for name, part in tree.items()}
    if isinstance(tree, (tuple, list)) and any(map(_is_part, tree)):
        parts = [_as_arrays(part, what) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if isinstance(tree, (jax.Array, jax.ShapeDtypeStruct)):
        return tree
    try:
        array = np.asarray(tree)
    except Exception as error:  # whatever another library raises
        raise DataError(f"{what} cannot be read as arrays: {type(tree).__name__}") from error
    if array.dtype.kind in "OSUMm":
        raise DataError(f"{what} are {array.dtype}; make them numbers of one shape")
    held = jax.dtypes.canonicalize_dtype(array.dtype)  # what JAX makes of it
    if array.dtype.kind in "iu" and held != array.dtype and array.size:
        limits = np.iinfo(held)
        if array.min() < limits.min or array.max() > limits.max:
            raise DataError(f"{what} hold numbers beyond {held}, as which JAX reads them")
    return array


def _is_part(entry: object) -> bool:
    return isinstance(entry, Mapping) or len(getattr(entry, "shape", ())) > 0


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return f"a mapping of {', '.join(map(str, list(value)[:6])) or 'nothing'}"
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"an array of shape {tuple(shape)}"
    return f"a {type(value).__name__}"


def count_batches(batches: Batches) -> int:
    """Returns the number of batches; 0 where that is not known before they are read."""
    try:
        return len(batches)  # pyright: ignore[reportArgumentType]
    except (TypeError, NotImplementedError):
        return 0
