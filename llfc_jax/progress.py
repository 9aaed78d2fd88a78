"""Progress of long work: a bar with the time left in a terminal or notebook, lines in a log."""

import html
import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from llfc_jax.types import ProgressFn

EVERY = 10.0  # seconds between lines in a log
REDRAW = 0.2  # seconds between two states of a notebook's bar


class CallbackReporter:
    """Hands progress on to a callback (done, total, words), or to nobody.

    Args:
        progress: the callback.
    """

    def __init__(self, progress: "ProgressFn | None" = None) -> None:
        self._progress = progress

    def __enter__(self) -> "CallbackReporter":
        return self

    def __exit__(self, *error: object) -> None:
        """Does nothing."""

    def task(self, title: str) -> "ProgressFn":
        """Returns a callback that puts the title before the words."""
        return lambda done, total, words: self._call(done, total, f"{title}: {words}")

    def say(self, line: str) -> None:
        """Drops a line: a callback takes numbers only."""

    def _call(self, done: int, total: int, words: str) -> None:
        if self._progress:
            self._progress(done, total, words)


class Reporter:
    """Shows the progress of one piece of work at a time; a context manager.

    Args:
        console: where to; a terminal and a notebook get bars, a pipe or a log gets lines.
        quiet: shows nothing.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console, self._quiet = console, quiet
        self._bars = None
        if console.is_terminal and not console.is_jupyter and not quiet:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )

    def __enter__(self) -> "Reporter":
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars:
            self._bars.stop()

    def say(self, line: str) -> None:
        """Prints a line that stays."""
        if not self._quiet:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def task(self, title: str) -> "ProgressFn":
        """Returns a callback (done, total, words) for one piece of work."""
        if self._bars:
            return _Bar(self._bars, title)
        if self._console.is_jupyter and not self._quiet:
            return _NotebookBar(title)
        return _Lines(self.say, title)


def choose_reporter(progress: "ProgressFn | bool | None") -> Reporter | CallbackReporter:
    """Returns what shows the progress of a call from Python; a context manager.

    Args:
        progress: a callback, which gets the numbers; True and False show it and do not. None
            shows it where somebody looks on: in a terminal or a notebook, not in a pipe, a log or
            a test.
    """
    if callable(progress):
        return CallbackReporter(progress)
    console = Console(stderr=True)
    looked_at = console.is_terminal or console.is_jupyter
    shown = looked_at and "PYTEST_CURRENT_TEST" not in os.environ if progress is None else progress
    return Reporter(console, quiet=not shown)


class _Bar:
    def __init__(self, bars: Progress, title: str) -> None:
        self._bars, self._title = bars, title
        self._task: TaskID | None = None

    def __call__(self, done: int, total: int, words: str) -> None:
        if self._task is None:
            self._task = self._bars.add_task(self._title, total=total or None)
        description = f"{self._title}: {words}"
        self._bars.update(self._task, completed=done, total=total or None, description=description)
        if total and done >= total:
            self._bars.update(self._task, visible=False)


class _NotebookBar:
    """A bar in a cell's output, which goes when the work is done; it needs no widgets."""

    def __init__(self, title: str) -> None:
        self._title, self._handle = title, None
        self._start, self._last = time.monotonic(), -math.inf

    def __call__(self, done: int, total: int, words: str) -> None:
        from IPython.display import HTML, display

        now = time.monotonic()
        ended = total and done >= total
        if not ended and now - self._last < REDRAW:
            return
        self._last = now
        size = f' max="{total}" value="{done}"' if total else ""
        said = html.escape(f"{self._title}: {words} {_count(done, total, now - self._start)}")
        bar = HTML("" if ended else f"<progress{size}></progress> {said}")
        if self._handle is not None:
            self._handle.update(bar)
        elif not ended:
            self._handle = display(bar, display_id=True)


class _Lines:
    def __init__(self, say: Callable[[str], None], title: str) -> None:
        self._say, self._title = say, title
        self._start = self._last = time.monotonic()

    def __call__(self, done: int, total: int, words: str) -> None:
        now = time.monotonic()
        if now - self._last < EVERY:
            return
        self._last = now
        self._say(f"{self._title}: {words} {_count(done, total, now - self._start)}")


def _count(done: int, total: int, seconds: float) -> str:
    """Returns how much is done, and the time left if it goes on as it did.

    Examples:
        >>> _count(2, 8, 11.0), _count(3, 0, 20.0)
        ('2/8, 33 s left', '3')
    """
    counted = f"{done}/{total}" if total else f"{done}"
    left = seconds / max(done, 1) * (total - done)
    return f"{counted}, {_duration(left)} left" if 0 < done < total else counted


def _duration(seconds: float) -> str:
    """Returns a time in words, to about a tenth.

    Examples:
        >>> _duration(42.3), _duration(754), _duration(12000)
        ('42 s', '13 min', '3.3 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
