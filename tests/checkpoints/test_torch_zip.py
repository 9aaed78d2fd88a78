"""PyTorch's files without PyTorch: made by it (`make_torch_files.py`), and by hand."""

import json
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from llfc_jax import load
from llfc_jax.errors import DataError

GOLDEN = Path(__file__).parent / "golden"
GRID = np.arange(12, dtype=np.float32).reshape(3, 4)
EXPECTED = {
    "plain": GRID + 0.5,
    "transposed": GRID.T,
    "shared": GRID.T,
    "part": GRID[1:, ::2],
    "parameter": GRID[0] * 2,
    "half": GRID.astype(np.float16),
    "bfloat16": GRID.astype(ml_dtypes.bfloat16),
    "float8": GRID.astype(ml_dtypes.float8_e4m3fn),
    "whole": GRID.astype(np.int64),
    "flags": GRID > 5,
    "scalar": np.array(7),
    "empty": np.zeros((0, 3), np.float32),
    "complex": (GRID - 1j * GRID).astype(np.complex64),
}


@pytest.mark.parametrize("name", ["state.pt", "protocol4.pt"])
def test_tensors_of_every_kind(name):
    found = load(GOLDEN / name)
    assert found.keys() == EXPECTED.keys()
    for key, array in EXPECTED.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)
        assert found[key].dtype == array.dtype
        assert found[key].shape == array.shape


def test_state_dicts_within_others_and_beside_anything():
    found = load(GOLDEN / "nested.pt")
    np.testing.assert_array_equal(found["encoder"]["w"], EXPECTED["plain"])
    np.testing.assert_array_equal(found["decoder"]["w"], EXPECTED["half"])
    stored = json.loads((GOLDEN / "training.json").read_text())
    found = load(GOLDEN / "training.pt")  # beside an optimizer, and a class that is not there
    for name, values in stored.items():
        module, _, leaf = name.partition(".")
        np.testing.assert_array_equal(found[module][leaf], np.array(values, np.float32))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("module.pt", "a torch.nn.modules.container.Sequential; save model.state_dict()"),
        ("script.pt", "a TorchScript program; save model.state_dict()"),
        ("legacy.pt", "written before PyTorch 1.6"),
    ],
)
def test_what_is_no_state_dict(name, words):
    with pytest.raises(DataError, match=rf"{name} cannot be read as \.pt: .*{words}"):
        load(GOLDEN / name)


class Bomb:
    """Runs when Python unpickles it."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('boom')",))


def archive(path, content, **others):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", pickle.dumps(content, 2))
        for name, data in others.items():
            file.writestr(f"x/{name}", data)


def test_nothing_in_a_pickle_runs(tmp_path):
    archive(tmp_path / "a.pt", {"bomb": Bomb(), 3: "x"})
    with pytest.raises(SystemExit, match="boom"), zipfile.ZipFile(tmp_path / "a.pt") as file:
        pickle.loads(file.read("x/data.pkl"))
    with pytest.raises(DataError, match=r"'bomb' is a (builtins|__builtin__)\.exec"):
        load(tmp_path / "a.pt")
    np.savez(tmp_path / "a.npz", weights=np.array([Bomb()], dtype=object))
    with pytest.raises(DataError, match=r"a\.npz cannot be read as \.npz: .*no type of numbers"):
        load(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("content", "others", "words"),
    [
        ([1, 2], {}, "holds a list"),
        ({"epoch": 3}, {}, "'epoch' is a int"),
        ({}, {"byteorder": "big"}, "big-endian"),
        ({}, {}, "holds no arrays"),
    ],
)
def test_other_contents(tmp_path, content, others, words):
    archive(tmp_path / "a.bin", content, **others)
    with pytest.raises(DataError, match=words):
        load(tmp_path / "a.bin")


def test_a_zip_of_something_else(tmp_path):
    np.savez(tmp_path / "a.npz", a=GRID)
    (tmp_path / "a.npz").rename(tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"without PyTorch's data\.pkl"):
        load(tmp_path / "a.pt")
