"""Tables for the terminal: ruled and coloured there, plain text in a log or a pipe."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llfc_jax.report import numbers as numbers_


def render(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    *,
    title: str = "",
    terminal: bool = False,
    width: int | None = None,
) -> str:
    """A table as text, one line per row.

    Args:
        rows: what to show; a missing cell is a dash.
        columns: column of the rows -> heading, in order.
        title: a line above the table.
        terminal: whether to colour and to fold to `width`; else plain and as wide as it needs.
        width: characters in a line; by default those of the terminal.
    """
    out = io.StringIO()
    if terminal:
        console = Console(file=out, force_terminal=True, width=width)
    else:
        console = Console(file=out, force_terminal=False, no_color=True, width=10_000)
    _print(console, rows, columns, title)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def show(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    *,
    title: str = "",
    console: Console | None = None,
) -> None:
    """Print a table to `console` (standard output): plain where that is no terminal."""
    console = console or Console()
    if console.is_terminal:
        _print(console, rows, columns, title)
    else:
        console.file.write(render(rows, columns, title=title))


def _print(
    console: Console, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], title: str
) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column, heading in columns.items():
        numbers = numbers_.is_numeric(rows, column)
        table.add_column(Text(_line(heading)), justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    if title:
        console.print(Text(_line(title), style="bold"))
    console.print(table)


def _cell(value: Any) -> Text:
    warning = isinstance(value, (list, tuple)) and len(value) > 0
    return Text(_line(numbers_.format_value(value)), style="yellow" if warning else "")


def _line(text: str) -> str:
    """On one line, and with no control characters that a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)
