"""The wheel and the source distribution: what they hold; they work without the repository."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow

TEN_LINES = """
import jax, llfc_jax
from llfc_jax import data

x = jax.random.normal(jax.random.key(0), (60, 4))
def apply(w, x):
    return jax.nn.relu(x @ w["in"]) @ w["out"]
a, b = ({"in": jax.random.normal(k, (4, 8)), "out": jax.random.normal(k, (8, 3))}
        for k in jax.random.split(jax.random.key(1)))
study = llfc_jax.study(apply, a, b, (x, apply(a, x).argmax(-1)), measures=["lmc", "llfc"],
                       align=["none", "weight"], workdir="out")
print(study, data.load("digits").name, llfc_jax.__file__, sep="\\n")
"""


def run(*command, **kwargs):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, **kwargs)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    done = run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
    if "hatchling" in done.stderr:
        pytest.skip("pip cannot fetch hatchling here")
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    tracked = run("git", "ls-files", "llfc_jax", cwd=ROOT)
    if tracked.returncode:
        pytest.skip("no git repository")
    with zipfile.ZipFile(wheel) as file:
        held = {n for n in file.namelist() if ".dist-info/" not in n}
        assert set(tracked.stdout.split()) <= held
        assert {name.partition("/")[0] for name in held} == {"llfc_jax"}
        for asset in ("py.typed", "data/digits.npz", "report/assets/page.css"):
            assert f"llfc_jax/{asset}" in held
        (metadata,) = (n for n in file.namelist() if n.endswith("METADATA"))
        assert "License-Expression: MIT" in file.read(metadata).decode()


def test_ten_lines_run_from_the_wheel_alone(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
    env = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    (tmp_path / "work").mkdir()
    done = run(sys.executable, "-c", TEN_LINES, cwd=tmp_path / "work", env=env)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout
    assert "pair aligned by weight" in done.stdout
    assert (tmp_path / "work" / "out" / "report.html").stat().st_size > 50_000


def test_the_source_distribution_is_whole(tmp_path):
    hatchling = pytest.importorskip("hatchling.build")
    here = Path.cwd()
    try:
        os.chdir(ROOT)
        name = hatchling.build_sdist(str(tmp_path))
    finally:
        os.chdir(here)
    with tarfile.open(tmp_path / name) as file:
        names = {n.partition("/")[2] for n in file.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "llfc_jax/py.typed"} <= names
