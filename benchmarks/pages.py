"""Tables in pages: what stands between `<!-- NAME -->` and the next `<!-- end -->`."""

import sys
from pathlib import Path

END = "<!-- end -->"


def write_table(path: Path, name: str, text: str) -> None:
    """Writes a text between the marks of a page; see `rebuild`."""
    path.write_text(rebuild(path.read_text("utf-8"), name, text), encoding="utf-8")


def rebuild(page: str, name: str, text: str) -> str:
    """Returns a page with a text between its marks.

    Raises:
        SystemExit: the page lacks them.
    """
    mark = f"<!-- {name} -->"
    before, found, rest = page.partition(mark)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        sys.exit(f"the page needs the lines {mark} and {END}, between which the text is written")
    return f"{before}{mark}\n\n{text.strip()}\n\n{END}{after}"
