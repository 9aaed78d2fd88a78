"""Safe HTML from plain values: whatever a name or a text holds, it is shown, never obeyed."""

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llfc_jax.report import grammar

# What HTML forbids in a text, and the carriage return, which it changes.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def escape(value: Any) -> str:
    """Text for any place between tags or in a quoted attribute."""
    return html.escape(_CONTROL.sub("�", str(value)), quote=True)


def tag(name: str, *content: str, **attributes: str | bool | None) -> str:
    """An element around markup; attribute values are escaped, `class_` is class, `_` is a dash."""
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{escape(value)}"')
    return f"<{' '.join(parts)}>{''.join(content)}</{name}>"


def inline(text: str) -> str:
    """One line of words with `code` in backticks."""
    parts = str(text).split("`")
    if len(parts) % 2 == 0:  # an odd backtick out stays what it is
        parts[-2:] = ["`".join(parts[-2:])]
    return "".join(
        tag("code", escape(part)) if i % 2 else escape(part) for i, part in enumerate(parts)
    )


def prose(text: str) -> str:
    """Paragraphs parted by blank lines."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "".join(tag("p", inline(" ".join(p.split()))) for p in paragraphs if p.strip())


def table(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    caption: str,
    *,
    hidden_caption: bool = False,
) -> str:
    """A table that scrolls sideways where it must; its first column heads the rows."""
    numbers = {column: grammar.numeric(rows, column) for column in columns}
    head = "".join(
        tag("th", inline(heading), scope="col", class_="number" if numbers[column] else None)
        for column, heading in columns.items()
    )
    body = "".join(
        tag("tr", *(_cell(row.get(c), i == 0, numbers[c]) for i, c in enumerate(columns)))
        for row in rows
    )
    made = tag(
        "table",
        tag("caption", inline(caption), class_="hidden" if hidden_caption else None),
        tag("thead", tag("tr", head)),
        tag("tbody", body),
    )
    return tag("div", made, class_="scroll", role="region", tabindex="0", aria_label=caption)


def _cell(value: Any, heads: bool, number: bool) -> str:
    if isinstance(value, (list, tuple)) and value:
        shown = "".join(tag("span", escape(grammar.show(v)), class_="flag") for v in value)
    else:
        shown = escape(grammar.show(value))
    kind = "number" if number else None
    return tag("th", shown, scope="row") if heads else tag("td", shown, class_=kind)


def embed(value: Any) -> str:
    """JSON that may stand in a script element: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def columns_of(rows: Sequence[Mapping[str, Any]], wanted: Iterable[str]) -> dict[str, Any]:
    """The wanted columns, for JSON: numbers to six digits, what is no finite number null.

    A column that holds no number is {"names": [...], "codes": [...]}: many rows, few names.
    """

    def plain(cell: Any) -> Any:
        if isinstance(cell, bool) or cell is None:
            return cell
        if not grammar.is_number(cell):
            return str(cell)
        cell = grammar.number(cell)
        return None if cell != cell else float(f"{cell:.6g}")

    made: dict[str, Any] = {}
    for column in dict.fromkeys(wanted):
        cells = [plain(row.get(column)) for row in rows]
        if any(isinstance(cell, float) for cell in cells):
            made[column] = cells
        elif any(cell is not None for cell in cells):
            names = grammar.distinct(cells)
            place = {name: i for i, name in enumerate(names)}
            made[column] = {"names": names, "codes": [place[cell] for cell in cells]}
    return made
