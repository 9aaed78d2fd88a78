"""What the methods that read data share."""

from collections.abc import Callable, Iterable
from typing import Any

Batches = Iterable[tuple[Any, Any]]
Progress = Callable[[int, int, str], None]
"""Called as (done, in all or 0, words)."""
