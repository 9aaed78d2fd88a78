"""Every notebook runs from beginning to end, and what must agree between files agrees."""

import types

import pytest

jupytext = pytest.importorskip("jupytext", reason="needs the extra notebooks")
import notebooks  # noqa: E402
from notebooks import NOTEBOOKS, PAGES  # noqa: E402

GITHUB = "https://github.com/someone/llfc_jax"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_two_files_of_a_notebook_agree(path):
    script, notebook = jupytext.read(path), jupytext.read(path.with_suffix(".ipynb"))
    assert [(c.cell_type, c.source) for c in script.cells] == [
        (c.cell_type, c.source) for c in notebook.cells
    ]
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    assert any("image/png" in out.get("data", {}) for out in outputs)
    assert not [out for out in outputs if out.output_type == "error"]
    assert "/root" not in str(outputs)
    assert "/tmp" not in str(outputs)


def test_the_address_is_that_of_pyproject_everywhere():
    changed = [path.name for path in notebooks.find_outdated(notebooks.read_address())]
    assert not changed, "run: python tests/helpers/notebooks.py"


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.name)
def test_an_address_that_is_set_goes_everywhere_and_comes_out_again(path):
    text = path.read_text("utf-8")
    published = notebooks.with_address(path, text, GITHUB)
    if path.suffix == ".md":
        assert f"pip install 'git+{GITHUB}'" in published
        assert "In a checkout" not in published
    else:
        assert f'REPOSITORY = "{GITHUB}"\n' in published
        assert f"github/someone/llfc_jax/blob/main/notebooks/{path.stem}.ipynb" in published
    moved = notebooks.with_address(path, published, "https://example.org/llfc_jax.git")
    assert GITHUB not in moved
    assert "colab-badge" not in moved
    assert notebooks.with_address(path, published, notebooks.read_address()) == text


def first_code(path):
    return next(cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code")


def test_all_notebooks_install_with_the_same_cell():
    assert len({first_code(path) for path in NOTEBOOKS}) == 1


def install(folder, monkeypatch, repository=""):
    """Runs the first cell where llfc_jax is missing; returns what it would install."""
    cell = first_code(NOTEBOOKS[0]).replace('REPOSITORY = ""', f'REPOSITORY = "{repository}"')
    *lines, magic = cell.splitlines()
    assert magic.strip() == "%pip install -q {source} {pinned}"
    monkeypatch.chdir(folder)
    specs = {"llfc_jax": None, "jax": True}
    monkeypatch.setattr("importlib.util.find_spec", specs.get)
    scope = {}
    exec("\n".join(lines), scope)
    return types.SimpleNamespace(**scope)


def test_the_first_cell_installs_the_checkout_it_lies_in_and_keeps_jax(tmp_path, monkeypatch):
    import jax

    (tmp_path / "llfc_jax").mkdir()
    (tmp_path / "llfc_jax" / "version.py").touch()
    (tmp_path / "notebooks").mkdir()
    made = install(tmp_path / "notebooks", monkeypatch, GITHUB)
    assert made.source == str(tmp_path)
    assert made.pinned == f"jax=={jax.__version__}"


def test_the_first_cell_installs_from_the_address_or_says_what_to_set(tmp_path, monkeypatch):
    made = install(tmp_path, monkeypatch, GITHUB)
    assert made.source == f"git+{GITHUB}"
    if not notebooks.read_address():
        with pytest.raises(ImportError, match="set REPOSITORY above"):
            install(tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Jupyter's own
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="needs the extra notebooks")
    pytest.importorskip("ipykernel", reason="needs the extra notebooks")
    monkeypatch.setenv("LLFC_TINY", "1")
    notebook = jupytext.read(path)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    shown = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    assert any("vega" in str(out.get("data", {})) for out in shown)
