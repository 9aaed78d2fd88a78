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

# A user's two networks, in three frameworks with the same weights; each is studied in one call.
STUDIED = """
import equinox as eqx, jax, llfc_jax, numpy as np
from flax import linen, nnx
from llfc_jax import data

class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(3, name="out")(linen.relu(linen.Dense(8, name="hidden")(x)))

class Nnx(nnx.Module):
    def __init__(self, weights):
        self.hidden, self.out = (nnx.Linear(*k.shape, rngs=nnx.Rngs(0)) for k, _ in weights)
        for layer, (k, b) in zip((self.hidden, self.out), weights):
            layer.kernel[...], layer.bias[...] = k, b
    def __call__(self, x):
        return self.out(nnx.relu(self.hidden(x)))

def equinox(weights):
    places = lambda m: [p for layer in m.layers for p in (layer.weight, layer.bias)]
    new = [jax.numpy.asarray(p) for k, b in weights for p in (k.T, b)]
    return eqx.tree_at(places, eqx.nn.MLP(4, 3, 8, 1, key=jax.random.key(0)), new)

def variables(weights):
    named = zip(("hidden", "out"), weights)
    return {"params": {name: {"kernel": k, "bias": b} for name, (k, b) in named}}

rng = np.random.default_rng(0)
x = rng.normal(size=(60, 4)).astype("f4")
a, b = ([(rng.normal(size=s).astype("f4"), rng.normal(size=s[1]).astype("f4"))
         for s in ((4, 8), (8, 3))] for _ in "ab")
y = Linen().apply(variables(a), x).argmax(-1)
found = []
for network, mode in ((Linen(), variables), (Nnx(a), Nnx), (equinox(a), equinox)):
    study = llfc_jax.study(network, mode(a), mode(b), (x, y), measures=["lmc", "llfc"],
                           align=["none", "weight"], workdir=f"out/{len(found)}")
    found.append([[v for v in row.values() if isinstance(v, float)] for row in study.summary])
np.testing.assert_allclose(found, [found[0]] * 3, rtol=1e-3, atol=1e-5)
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


def test_three_frameworks_give_the_same_numbers_from_the_wheel_alone(wheel, tmp_path):
    pytest.importorskip("equinox")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
    env = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    (tmp_path / "work").mkdir()
    done = run(sys.executable, "-c", STUDIED, cwd=tmp_path / "work", env=env)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout
    assert "pair aligned by weight" in done.stdout
    assert (tmp_path / "work" / "out" / "2" / "report.html").stat().st_size > 50_000


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
