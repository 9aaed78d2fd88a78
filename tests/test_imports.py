"""The rooms import one way, and what only measures stays light."""

import subprocess
import sys

import pytest

HEAVY = ["tensorflow_datasets", "tensorflow", "orbax", "matplotlib", "absl", "ml_collections"]


@pytest.mark.parametrize("room", ["graph", "measures", "matching"])
def test_measuring_and_matching_need_none_of_the_heavy_packages(room):
    blocked = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {[h for h in HEAVY if h != "absl"]!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import llfc_jax.{room}
above = ["networks", "data", "training", "report", "config", "experiment"]
print([m for m in above if "llfc_jax." + m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("room", "unknown"),
    [
        ("graph", ["measures", "matching", "networks", "data", "training", "report"]),
        ("networks", ["measures", "matching", "graph", "report", "data"]),
        ("data", ["measures", "matching", "graph", "report", "training"]),
        ("training", ["measures", "matching", "graph", "report"]),
        ("report", ["measures", "matching", "graph", "training", "data", "networks"]),
        ("matching", ["measures"]),
        ("measures", ["matching"]),
    ],
)
def test_rooms_know_only_what_is_below_them(room, unknown):
    code = (
        f"import sys, llfc_jax.{room}\n"
        f"print([m for m in {unknown!r} if 'llfc_jax.' + m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
