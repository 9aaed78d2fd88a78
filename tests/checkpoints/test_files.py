"""Weights to files and back: the same numbers from every format, in any tree."""

import json
import zipfile

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx, serialization
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from llfc_jax import load, networks, save
from llfc_jax.errors import DataError, LlfcError, ModeError

rng = np.random.default_rng(0)
FLAT = {
    "net.fc1.weight": rng.normal(size=(3, 4)).astype(np.float32),
    "net.fc1.bias": rng.normal(size=4).astype(np.float16),
    "net.scale": rng.normal(size=(2, 3, 5)),
    "steps": np.array(7),
    "mask": np.array([True, False]),
    "codes": np.arange(-3, 3, dtype=np.int8),
}
NARROW = {
    "bf16": rng.normal(size=(3, 2)).astype(ml_dtypes.bfloat16),
    "f8": np.arange(5).astype(ml_dtypes.float8_e4m3fn),
    "f8_e5m2": np.arange(5).astype(ml_dtypes.float8_e5m2),
}
TREE = {
    "net": {
        "fc1": {"weight": FLAT["net.fc1.weight"], "bias": FLAT["net.fc1.bias"]},
        "scale": FLAT["net.scale"],
    },
    **{name: FLAT[name] for name in ("steps", "mask", "codes")},
}
SLASHED = {name.replace(".", "/"): array for name, array in FLAT.items()}


def theirs(folder, name):
    """The same weights as the packages that own the formats write them."""
    path = folder / name
    if name.endswith(".safetensors"):
        pytest.importorskip("safetensors.numpy").save_file(FLAT | NARROW, path)
    elif name == "packed.npz":
        np.savez_compressed(path, **FLAT)
    elif name.endswith(".npz"):
        np.savez(path, **SLASHED)
    elif name.endswith(".msgpack"):
        path.write_bytes(serialization.to_bytes(TREE | NARROW))
    elif name.endswith(".onnx"):
        onnx = pytest.importorskip("onnx")
        typed = {"float_data": onnx.TensorProto.FLOAT, "int32_data": onnx.TensorProto.INT32}
        raw = [onnx.numpy_helper.from_array(array, name) for name, array in FLAT.items()]
        raw += [onnx.numpy_helper.from_array(array, name) for name, array in NARROW.items()]
        raw += [
            onnx.helper.make_tensor(name, kind, (2, 2), [1, -2, 3, 4])
            for name, kind in typed.items()
        ]
        graph = onnx.helper.make_graph([], "net", [], [], raw)
        onnx.save(onnx.helper.make_model(graph), path)
    else:
        import orbax.checkpoint as ocp

        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=name == "ocdbt")) as writer:
            writer.save(path.absolute(), TREE)
    return path


def same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for name, one, other in zip(
        jax.tree_util.tree_leaves_with_path(expected),
        jax.tree.leaves(found),
        jax.tree.leaves(expected),
        strict=True,
    ):
        assert one.dtype == other.dtype, name
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "name",
    ["a.safetensors", "a.npz", "packed.npz", "a.msgpack", "a.onnx", "ocdbt", "zarr"],
)
def test_every_format_gives_the_same_tree(tmp_path, name):
    found = load(theirs(tmp_path, name))
    for extra in ("float_data", "int32_data"):
        if name == "a.onnx":
            assert found.pop(extra).tolist() == [[1, -2], [3, 4]]
    narrow = NARROW if name in ("a.safetensors", "a.msgpack", "a.onnx") else {}
    same(found, TREE | narrow)


ENDINGS = ["npz", "safetensors", "msgpack", "pt"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_written_comes_back(tmp_path, ending):
    path = tmp_path / "sub" / f"a.{ending}"
    save(path, TREE)
    same(load(path), TREE)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    save(path, FLAT)  # names of a state dict are kept, and replaced files leave no trace
    same(load(path), TREE)
    save(path, {"a": NARROW["bf16"]})
    same(load(path), {"a": NARROW["bf16"]})


def test_types_that_a_format_lacks_are_named(tmp_path):
    for ending, array in (("npz", NARROW["f8"]), ("safetensors", np.zeros(2, np.complex128)),
                          ("pt", np.zeros(2, np.uint32))):  # fmt: skip
        with pytest.raises(DataError, match=rf"a\.{ending}: x is {array.dtype}"):
            save(tmp_path / f"a.{ending}", {"x": array})
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ENDINGS)
def test_arrays_lie_in_the_file(tmp_path, ending):
    """Nothing but what is used is read, and nothing can be written by accident."""
    save(tmp_path / f"a.{ending}", TREE)
    for leaf in jax.tree.leaves(load(tmp_path / f"a.{ending}")):
        root = leaf
        while isinstance(root, np.ndarray) and not isinstance(root, np.memmap):
            root = root.base
        assert isinstance(root, np.memmap)
        assert not leaf.flags.writeable


