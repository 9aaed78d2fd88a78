"""Checkpoints in files are merged as trees in memory are."""

import json
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from llfc_jax.errors import DataError, MergeError
from llfc_jax.merging import MergeOptions, merge, merge_files

safetensors = pytest.importorskip("safetensors.numpy")
BF16 = np.dtype(ml_dtypes.bfloat16)


def make(seed, rows=10):
    rng = np.random.default_rng(seed)
    return {
        "embed.weight": rng.normal(size=(rows, 6)).astype(BF16),
        "layer.weight": rng.normal(size=(6, 6)).astype(np.float16),
        "layer.bias": rng.normal(size=6).astype(np.float32),
        "step": np.array([seed], np.int64),
        "scale": np.array(1.5 + seed, np.float32),
    }


def write(folder, tree, shards=2):
    folder.mkdir()
    places = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(tree.items())[i::shards])
        safetensors.save_file(part, folder / file)
        places |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def read(folder):
    return {k: v for file in sorted(folder.glob("*.safetensors"))
            for k, v in safetensors.load_file(file).items()}  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("mean", {}),
        ("ties", {"density": 0.4}),
        ("dare", {"seed": 3}),
        ("della", {}),
        ("karcher", {}),
        ("breadcrumbs", {}),
        ("task_arithmetic", {"scale": 0.3}),
    ],
)
def test_files_are_merged_as_trees_are(tmp_path, rule, options):
    trees = [make(seed) for seed in range(3)]
    # Shards need not be alike in all models.
    folders = [write(tmp_path / f"{i}", tree, i + 1) for i, tree in enumerate(trees)]
    out = merge_files(folders[1:], tmp_path / "out", rule, base=folders[0], **options)
    assert out == tmp_path / "out" / "model.safetensors.index.json"
    found, expected = read(tmp_path / "out"), merge(trees[1:], trees[0], rule, **options)
    assert set(found) == set(expected)
    for name, leaf in expected.items():
        assert found[name].dtype == trees[1][name].dtype
        np.testing.assert_array_equal(found[name], leaf)
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == sorted(file.name for file in folders[1].iterdir())
    index = json.loads(out.read_text())
    assert index["weight_map"] == json.loads((folders[1] / out.name).read_text())["weight_map"]
    assert index["metadata"]["total_size"] == sum(leaf.nbytes for leaf in found.values())


def test_one_file_and_options(tmp_path):
    small, large = make(0), make(1, rows=12)
    for name, tree in (("a", small), ("b", large)):
        safetensors.save_file(tree, tmp_path / f"{name}.safetensors")
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    options = MergeOptions(sizes="common", skip=("layer.bias",))
    seen = []
    out = merge_files(
        paths, tmp_path / "out", options=options, progress=lambda *at: seen.append(at)
    )
    found = safetensors.load_file(out)
    expected = merge([small, large], options=options)
    for name, leaf in expected.items():
        np.testing.assert_array_equal(found[name], leaf)
    assert [at[0] for at in seen] == [1, 2, 3, 4, 5]
    with pytest.raises(MergeError, match=r"embed\.weight has shape"):
        merge_files(paths, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_what_cannot_be_merged_is_refused_and_leaves_nothing(tmp_path):
    a = write(tmp_path / "a", make(0))
    for paths, out, options, words in (
        ([a, tmp_path / "gone"], "out", {}, "there is no"),
        ([a, a], "a", {}, "holds one of the models"),
        ([a, a], "out", {"rule": "fisher"}, "needs more than the leaves"),
        ([a, a], "out", {"rule": "greedy_soup", "evaluate": len}, "needs more than the leaves"),
        ([a, a], "out", {"rule": "ties"}, "pass base="),
    ):
        with pytest.raises((DataError, MergeError), match=words):
            merge_files(paths, tmp_path / out, **options)
    bad = make(1)
    bad["layer.weight"][0, 0] = np.nan
    b = write(tmp_path / "b", bad)
    with pytest.raises(MergeError, match=r"holds NaN or infinity at layer\.weight"):
        merge_files([a, b], tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("cut", [4, 60, -3])
def test_damaged_files_are_named(tmp_path, cut):
    safetensors.save_file(make(0), tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "b.safetensors").write_bytes(whole[:cut])
    with pytest.raises(DataError, match=r"b\.safetensors cannot be read as \.safetensors"):
        merge_files([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], tmp_path / "out")
    (tmp_path / "i.index.json").write_text("{}")
    with pytest.raises(DataError, match=r"cannot be read as \.index"):
        merge_files([tmp_path / "i.index.json"], tmp_path / "out")


MEMORY = """
import resource, sys
from llfc_jax.merging import merge_files
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
tiny, models, base, out, rule = sys.argv[1], sys.argv[2:4], sys.argv[4], sys.argv[5], sys.argv[6]
merge_files([tiny, tiny], out + "0", rule, base=tiny)
before = peak()
merge_files(models, out, rule, base=base)
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_is_a_leaf_of_each_model_and_not_a_file(tmp_path):
    leaf = np.random.default_rng(0).normal(size=(512, 1024)).astype(np.float32)  # 2 MB
    trees = [{f"{i}": leaf + k for i in range(40)} for k in range(3)]
    folders = [write(tmp_path / f"{i}", tree, 2) for i, tree in enumerate(trees)]
    tiny = write(tmp_path / "tiny", make(0))
    arguments = [*map(str, (tiny, *folders[1:], folders[0], tmp_path / "out")), "ties"]
    done = subprocess.run([sys.executable, "-c", MEMORY, *arguments], capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.5 * 40  # megabytes, of a file
