"""Imports run one way, from the experiments down to the errors, and what only measures is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "llfc_jax"
# From the ground up: a room imports rooms of lower floors only. Rooms of one floor do not meet.
FLOORS = (
    {"errors", "version"},
    {"types", "io", "fields"},
    {"parallel", "pair", "progress", "frameworks"},
    {"graph", "report"},
    {"results", "symmetry", "networks", "data", "convert"},
    {"matching", "measures", "training"},
    {"experiments"},
    {"main", "__init__"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
HEAVY = ("tensorflow_datasets", "tensorflow", "orbax", "ml_collections", "grain", "altair",
         "vl_convert", "matplotlib", "pandas", "flax", "rich")  # fmt: skip


def room_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports():
    """Every import inside the package, also those in functions: (file, room, imported room)."""
    for file in sorted(PACKAGE.rglob("*.py")):
        own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llfc_jax"):
                if node.module == "llfc_jax":
                    for alias in node.names:
                        yield file.name, own, alias.name
                else:
                    yield file.name, own, room_of(node.module)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.startswith("llfc_jax."):
                        yield file.name, own, room_of(alias.name)


def test_every_room_has_a_floor():
    rooms = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix != ".typed"}
    assert rooms - {"__pycache__"} == FLOOR.keys()


def test_imports_run_down_only():
    wrong = {
        f"{room}/{file} imports {other}"
        for file, room, other in imports()
        if room not in (other, "__init__") and FLOOR[other] >= FLOOR[room]
    }
    assert not wrong


@pytest.mark.parametrize("room", ["graph", "symmetry", "measures", "matching"])
def test_what_measures_and_matches_imports_no_heavy_package(room):
    code = f"import sys, llfc_jax.{room}; print([m for m in {HEAVY!r} if m in sys.modules])"
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