def test_packages_read_what_is_written(tmp_path):
    stored = pytest.importorskip("safetensors.numpy")
    save(tmp_path / "a.safetensors", FLAT)
    found = stored.load_file(tmp_path / "a.safetensors")
    assert all((found[name] == array).all() for name, array in FLAT.items())
    torch = pytest.importorskip("torch")
    save(tmp_path / "a.pt", FLAT)
    found = torch.load(tmp_path / "a.pt", weights_only=True)
    assert all((found[name].numpy() == array).all() for name, array in FLAT.items())


def test_columns_and_foreign_byte_order(tmp_path):
    by_column = np.asfortranarray(rng.normal(size=(3, 4)))
    np.savez(tmp_path / "a.npz", a=by_column, b=np.arange(3, dtype=">i4"))
    found = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(found["a"], by_column)
    assert found["b"].tolist() == [0, 1, 2]
    assert found["b"].dtype.isnative


def test_large_leaves_of_flax_come_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 16)
    (tmp_path / "a.msgpack").write_bytes(serialization.to_bytes(TREE))
    same(load(tmp_path / "a.msgpack"), TREE)


def test_onnx_with_its_weights_in_another_file(tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(theirs(tmp_path, "a.onnx"))
    onnx.save(
        model, tmp_path / "b.onnx", save_as_external_data=True, size_threshold=0, location="w"
    )
    found = load(tmp_path / "b.onnx")
    same({name: found[name] for name in TREE}, TREE)
    (tmp_path / "w").unlink()
    with pytest.raises(DataError, match="data file w is not beside it"):
        load(tmp_path / "b.onnx")


def linen_tree():
    x = jnp.ones((2, 8, 8, 1))
    return networks.build("mlp", 10, widths=(5, 4)).init(jax.random.key(0), x)


def nnx_tree():
    return nnx.state(nnx.Linear(3, 4, rngs=nnx.Rngs(0)))


def equinox_tree():
    return eqx.filter(eqx.nn.MLP(3, 2, 4, 2, key=jax.random.key(0)), eqx.is_array)


@pytest.mark.parametrize("make", [linen_tree, nnx_tree, equinox_tree])
@pytest.mark.parametrize("name", [*(f"a.{ending}" for ending in ENDINGS), "checkpoint"])
def test_trees_of_any_framework_come_back_as_they_were(tmp_path, make, name):
    tree = make()
    save(tmp_path / name, tree)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
    for like in (jax.tree.map(jnp.zeros_like, tree), shapes):
        same(load(tmp_path / name, like=like), tree)


@pytest.mark.parametrize("name", ["a.npz", "checkpoint"])
def test_leaves_are_placed_as_the_given_trees(tmp_path, name):
    mesh = jax.make_mesh((1,), ("fsdp",))
    to = NamedSharding(mesh, P("fsdp"))
    save(tmp_path / name, {"k": np.arange(8, dtype=np.float32)})
    like = {"k": jax.ShapeDtypeStruct((8,), np.float32, sharding=to)}
    found = load(tmp_path / name, like=like)["k"]
    assert found.sharding == to
    np.testing.assert_array_equal(found, np.arange(8))


def test_parameters_alone_fit_variables(tmp_path):
    tree = linen_tree()
    save(tmp_path / "a.npz", tree["params"])
    same(load(tmp_path / "a.npz", like=tree), tree)


def test_weights_of_another_network(tmp_path):
    tree = {"dense": {"kernel": np.eye(3), "bias": np.ones(3)}}
    save(tmp_path / "a.npz", tree)
    for like, words in (
        ({"dense": {"kernel": np.eye(3)}}, "only one of the two has dense/bias"),
        ({"dense": {"kernel": np.eye(2), "bias": np.ones(3)}}, r"shape \(3, 3\), not \(2, 2\)"),
        ({"dense": {"kernel": np.eye(3, dtype=int), "bias": np.ones(3)}}, "float64 there, not int"),
    ):
        with pytest.raises(ModeError, match=words):
            load(tmp_path / "a.npz", like=like)
    (tmp_path / "b.npz").mkdir()
    with pytest.raises(LlfcError, match="is a directory"):
        save(tmp_path / "b.npz", tree)


def test_the_file_is_plain(tmp_path):
    save(tmp_path / "a.npz", FLAT)
    with zipfile.ZipFile(tmp_path / "a.npz") as file:
        assert {name.removesuffix(".npy") for name in file.namelist()} == FLAT.keys()


@pytest.mark.parametrize(
    ("index", "ending"),
    [
        ("model.safetensors.index.json", "safetensors"),
        ("pytorch_model.bin.index.json", "bin"),
        ("flax_model.msgpack.index.json", "msgpack"),
    ],
)
def test_a_model_in_several_files(tmp_path, index, ending):
    names = list(FLAT)
    save(tmp_path / f"one.{ending}", {name: FLAT[name] for name in names[:1]})
    save(tmp_path / f"two.{ending}", {name: FLAT[name] for name in names[1:]})
    places = dict.fromkeys(names[1:], f"two.{ending}") | {names[0]: f"one.{ending}"}
    file = tmp_path / index
    file.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    same(load(file), TREE)
    same(load(tmp_path), TREE)  # a directory, as it is downloaded
    for change, words in (
        ({names[0]: f"two.{ending}"}, "which lacks it"),
        ({names[0]: f"three.{ending}"}, "not beside it"),
        ({names[0]: f"../one.{ending}"}, "not beside it"),
    ):
        file.write_text(json.dumps({"weight_map": places | change}))
        with pytest.raises(DataError, match=words):
            load(file)
    file.write_text(json.dumps({"weight_map": places}))
    (tmp_path / f"two.{ending}").write_bytes(b"damaged")
    with pytest.raises(DataError, match=rf"two\.{ending} cannot be read as \.{ending}"):
        load(file)


def test_directories_of_downloads(tmp_path):
    with pytest.raises(DataError, match="holds no weights"):
        load(tmp_path)
    save(tmp_path / "model.safetensors", FLAT)
    save(tmp_path / "flax_model.msgpack", {"other": np.ones(2)})
    (tmp_path / "config.json").write_text("{}")
    same(load(tmp_path), TREE)
    save(tmp_path / "second.safetensors", FLAT)
    with pytest.raises(DataError, match=r"model\.safetensors, second\.safetensors\); name one"):
        load(tmp_path)


def test_steps_items_and_roots_of_an_orbax_manager(tmp_path):
    """Steps 2 and 11: the root gives the latest by number."""
    import orbax.checkpoint as ocp

    trees = {step: {"params": {"kernel": np.full(2, step, np.float32)}} for step in (2, 11)}
    with ocp.CheckpointManager(tmp_path / "root") as manager:
        for step, tree in trees.items():
            state = ocp.args.StandardSave(tree)
            manager.save(step, args=ocp.args.Composite(state=state, meta=ocp.args.JsonSave({})))
    (tmp_path / "root" / "12").mkdir()  # never finished
    for place, step in (("root", 11), ("root/2", 2), ("root/11/state", 11)):
        for like in (None, jax.tree.map(jnp.zeros_like, trees[2])):
            same(load(tmp_path / place, like=like), trees[step])
    with pytest.raises(DataError, match="12 holds no weights"):
        load(tmp_path / "root" / "12")
    with ocp.CheckpointManager(tmp_path / "two") as manager:
        items = {name: ocp.args.StandardSave(trees[2]) for name in ("old", "new")}
        manager.save(1, args=ocp.args.Composite(**items))
    with pytest.raises(DataError, match="several trees, new, old; name one"):
        load(tmp_path / "two")
    same(load(tmp_path / "two" / "1" / "new"), trees[2])
