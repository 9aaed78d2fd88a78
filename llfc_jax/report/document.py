"""The HTML file around a page's content: styles, script and data inside it, nothing fetched."""

import importlib.resources
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llfc_jax.io import write_text
from llfc_jax.report import markup, style
from llfc_jax.report.markup import escape, tag

SCRIPTS = ("grammar.js", "draw.js", "controls.js", "reader.js", "figure.js", "page.js")
READ_DATA = "const DATA = JSON.parse(document.getElementById('data').textContent);"


def write(
    path: str | os.PathLike[str],
    title: str,
    *,
    nav: Iterable[tuple[str, str]],
    main: str,
    data: Any,
) -> None:
    """Put a page's parts into one file, written whole or not at all.

    Args:
        path: the HTML file.
        title: of the document.
        nav: (identifier, words) of each section.
        main: markup of the content.
        data: what the script draws from.
    """
    assets = importlib.resources.files(__package__ or "llfc_jax.report") / "assets"
    css = _variables() + (assets / "page.css").read_text("utf-8")
    script = "".join((assets / name).read_text("utf-8") for name in SCRIPTS)
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    links = "".join(tag("li", tag("a", escape(text), href=f"#{name}")) for name, text in nav)
    bar = tag(
        "nav",
        tag("ul", links),
        tag("button", "Dark", type="button", id="theme", hidden=True),
        aria_label="Sections",
    )
    write_text(
        Path(path),
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}; img-src data:">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="data:,">\n'
        f"{tag('title', escape(title))}\n<style>\n{css}</style>\n</head>\n<body>\n"
        f"{tag('a', 'Skip to the results', class_='skip', href='#main')}\n{bar}\n"
        f"{tag('main', main, id='main')}\n"
        f'<script type="application/json" id="data">{markup.embed(data)}</script>\n'
        f"<script>\n(() => {{\n'use strict';\n{READ_DATA}\n{script}}})();\n</script>\n"
        "</body>\n</html>\n",
    )


def _variables() -> str:
    """The colours of both themes; the reader's choice wins over the system's."""
    colours = style.variables()
    light = "".join(f"--{name}:{pair[0]};" for name, pair in colours.items())
    dark = "".join(f"--{name}:{pair[1]};" for name, pair in colours.items())
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{"
        f":root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f"@media screen{{:root[data-theme=dark]{{color-scheme:dark;{dark}}}}}\n"
    )
