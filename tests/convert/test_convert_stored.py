"""The authors' own weights go into JAX networks, and come back to the bit."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import llfc_jax
from llfc_jax import networks
from llfc_jax.convert import from_torch, to_torch
from llfc_jax.errors import ModeError

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
