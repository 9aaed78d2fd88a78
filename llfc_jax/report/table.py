"""Tables for the terminal, for papers (LaTeX) and for notes (Markdown)."""

import re
import textwrap
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llfc_jax.report.html import cells, with_keys
from llfc_jax.report.numbers import KEYS, Rows, is_numeric

HEADING = 16  # characters, after which a heading goes on in a second line
BETWEEN = 3  # blanks between two columns
_LATEX = {c: f"\\{c}" for c in "#$%&_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
          "\\": r"\textbackslash{}", "±": r"$\pm$", "α": r"$\alpha$", "θ": r"$\theta$",
          "ε": r"$\varepsilon$", "×": r"$\times$", "≤": r"$\leq$", "–": "--"}  # fmt: skip
_LATEX_WORDS = {"1 - cosine_α": r"$1 - \cos_\alpha$", "1 - cosine_AB": r"$1 - \cos_{AB}$"}


def show(
    rows: Rows,
    columns: Mapping[str, str],
    *,
    title: str = "",
    spread: Mapping[str, str] | None = None,
    wide: bool = False,
    console: Console | None = None,
) -> None:
    """Prints a table: in blocks as wide as the terminal, or whole if `wide` or in a file or pipe.

    Args:
        rows: what to show; a missing cell is a dash.
        columns: column of the rows -> heading, in order. The columns that say what a row is of
            (run, pair, alignment, split, renormalisation) come first, named or not.
        title: a line above the table.
        spread: column -> column of its deviation; shown as value ± deviation.
        wide: whether to print all columns side by side.
        console: where to; standard output by default.
    """
    console = console or Console()
    width = None if wide or not console.is_terminal else console.width
    console.file.write(_print(rows, columns, title, spread or {}, width, console.is_terminal))


def render(
    rows: Rows,
    columns: Mapping[str, str],
    *,
    title: str = "",
    spread: Mapping[str, str] | None = None,
    width: int | None = None,
) -> str:
    """Returns a table as plain text, one line per row; in blocks where `width` is too narrow.

    No cell is ever cut or wrapped: the columns that do not fit follow in a block below, each row
    again with the columns that say what it is of. A single column may still be wider than `width`.
    """
    return _print(rows, columns, title, spread or {}, width, False)


def to_markdown(
    rows: Rows, columns: Mapping[str, str], spread: Mapping[str, str] | None = None
) -> str:
    """Returns a table in Markdown."""
    columns = with_keys(rows, columns)
    rule = ["---:" if is_numeric(rows, column) else "---" for column in columns]
    body = [_texts(rows, columns, spread or {}, i) for i in range(len(rows))]
    lines = [[h.replace("|", r"\|") for h in map(_line, columns.values())], rule]
    lines += [[cell.replace("|", r"\|") for cell in row] for row in body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def to_latex(
    rows: Rows, columns: Mapping[str, str], spread: Mapping[str, str] | None = None
) -> str:
    """Returns a `tabular` for LaTeX with the rules of the package booktabs."""
    columns = with_keys(rows, columns)
    sides = "".join("r" if is_numeric(rows, column) else "l" for column in columns)
    body = [_texts(rows, columns, spread or {}, i) for i in range(len(rows))]
    head, *lines = (
        " & ".join(map(_latex, line)) + r" \\" for line in [map(_line, columns.values()), *body]
    )
    parts = [f"\\begin{{tabular}}{{{sides}}}", r"\toprule", head, r"\midrule", *lines]
    return "\n".join([*parts, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex(text: str) -> str:
    """Returns a cell for LaTeX: numbers as mathematics, everything else escaped."""
    number = re.fullmatch(r"(-?)(\(?-?[\d.]+(?: ± [\d.]+)?\)?)(?:e(-?\d+))?", text)
    if number is None:
        parts = re.split("(" + "|".join(_LATEX_WORDS) + ")", text)
        return "".join(_LATEX_WORDS.get(p) or "".join(_LATEX.get(c, c) for c in p) for p in parts)
    power = "" if number[3] is None else rf" \times 10^{{{number[3]}}}"
    return "".join(["$", number[1], number[2].replace("±", r"\pm"), power, "$"])


def _print(
    rows: Rows,
    columns: Mapping[str, str],
    title: str,
    spread: Mapping[str, str],
    width: int | None,
    colour: bool,
) -> str:
    style = "standard" if colour else None
    console = Console(width=10_000, force_terminal=colour, color_system=style)
    with console.capture() as capture:
        if title:
            console.print(Text(_line(title), style="bold"))
        for i, block in enumerate(_blocks(rows, columns, spread, width)):
            console.print(*([""] if i else []), block, sep="\n")
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _texts(rows: Rows, columns: Mapping[str, str], spread: Mapping[str, str], i: int) -> list[str]:
    made = cells(rows[i], columns, spread)
    return [_line("; ".join(cell) if isinstance(cell, list) else cell) for cell in made]


def _blocks(
    rows: Rows, columns: Mapping[str, str], spread: Mapping[str, str], width: int | None
) -> list[Table]:
    """Returns the table in parts that fit a width; each begins with the columns of `KEYS`."""
    columns = with_keys(rows, columns)
    texts = [_texts(rows, columns, spread, i) for i in range(len(rows))]
    content = dict(zip(columns, zip(*texts, strict=True), strict=True)) if texts else {}
    wide = {c: max(map(len, content.get(c, ("",)))) for c in columns}
    heads = {c: _wrap(_line(h), max(HEADING, wide[c])) for c, h in columns.items()}
    wide = {c: max([wide[c], *map(len, heads[c])]) + BETWEEN for c in columns}
    names = [column for column in columns if column in KEYS]
    parts: list[list[str]] = [[]]
    for column in (c for c in columns if c not in KEYS):
        used = sum(wide[c] for c in (*names, *parts[-1], column)) - BETWEEN
        if width is not None and used > width and parts[-1]:
            parts.append([])
        parts[-1].append(column)
    return [_block(rows, [*names, *part], heads, content) for part in parts]


def _wrap(heading: str, width: int) -> list[str]:
    """Returns a heading in lines, which no minus sign begins or ends."""
    lines = textwrap.wrap(heading.replace(" - ", "\0-\0"), width, break_long_words=False)
    return [line.replace("\0", " ") for line in lines]


def _block(
    rows: Rows,
    columns: Sequence[str],
    heads: Mapping[str, list[str]],
    content: Mapping[str, Sequence[str]],
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        side = "right" if is_numeric(rows, column) else "left"
        table.add_column(
            Text("\n".join(heads[column])), justify=side, no_wrap=True, vertical="bottom"
        )
    for i, row in enumerate(rows):
        styles = ["yellow" if isinstance(row.get(c), (list, tuple)) else "" for c in columns]
        texts = zip(columns, styles, strict=True)
        table.add_row(*(Text(content[c][i], style=style) for c, style in texts))
    return table


def _line(text: str) -> str:
    """Returns the text on one line, without control characters that a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)
