"""Modes given by the path of their checkpoint: studies and measures give what the trees give."""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from flax.training.train_state import TrainState

import llfc_jax
from llfc_jax import matching, measures
from llfc_jax.errors import DataError, ModeError

rng = np.random.default_rng(0)
X = rng.normal(size=(20, 4)).astype(np.float32)
Y = rng.integers(3, size=20)
A, B = (
    [
        (rng.normal(size=s).astype("f4"), rng.normal(size=s[1]).astype("f4"))
        for s in ((4, 8), (8, 3))
    ]
    for _ in "ab"
)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="out")(nn.relu(nn.Dense(8, name="hidden")(x)))


class Nnx(nnx.Module):
    def __init__(self, weights=A):
        self.hidden, self.out = (nnx.Linear(*k.shape, rngs=nnx.Rngs(0)) for k, _ in weights)
        for layer, (k, b) in zip((self.hidden, self.out), weights, strict=True):
            layer.kernel[...], layer.bias[...] = k, b

    def __call__(self, x):
        return self.out(nnx.relu(self.hidden(x)))


def linen(weights):
    named = zip(("hidden", "out"), weights, strict=True)
    return {"params": {name: {"kernel": k, "bias": b} for name, (k, b) in named}}


def equinox(weights):
    new = [jnp.asarray(p) for k, b in weights for p in (k.T, b)]
    mlp = eqx.nn.MLP(4, 3, 8, 1, key=jax.random.key(0))
    return eqx.tree_at(lambda m: [p for la in m.layers for p in (la.weight, la.bias)], mlp, new)


def haiku(weights):
    named = zip(("net/~/linear_0", "net/~/linear_1"), weights, strict=True)
    return {name: {"w": k, "b": b} for name, (k, b) in named}


def function(w, x):
    hidden, out = w["hidden"], w["out"]
    x = jax.nn.relu(x @ hidden["kernel"] + hidden["bias"][None])
    return x @ out["kernel"] + out["bias"][None]


CASES = {
    "linen": (Linen(), linen, linen),
    "nnx": (Nnx(), Nnx, lambda w: nnx.state(Nnx(w))),
    "nnx_pure": (Nnx(), Nnx, lambda w: nnx.to_pure_dict(nnx.state(Nnx(w)))),
    "equinox": (equinox(A), equinox, lambda w: eqx.filter(equinox(w), eqx.is_array)),
    "haiku": (
        hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([8, 3], name="net")(x))),
        haiku,
        haiku,
    ),
    "function": (function, lambda w: linen(w)["params"], lambda w: linen(w)["params"]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["safetensors", "orbax"])
def test_a_path_gives_what_the_tree_gives(tmp_path, case, name):
    network, mode, tree = CASES[case]
    paths = [tmp_path / (f"{side}.{name}" if name != "orbax" else side) for side in "ab"]
    for path, weights in zip(paths, (A, B), strict=True):
        llfc_jax.save(path, tree(weights))
    options = {"alphas": (0, 0.5, 1)}
    expected = measures.lmc(network, mode(A), mode(B), [(X, Y)], **options)
    for a, b in (paths, (str(paths[0]), mode(B))):
        found = measures.lmc(network, a, b, [(X, Y)], **options)
        np.testing.assert_array_equal(found.loss, expected.loss)


def test_a_study_of_two_directories(tmp_path):
    for side, weights in (("a", A), ("b", B)):
        (tmp_path / side).mkdir()
        llfc_jax.save(tmp_path / side / "model.safetensors", linen(weights)["params"])
    options = {"measures": ["lmc", "llfc"], "align": ["none", "weight"], "alphas": (0, 0.5, 1)}
    a, b = (str(tmp_path / side) for side in "ab")
    found = llfc_jax.study(Linen(), a, b, (X, Y), workdir=tmp_path / "out", **options)
    expected = llfc_jax.study(Linen(), linen(A), linen(B), (X, Y), **options)
    assert found.summary == expected.summary
    match = matching.align("weight", jax.random.key(0), Linen(), a, b, [(X, Y)])
    known = expected.aligned["pair", "weight"].permutation
    for group, index in match.permutation.items():
        np.testing.assert_array_equal(index, known[group])


def test_training_states_and_nested_variables(tmp_path):
    import optax

    variables = linen(A)
    state = TrainState.create(
        apply_fn=Linen().apply, params=variables["params"], tx=optax.adam(1e-3)
    )
    fields = {"step": state.step, "params": state.params, "opt_state": state.opt_state}
    llfc_jax.save(tmp_path / "state", fields)
    llfc_jax.save(tmp_path / "nested", fields | {"params": variables})
    view = llfc_jax.Network.of(Linen())
    for name in ("state", "nested"):
        jax.tree.map(np.testing.assert_array_equal, view.variables(tmp_path / name), variables)


def test_wrong_paths_and_other_networks_are_one_line(tmp_path):
    with pytest.raises(DataError, match=r"there is no .*missing"):
        llfc_jax.study(Linen(), tmp_path / "missing", linen(B), (X, Y))
    llfc_jax.save(tmp_path / "a.npz", {"hidden": {"kernel": np.eye(4)}})
    for network, words in (
        (Linen(), "only one of them has params"),
        (Nnx(), "holds other weights"),
    ):
        with pytest.raises(ModeError, match=words):
            llfc_jax.study(network, tmp_path / "a.npz", linen(B), (X, Y))
