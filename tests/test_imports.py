"""Imports run one way, from the experiments down to the errors, and what only measures is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "llfc_jax"
# From the ground up: a part imports parts of lower floors only. Rooms of one floor do not meet.
FLOORS = (
    {"errors", "version"},
    {"types", "io", "fields"},
    {"parallel", "pair", "progress", "tasks"},
    {"checkpoints"},
    {"frameworks"},
    {"graph", "report"},
    {"results", "symmetry", "networks", "data", "convert"},
    {"matching", "measures", "training"},
    {"merging"},
    {"experiments", "landscape", "arguments"},
    {"main", "__init__"},
)
FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
HEAVY = ("tensorflow_datasets", "tensorflow", "orbax", "ml_collections", "grain", "altair",
         "vl_convert", "matplotlib", "pandas", "flax", "rich")  # fmt: skip


def part_of(module):
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def imports():
    """Every import inside the package, also those in functions: (file, part, imported part)."""
    for file in sorted(PACKAGE.rglob("*.py")):
        own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llfc_jax"):
                if node.module == "llfc_jax":
                    for alias in node.names:
                        yield file.name, own, alias.name
                else:
                    yield file.name, own, part_of(node.module)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.startswith("llfc_jax."):
                        yield file.name, own, part_of(alias.name)


def test_every_part_has_a_floor():
    parts = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix != ".typed"}
    assert parts - {"__pycache__"} == FLOOR.keys()


def test_imports_run_down_only():
    wrong = {
        f"{part}/{file} imports {other}"
        for file, part, other in imports()
        if part not in (other, "__init__") and FLOOR[other] >= FLOOR[part]
    }
    assert not wrong


@pytest.mark.parametrize("part", ["graph", "symmetry", "measures", "matching"])
def test_what_measures_and_matches_imports_no_heavy_package(part):
    code = f"import sys, llfc_jax.{part}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_a_run_imports_what_is_slow_only_where_it_is_used():
    slow = ("tensorflow_datasets", "tensorflow", "orbax.checkpoint", "grain", "altair",
            "vl_convert", "matplotlib", "pandas", "scipy.stats", "scipy.optimize", "scipy.linalg",
            "IPython")  # fmt: skip
    code = f"import sys, llfc_jax.experiments.run; print([m for m in {slow!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_package_alone_imports_nothing_and_names_everything():
    code = (
        "import sys, llfc_jax\n"
        "assert 'jax' not in sys.modules, 'jax'\n"
        "assert {'study', 'Study', 'Network', 'compare', 'measures'} <= set(dir(llfc_jax))\n"
        "for name in dir(llfc_jax): getattr(llfc_jax, name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
