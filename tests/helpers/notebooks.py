"""Keeps the notebooks' two files, and the repository's address wherever it stands, in step.

    python tests/helpers/notebooks.py            # copies cells and address into all files
    python tests/helpers/notebooks.py --execute  # also runs the notebooks and stores their outputs

The address stands in one place, `[project.urls] Repository` in pyproject.toml. From there it goes
into the first cell of each notebook, into its Colab badge (if it is on GitHub), and into
the lines that install the package in the README and the documentation. Until it is set, these lines
install a checkout.
"""

import re
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS = tuple(sorted((ROOT / "notebooks").glob("*.py")))
PAGES = (ROOT / "README.md", ROOT / "docs" / "index.md")
SECONDS = 600  # that a cell may take
UNSET = "  # not published yet: an address such as https://github.com/OWNER/llfc_jax"
RENDERER = "import altair\naltair.renderers.enable('png', scale_factor=1.5)"

ADDRESS = re.compile(r"^REPOSITORY = .*$", re.MULTILINE)
BADGE = re.compile(r"^# \[!\[Open in Colab\].*\n#\n", re.MULTILINE)
FIRST_CELL = re.compile(r"^# %% \[markdown\]\n", re.MULTILINE)
INSTALL = re.compile(r"(?<=<!-- install -->\n```bash\n).*?(?=\n```)", re.DOTALL)
WORDS = re.compile(r"(In a checkout of this repository|From its repository)(?=:\n\n<!-- install)")


def read_address() -> str:
    """Returns the repository's address from pyproject.toml; empty until it is set."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "")


def badge(name: str, address: str) -> str:
    """Returns the lines of a notebook's Colab badge; none for other places than GitHub."""
    repository = re.fullmatch(r"https://github\.com/([^/]+/[^/]+?)(\.git)?/?", address)
    if not repository:
        return ""
    image = "https://colab.research.google.com/assets/colab-badge.svg"
    colab = "https://colab.research.google.com/github"
    page = f"{colab}/{repository[1]}/blob/main/notebooks/{name}.ipynb"
    return f"# [![Open in Colab]({image})]({page})\n#\n"


def with_address(path: Path, text: str, address: str) -> str:
    """Returns the text of a page, or of a notebook's script, with the address in its places."""
    if path.suffix == ".md":
        words = "From its repository" if address else "In a checkout of this repository"
        command = f"pip install 'git+{address}'" if address else "pip install ."
        return INSTALL.sub(lambda _: command, WORDS.sub(words, text))
    line = f'REPOSITORY = "{address}"' + ("" if address else UNSET)
    text = ADDRESS.sub(lambda _: line, BADGE.sub("", text))
    return FIRST_CELL.sub(lambda m: m[0] + badge(path.stem, address), text, count=1)


def find_outdated(address: str) -> Iterator[Path]:
    """Yields the files that hold another address."""
    for path in (*PAGES, *NOTEBOOKS):
        text = path.read_text("utf-8")
        if with_address(path, text, address) != text:
            yield path


def copy_cells(path: Path) -> None:
    """Writes a script's cells into its .ipynb; outputs stay where the code is the same."""
    script, target = jupytext.read(path), path.with_suffix(".ipynb")
    old = jupytext.read(target).cells if target.exists() else []
    outputs = {cell.source: cell.get("outputs", []) for cell in old}
    for cell in script.cells:
        if cell.cell_type == "code":
            cell.outputs = outputs.get(cell.source, [])
    jupytext.write(script, target)


def execute(path: Path) -> None:
    """Runs a notebook in an empty folder and stores what it shows, charts as pictures."""
    import nbclient

    target = path.with_suffix(".ipynb")
    notebook = jupytext.read(target)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(RENDERER))
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        client = nbclient.NotebookClient(notebook, timeout=SECONDS, resources=where)
        client.execute()
    del notebook.cells[0]
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = None
    jupytext.write(notebook, target)


def main() -> None:
    """Does what the command line asks for."""
    address = read_address()
    for path in (*PAGES, *NOTEBOOKS):
        path.write_text(with_address(path, path.read_text("utf-8"), address), "utf-8")
    for path in NOTEBOOKS:
        copy_cells(path)
        if "--execute" in sys.argv and (len(sys.argv) == 2 or path.stem in sys.argv):
            print(path.stem)
            execute(path)


if __name__ == "__main__":
    main()
