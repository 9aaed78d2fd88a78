"""Progress: bars where somebody looks on, lines with the time left in a log, silence elsewhere."""

import io
import sys
import types

import pytest
from rich.console import Console

from llfc_jax import progress
from llfc_jax.progress import CallbackReporter, Reporter, choose_reporter


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test turns."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_of_a_log_say_how_long_it_still_takes(clock):
    out = io.StringIO()
    task = Reporter(Console(file=out, width=80)).task("training")
    for seconds, done in ((1, 1), (11, 2), (12, 3), (22, 4), (33, 8)):
        clock[0] = seconds
        task(done, 8, "epochs")
    assert out.getvalue().splitlines() == [
        "training: epochs 2/8, 33 s left",
        "training: epochs 4/8, 22 s left",
        "training: epochs 8/8",
    ]


def test_work_of_unknown_size_and_work_not_begun_have_no_time_left(clock):
    out = io.StringIO()
    task = Reporter(Console(file=out, width=80)).task("reading")
    for seconds, done, total in ((20, 3, 0), (40, 0, 5)):
        clock[0] = seconds
        task(done, total, "batches")
    assert out.getvalue() == "reading: batches 3\nreading: batches 0/5\n"


@pytest.mark.parametrize(
    ("choice", "terminal", "tested", "shown"),
    [
        (None, True, False, True),
        (None, False, False, False),
        (None, True, True, False),
        (True, False, True, True),
        (False, True, False, False),
    ],
)
def test_progress_is_shown_where_somebody_looks_on(choice, terminal, tested, shown, monkeypatch):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal)
    monkeypatch.setattr(progress, "Console", lambda **options: console)
    if not tested:
        monkeypatch.delenv("PYTEST_CURRENT_TEST")
    with choose_reporter(choice) as reporter:
        reporter.say("a line")
        reporter.task("a task")(1, 2, "steps")
    assert ("a line" in out.getvalue()) == shown


def test_a_notebook_has_a_bar_that_moves_and_goes(clock, monkeypatch):
    shown = []

    class Handle:
        def update(self, content):
            shown.append(content)

    def display(content, display_id):
        assert display_id is True
        shown.append(content)
        return Handle()

    module = types.SimpleNamespace(HTML=str, display=display)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(display=module))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    task = Reporter(Console(force_jupyter=True, file=io.StringIO())).task("<training>")
    for seconds, done in ((1, 1), (1.1, 2), (4, 4), (8, 8)):  # the second comes too soon
        clock[0] = seconds
        task(done, 8, "epochs")
    assert shown == [
        '<progress max="8" value="1"></progress> &lt;training&gt;: epochs 1/8, 7 s left',
        '<progress max="8" value="4"></progress> &lt;training&gt;: epochs 4/8, 4 s left',
        "",
    ]
    quiet = Reporter(Console(force_jupyter=True, file=io.StringIO()), quiet=True)
    quiet.task("training")(1, 2, "epochs")
    assert len(shown) == 3


def test_a_callback_gets_the_numbers_and_no_lines():
    calls = []
    with choose_reporter(lambda *call: calls.append(call)) as reporter:
        assert isinstance(reporter, CallbackReporter)
        reporter.say("a line")
        reporter.task("a task")(1, 2, "steps")
    assert calls == [(1, 2, "a task: steps")]
