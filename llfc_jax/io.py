"""Files that are whole or not there: written aside, renamed, and checked when they are read."""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llfc_jax.errors import WorkdirError

Row = dict[str, Any]
LEFT = re.compile(r"\..+\.\d+\.\w+")


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Yields a place to write a file that is then renamed: readers see the old file or the new.

    A process that is killed may leave the place (`LEFT` matches its name), never half a file.

    Raises:
        WorkdirError: it cannot be written, for a full disk say; the old file is intact.
    """
    place = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield place
            place.replace(path)
        finally:
            place.unlink(missing_ok=True)
    except OSError as error:
        raise WorkdirError(
            f"cannot write {path}: {error.strerror or error}; what was written before is intact: "
            "make room or make it writable, then run again"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all (`aside`)."""
    with aside(path) as place:
        place.write_text(text, encoding="utf-8", newline="")


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows as CSV: columns in order of first appearance, floats to full precision."""
    rows = list(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, out.getvalue())


def write_json(path: Path, value: object) -> None:
    """Writes what `to_json` makes of a value."""
    write_text(path, to_json(value) + "\n")


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON that says its own SHA-256, so that `read_sealed` finds any damage."""
    content = json.loads(to_json(value))
    write_json(path, {**content, "sha256": _seal(content)})


def read_sealed(path: Path) -> dict[str, Any]:
    """Returns what `write_sealed` wrote, as JSON gives it back.

    Raises:
        WorkdirError: it cannot be read, or a number or word in it is not what was written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("sha256") == _seal(content):
            return content
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise WorkdirError(f"{path} is damaged; delete it and run again") from error
    raise WorkdirError(f"{path} is not what was written; delete it and run again")


def _seal(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def to_json(value: object) -> str:
    """Returns JSON that any parser reads: numbers that are not finite become null."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: object) -> Any:
    """Returns a value in JSON's own types."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "__array__"):  # of NumPy or JAX, which is not imported for this
        return _plain(np.asarray(value).tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def nan_for_none(row: Mapping[str, Any]) -> Row:
    """Returns a row as it was before JSON, which has no NaN, made it null."""
    return {k: float("nan") if v is None else v for k, v in row.items()}
