"""Files that are cut short, flipped, empty or something else: one line each, whatever is wrong."""

import gc
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from flax import serialization
from fuzz import EFFORT

from llfc_jax import load, save
from llfc_jax.checkpoints.files import READERS
from llfc_jax.errors import DataError

GOLDEN = Path(__file__).parent / "golden"
TREE = {"net": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.int32)}}
FORMS = ["safetensors", "npz", "packed.npz", "msgpack", "pt", "torch.pt", "onnx"]


def make(folder, form):
    path = folder / f"a.{form}"
    if form == "packed.npz":
        np.savez_compressed(path, **TREE["net"])
    elif form == "msgpack":
        path.write_bytes(serialization.to_bytes(TREE))
    elif form == "torch.pt":
        shutil.copy(GOLDEN / "state.pt", path)
    elif form == "onnx":
        onnx = pytest.importorskip("onnx")
        tensors = [onnx.numpy_helper.from_array(v, k) for k, v in TREE["net"].items()]
        graph = onnx.helper.make_graph([], "net", [], [], tensors)
        onnx.save(onnx.helper.make_model(graph), path)
    else:
        save(path, TREE)
    return path


def load_or_line(path):
    """What is loaded; None where one line says what is wrong. Anything else fails the test."""
    try:
        return load(path)
    except DataError as error:
        line = str(error)
        assert "\n" not in line
        assert str(path) in line
        assert len(line) < 500
        return None


@pytest.mark.parametrize("form", FORMS)
def test_every_cut_is_found(tmp_path, form):
    path = make(tmp_path, form)
    whole, tree = path.read_bytes(), load(path)
    places = np.unique(np.linspace(0, len(whole) - 1, int(40 * EFFORT)).astype(int))
    for place in places:
        path.write_bytes(whole[:place])
        found = load_or_line(path)
        if found is not None:  # of ONNX what stands behind the weights
            assert form == "onnx"
            assert str(found) == str(tree)


@pytest.mark.parametrize("form", FORMS)
def test_flipped_bits_and_foreign_bytes(tmp_path, form):
    path = make(tmp_path, form)
    whole, tree = path.read_bytes(), load(path)
    rng = np.random.default_rng(0)
    for _ in range(int(150 * EFFORT)):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 4)):
            damaged[place] ^= 1 << rng.integers(8)
        if rng.random() < 0.2:
            start = rng.integers(len(whole))
            damaged[start : start + rng.integers(9)] = rng.bytes(rng.integers(9))
        path.write_bytes(damaged)
        found = load_or_line(path)
        if found is not None and form not in ("safetensors", "msgpack", "onnx"):
            assert str(found) == str(tree)  # these have checksums


@pytest.mark.parametrize("ending", [*READERS, ".index.json"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"not weights", "."),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "run git lfs pull"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (bytes(200), "."),
    ],
)
def test_what_stands_in_place_of_weights(tmp_path, ending, content, words):
    path = tmp_path / f"a{ending}"
    with pytest.raises(DataError, match=rf"there is no .*a{ending}"):
        load(path)
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a{ending} cannot be read as {ending}: .*{words}"):
        load(path)


def test_unknown_kinds_are_named(tmp_path):
    (tmp_path / "weights.h5").write_bytes(b"x")
    with pytest.raises(DataError, match=r"weights\.h5 is a file of an unknown kind; known"):
        load(tmp_path / "weights.h5")


def test_headers_that_lie(tmp_path):
    path = tmp_path / "a.safetensors"

    def write(header, data=bytes(8)):
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)

    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    write({"a": entry})
    assert load(path)["a"].shape == (2,)
    for change, words in (
        ({"dtype": "F4"}, "type F4, for which JAX has none"),
        ({"shape": [3]}, "ends at byte"),
        ({"shape": [1]}, "does not fit"),
        ({"shape": [-2]}, "shape"),
        ({"shape": [2.0]}, "shape"),
        ({"data_offsets": [-8, 0]}, "does not fit|damaged"),
        ({"data_offsets": [0, 1 << 70]}, "does not fit"),
        ({"shape": [1], "data_offsets": [4, 8]}, "leave gaps"),
        ({"shape": [1], "data_offsets": [0, 4]}, "should be"),
    ):
        write({"a": entry | change})
        with pytest.raises(DataError, match=words):
            load(path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_orbax_checkpoints(tmp_path):
    import orbax.checkpoint as ocp

    for victim in ("_METADATA", "manifest.ocdbt", ".zarray", "d"):
        path = tmp_path / victim
        ocdbt = victim != ".zarray"
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt)) as writer:
            writer.save(path, TREE)
        for file in path.rglob("*"):
            if file.is_file() and victim in (file.name, file.parent.name):
                file.write_bytes(file.read_bytes()[:-3])
        assert load_or_line(path) is None
    time.sleep(0.2)  # reads that a failed one left behind end in warnings of Orbax's loop
    gc.collect()
