"""A saved figure as an element of the page: its own identifiers, the page's colours, no ballast."""

import re
from collections.abc import Mapping
from xml.etree import ElementTree

from llfc_jax.report import style
from llfc_jax.report.markup import escape

_COLOURS = {light: f"var(--{name})" for name, (light, _) in style.variables().items()}
_REFERENCE = re.compile(r"(?:^|url\()#([\w.-]+)\)?")


def inline(svg: str, prefix: str, label: str) -> str:
    """The text of one of our SVG files as an `svg` element for a page.

    Args:
        svg: the file's text.
        prefix: of every identifier, so that many pictures can share a page.
        label: what the picture shows, for those who do not see it.
    """
    root = ElementTree.fromstring(svg)
    used = {style.HEADING: f"{prefix}-{style.HEADING}"}
    for element in root.iter():
        for value in element.attrib.values():
            for name in _REFERENCE.findall(value):
                used.setdefault(name, f"{prefix}-{len(used)}")
    inner = "".join(_markup(child, used) for child in root)
    view = escape(root.get("viewBox", ""))
    return f'<svg viewBox="{view}" role="img" aria-label="{escape(label)}">{inner}</svg>'


def _markup(element: ElementTree.Element, used: Mapping[str, str]) -> str:
    name = _local(element.tag)
    if name in ("metadata", "style"):  # a style element would hold for the whole page
        return ""
    attributes = ""
    for key, value in element.attrib.items():
        if key != "id":
            attributes += f' {_local(key)}="{escape(_value(_local(key), value, used))}"'
        elif value in used:
            attributes += f' id="{used[value]}"'
    text = (element.text or "") if name == "text" else ""
    content = escape(text) + "".join(_markup(child, used) for child in element)
    if name == "g" and (not attributes or not content):
        return content
    return f"<{name}{attributes}>{content}</{name}>" if content else f"<{name}{attributes}/>"


def _local(name: str) -> str:
    """A name without its namespace: HTML knows what belongs to SVG."""
    return name.rpartition("}")[2]


def _value(key: str, value: str, used: Mapping[str, str]) -> str:
    if key in ("href", "clip-path"):
        return _REFERENCE.sub(lambda m: m[0].replace(m[1], used[m[1]]), value)
    if key == "style":
        value = _REFERENCE.sub(lambda m: m[0].replace(m[1], used[m[1]]), value)
        value = re.sub(r"#[0-9a-f]{6}\b", lambda m: _COLOURS.get(m[0], m[0]), value)
        return value.replace(f"'{style.FONT}', sans-serif", "system-ui, sans-serif")
    rounded = re.sub(r"-?\d+\.\d{2,}", lambda m: f"{float(m[0]):.2f}", value)
    return " ".join(rounded.split())
