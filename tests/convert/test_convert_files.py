"""Weights to files and back, to PyTorch's form and back; what does not fit is said in one line."""

import json
import zipfile

import equinox as eqx
import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import llfc_jax
from llfc_jax import networks
from llfc_jax.convert import from_torch, load, save, to_torch
from llfc_jax.errors import DataError, LlfcError, ModeError

NETWORKS = {
    "mlp_independent": ("mlp", {"widths": (512, 512, 512)}),
    "lenet_spawned": ("lenet5", {}),
    "resnet20_spawned": ("resnet_cifar", {}),
}


def converted(name):
    kind, fields = NETWORKS[name]
    stored = golden.load(name)
    module = networks.build(kind, 10, **fields)
    like = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.asarray(stored.x[:2])))
    return stored, module, like, from_torch(stored.a, module.apply, like, stored.x[:2])


def mlp(state, x):
    """The authors' MLP in NumPy, in float64, from their own names and layouts."""
    x = x.reshape(len(x), -1).astype(np.float64)
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    for i, name in enumerate(modules):
        x = x @ state[f"{name}.weight"].T.astype(np.float64) + state[f"{name}.bias"]
        x = x if i == len(modules) - 1 else np.maximum(x, 0)
    return x


@pytest.mark.parametrize("name", NETWORKS)
def test_the_authors_weights_come_back_to_the_bit(name):
    stored, module, _, variables = converted(name)
    back = to_torch(variables, stored.b, module.apply, stored.x[:2])
    assert list(back) == list(stored.b)
    for key, array in stored.a.items():
        expected = stored.b[key] if key.endswith("num_batches_tracked") else array
        np.testing.assert_array_equal(back[key], expected, err_msg=key)
        assert back[key].dtype == array.dtype


def test_logits_are_compared_where_there_are_some():
    stored, module, like, variables = converted("mlp_independent")
    x, logits = stored.x[:20], mlp(stored.a, stored.x[:20])
    checked = from_torch(stored.a, module.apply, like, x, check=(x, logits))
    jax.tree.map(np.testing.assert_array_equal, checked, variables)
    for wrong, words in ((mlp(stored.b, x), "differ"), (logits[:3], "(3, 10)")):
        with pytest.raises(ModeError) as caught:
            from_torch(stored.a, module.apply, like, x, check=(x, wrong))
        assert words in str(caught.value)


@pytest.mark.slow
def test_a_permuted_network_goes_back_to_pytorch_and_computes_the_same():
    stored, module, like, a = converted("mlp_independent")
    x = stored.x[:40]
    b = from_torch(stored.b, module.apply, like, x)
    y = stored.y[:40]
    study = llfc_jax.study(module, a, b, (x, y), measures=["lmc"], align=("weight",))
    state = to_torch(study.aligned["pair", "weight"].model, stored.b, module.apply, x)
    assert any((state[name] != stored.b[name]).any() for name in state)
    np.testing.assert_allclose(mlp(state, x), mlp(stored.b, x), rtol=1e-4, atol=1e-4)


STATE = {
    "fc1.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fc1.bias": np.array([1.5, -2], np.float16),
    "bn.num_batches_tracked": np.array(7),
}


@pytest.mark.parametrize("ending", ["npz", "safetensors", "msgpack", "pt"])
def test_state_dicts_keep_names_values_and_types(tmp_path, ending):
    if ending in ("safetensors", "pt"):
        pytest.importorskip({"pt": "torch"}.get(ending, ending))
    path = tmp_path / "sub" / f"state.{ending}"
    save(path, STATE)
    found = load(path)
    assert found.keys() == STATE.keys()
    for name, array in STATE.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def linen_tree():
    x = jnp.ones((2, 8, 8, 1))
    return networks.build("mlp", 10, widths=(5, 4)).init(jax.random.key(0), x)


def nnx_tree():
    return nnx.state(nnx.Linear(3, 4, rngs=nnx.Rngs(0)))


def equinox_tree():
    return eqx.filter(eqx.nn.MLP(3, 2, 4, 2, key=jax.random.key(0)), eqx.is_array)


@pytest.mark.parametrize("make", [linen_tree, nnx_tree, equinox_tree])
@pytest.mark.parametrize(
    "name", ["weights.npz", "weights.safetensors", "weights.msgpack", "checkpoint"]
)
def test_trees_of_any_framework_come_back_as_they_were(tmp_path, make, name):
    if name.endswith("safetensors"):
        pytest.importorskip("safetensors")
    tree = make()
    save(tmp_path / name, tree)
    found = load(tmp_path / name, like=jax.tree.map(jnp.zeros_like, tree))
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, found, tree)


def test_an_orbax_checkpoint_comes_without_a_target_too(tmp_path):
    save(tmp_path / "checkpoint", {"params": {"dense": {"kernel": jnp.eye(2)}}})
    np.testing.assert_array_equal(
        load(tmp_path / "checkpoint")["params"]["dense"]["kernel"], np.eye(2)
    )


