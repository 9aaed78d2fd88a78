"""How a run was made, as tables: config, versions, device, seed."""

from collections.abc import Mapping
from typing import Any

from llfc_jax.report import markup
from llfc_jax.report.markup import escape, tag


def section(details: Mapping[str, Any]) -> str:
    """The last section of a page: single values in one table, nested ones folded away."""
    plain = {k: v for k, v in details.items() if not isinstance(v, Mapping)}
    nested = {k: v for k, v in details.items() if isinstance(v, Mapping)}
    columns = {"name": "setting", "value": "value"}
    tables = [markup.table(flat(plain), columns, "How this was made")] if plain else []
    tables += [
        tag(
            "details",
            tag("summary", escape(name)),
            markup.table(flat(values), columns, f"{name}: every value"),
        )
        for name, values in nested.items()
    ]
    words = tag("div", tag("h2", "Details"), class_="words")
    return tag("section", words, tag("div", *tables, class_="figures"), id="details")


def flat(values: Mapping[str, Any], before: str = "") -> list[dict[str, str]]:
    """Nested settings as rows with dotted names; lists as they are written in Python."""
    rows = []
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping) and value:
            rows += flat(value, f"{name}.")
        else:
            text = value if isinstance(value, str) and value else repr(value)
            rows.append({"name": name, "value": text})
    return rows
