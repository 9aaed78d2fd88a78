"""Safe HTML from plain values: whatever a name or a text holds, it is shown, never obeyed."""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jinja2
from markupsafe import Markup, escape

from llfc_jax.report.numbers import (
    KEYS,
    Row,
    Rows,
    clean,
    finite,
    format_spread,
    format_value,
    is_numeric,
)


def inline(text: object) -> Markup:
    """Returns one line of words with `code` in backticks."""
    text = clean(text).replace(" - ", "\xa0−\xa0").replace("α = ", "α\xa0=\xa0")  # on one line
    parts = text.split("`")
    if len(parts) % 2 == 0:  # an odd backtick out stays what it is
        parts[-2:] = ["`".join(parts[-2:])]
    coded = (f"<code>{escape(p)}</code>" if i % 2 else escape(p) for i, p in enumerate(parts))
    return Markup("".join(coded))


def sentence(text: str) -> str:
    """Returns a title as a sentence of its own, with a full stop unless it ends in a mark."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def prose(text: object) -> Markup:
    """Returns paragraphs, which blank lines part in the text."""
    paragraphs = re.split(r"\n\s*\n", str(text).strip())
    made = (f"<p>{inline(' '.join(p.split()))}</p>" for p in paragraphs if p.strip())
    return Markup("".join(made))


def with_keys(rows: Rows, columns: Mapping[str, str]) -> dict[str, str]:
    """Returns the columns after those of `KEYS` that the rows have, so that no row is nameless."""
    keys = {k: words for k, words in KEYS.items() if any(row.get(k) is not None for row in rows)}
    return {k: columns.get(k, words) for k, words in keys.items()} | {
        k: words for k, words in columns.items() if k not in keys
    }


def with_content(rows: Rows, columns: Mapping[str, str]) -> dict[str, str]:
    """Returns the columns in which any row holds something, as an error where the task has one."""
    return {
        column: words
        for column, words in columns.items()
        if any((cell := row.get(column)) is not None and cell == cell for row in rows)
    }


def cells(row: Row, columns: Iterable[str], spread: Mapping[str, str]) -> list[Any]:
    """Returns a row's cells in words: `value ± deviation` where `spread` names its column.

    A list of words stays one: flags.
    """
    made = []
    for column in columns:
        value: Any = row.get(column)
        deviation: Any = row.get(spread.get(column, ""))
        if isinstance(value, (list, tuple)) and value:
            made.append([format_value(part) for part in value])
        elif deviation is not None and value is not None:
            made.append(format_spread(finite(value), finite(deviation)))
        else:
            made.append(format_value(value))
    return made


def summary(verdicts: Iterable[Any], rows: Rows, columns: Mapping[str, str]) -> str:
    """Returns verdicts (texts, or objects with a `text`) and a table of rows, for a notebook."""
    texts = [getattr(verdict, "text", verdict) for verdict in verdicts]
    template = environment().from_string(
        "{% from 'table.html' import table %}"
        "<ul>{% for text in texts %}<li>{{ text | inline }}</li>{% endfor %}</ul>"
        "{{ table(rows, columns, 'Summary') }}"
    )
    return template.render(texts=texts, rows=rows, columns=with_keys(rows, columns))


@functools.cache
def environment() -> jinja2.Environment:
    """Returns the templates' environment: everything is escaped, control characters marked."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("llfc_jax.report", "assets"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda x: x if isinstance(x, (Markup, jinja2.Undefined)) else clean(x),
    )
    made.filters |= {"inline": inline, "prose": prose, "sentence": sentence}
    made.globals |= {"cells": cells, "is_numeric": is_numeric, "with_keys": with_keys}
    return made
