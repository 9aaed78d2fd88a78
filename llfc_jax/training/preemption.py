"""Signals that are acted on only after the training state was saved."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def defer_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM in a list and acts on them when the block is left.

    A second one acts at once. A signal that is ignored (as SIGINT is in a shell's background jobs)
    stays so. Outside the main thread, where signals never arrive, this does nothing.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        if len(caught) > 1:
            restore()
            signal.raise_signal(number)

    before = {
        number: signal.signal(number, note)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield caught
    finally:
        restore()
    if caught:
        signal.raise_signal(caught[0])