def test_nothing_is_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (print, ("boom",))

    np.savez(tmp_path / "bomb.npz", weights=np.array([Bomb()], dtype=object))
    with pytest.raises(DataError, match=r"bomb\.npz cannot be read as \.npz"):
        load(tmp_path / "bomb.npz")


@pytest.mark.parametrize(
    "name", ["a.npz", "a.safetensors", "a.safetensors.index.json", "a.msgpack", "a.pt", "a"]
)
def test_what_is_not_there_or_damaged(tmp_path, name):
    with pytest.raises(DataError, match="there is no"):
        load(tmp_path / name)
    file = tmp_path / name
    if file.suffix:
        file.write_bytes(b"not weights")
    else:
        file.mkdir()
    with pytest.raises(DataError) as caught:
        load(file)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_weights_of_another_network(tmp_path):
    tree = {"dense": {"kernel": np.eye(3), "bias": np.ones(3)}}
    save(tmp_path / "a.npz", tree)
    with pytest.raises(ModeError, match="only one of the two has dense/bias"):
        load(tmp_path / "a.npz", like={"dense": {"kernel": np.eye(3)}})
    with pytest.raises(ModeError, match=r"shape \(3, 3\) against \(2, 2\)"):
        load(tmp_path / "a.npz", like={"dense": {"kernel": np.eye(2), "bias": np.ones(3)}})
    (tmp_path / "b.npz").mkdir()
    with pytest.raises(LlfcError, match="is a directory"):
        save(tmp_path / "b.npz", tree)


def test_the_file_is_plain(tmp_path):
    save(tmp_path / "a.npz", STATE)
    with zipfile.ZipFile(tmp_path / "a.npz") as file:
        assert {name.removesuffix(".npy") for name in file.namelist()} == STATE.keys()


def test_a_model_in_several_files(tmp_path):
    pytest.importorskip("safetensors")
    names = list(STATE)
    save(tmp_path / "one.safetensors", {name: STATE[name] for name in names[:1]})
    save(tmp_path / "two.safetensors", {name: STATE[name] for name in names[1:]})
    places = dict.fromkeys(names[1:], "two.safetensors") | {names[0]: "one.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    found = load(index)
    assert found.keys() == STATE.keys()
    for name in names:
        np.testing.assert_array_equal(found[name], STATE[name])
    for change, words in (
        ({names[0]: "two.safetensors"}, "which lacks it"),
        ({names[0]: "three.safetensors"}, "not beside it"),
        ({names[0]: "../one.safetensors"}, "not beside it"),
    ):
        index.write_text(json.dumps({"weight_map": places | change}))
        with pytest.raises(DataError, match=words):
            load(index)
    index.write_text(json.dumps({"weight_map": places}))
    (tmp_path / "two.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"two\.safetensors cannot be read as \.safetensors"):
        load(index)


def test_flax_trees_come_back_from_msgpack(tmp_path):
    from flax import serialization

    tree = linen_tree()
    (tmp_path / "a.msgpack").write_bytes(serialization.to_bytes(tree))
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "a.msgpack"), tree)
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "a.msgpack", like=tree), tree)


def test_steps_and_roots_of_an_orbax_manager(tmp_path):
    """Steps 2 and 11: the root gives the latest by number."""
    trees = {step: {"params": {"kernel": np.full(2, step, np.float32)}} for step in (2, 11)}
    for step, tree in trees.items():
        save(tmp_path / "root" / str(step), tree)
    (tmp_path / "root" / "12").mkdir()  # never finished
    for place, step in (("root", 11), ("root/2", 2), ("root/11", 11)):
        for like in (None, jax.tree.map(jnp.zeros_like, trees[2])):
            found = load(tmp_path / place, like=like)
            np.testing.assert_array_equal(
                found["params"]["kernel"], trees[step]["params"]["kernel"]
            )
    with pytest.raises(DataError, match="12 holds no finished Orbax checkpoint"):
        load(tmp_path / "root" / "12")


def test_files_of_unknown_kinds_are_named(tmp_path):
    (tmp_path / "weights.h5").write_bytes(b"x")
    with pytest.raises(DataError, match=r"weights\.h5 is a file of an unknown kind; known"):
        load(tmp_path / "weights.h5")
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(DataError, match=r"is a directory, no \.npz file"):
        load(tmp_path / "a.npz")


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_state_dict_in_a_checkpoint_of_pytorchs(tmp_path, key):
    torch = pytest.importorskip("torch")
    weights = {"fc.weight": torch.eye(2)}
    torch.save({"epoch": 3, key: weights, "lr": 0.1}, tmp_path / "a.pt")
    np.testing.assert_array_equal(load(tmp_path / "a.pt")["fc.weight"], np.eye(2))
