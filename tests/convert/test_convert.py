"""PyTorch state dicts into JAX networks: the same function, whatever the layouts."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from llfc_jax import networks
from llfc_jax.convert import from_torch
from llfc_jax.errors import ModeError

rng = np.random.default_rng(0)
X = rng.normal(size=(3, 6, 4, 2)).astype(np.float32)  # channels last


def torch_state() -> dict[str, np.ndarray]:
    """A convolution, BatchNorm, flatten, and two dense layers (the second square), as PyTorch."""
    shapes = {
        "features.0.weight": (5, 2, 3, 3),
        "features.0.bias": (5,),
        "features.1.weight": (5,),
        "features.1.bias": (5,),
        "features.1.running_mean": (5,),
        "features.1.running_var": (5,),
        "fc1.weight": (6, 5 * 4 * 2),
        "fc1.bias": (6,),
        "fc2.weight": (6, 6),
        "fc2.bias": (6,),
    }
    made = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    made["features.1.running_var"] = np.abs(made["features.1.running_var"]) + 0.5
    made["features.1.num_batches_tracked"] = np.array(7)
    return made


STATE = torch_state()


def torch_forward(s: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """What PyTorch would compute, in its own layout (channels first) and float64."""
    x = x.transpose(0, 3, 1, 2).astype(np.float64)
    kernel = s["features.0.weight"].astype(np.float64)
    x = sum(
        np.einsum("nchw,oc->nohw", x[:, :, i : i + 4, j : j + 2], kernel[:, :, i, j])
        for i in range(3)
        for j in range(3)
    )  # no padding

    def channel(name: str) -> np.ndarray:
        return s[name].astype(np.float64)[None, :, None, None]

    x = x + channel("features.0.bias")
    x = (x - channel("features.1.running_mean")) / np.sqrt(channel("features.1.running_var") + 1e-5)
    x = np.maximum(x * channel("features.1.weight") + channel("features.1.bias"), 0)
    x = x.reshape(len(x), -1)  # channel, row, column
    x = np.maximum(x @ s["fc1.weight"].T.astype(np.float64) + s["fc1.bias"], 0)
    return x @ s["fc2.weight"].T.astype(np.float64) + s["fc2.bias"]


class Linen(nn.Module):
    """The flattened feature goes through a ReLU, or a cast, before the dense layer."""

    relu_first: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Conv(5, (3, 3), padding="VALID")(x)
        x = nn.BatchNorm(use_running_average=True)(x)
        x = nn.relu(x).reshape(len(x), -1) if self.relu_first else nn.relu(x.reshape(len(x), -1))
        x = nn.relu(nn.Dense(6, dtype=self.dtype)(x))
        return nn.Dense(6, name="last")(x)


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(2, 5, (3, 3), padding="VALID", rngs=rngs)
        self.norm = nnx.BatchNorm(5, use_running_average=True, rngs=rngs)
        self.fc1 = nnx.Linear(40, 6, rngs=rngs)
        self.fc2 = nnx.Linear(6, 6, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.norm(self.conv(x)))
        return self.fc2(nnx.relu(self.fc1(x.reshape(len(x), -1))))


def linen(**fields: Any) -> tuple[Any, Any]:
    module = Linen(**fields)
    return module.apply, module.init(jax.random.key(0), X)


def nnx_pair() -> tuple[Any, Any]:
    graphdef, state = nnx.split(Nnx(nnx.Rngs(0)))
    return (lambda s, x: nnx.merge(graphdef, s)(x)), state


@pytest.mark.parametrize(
    ("network", "rtol"),
    [
        (lambda: linen(), 1e-4),
        (lambda: linen(relu_first=False), 1e-4),
        (lambda: linen(dtype=jnp.bfloat16), 5e-2),
        (nnx_pair, 1e-4),
    ],
    ids=["linen", "flatten before relu", "half precision", "nnx"],
)
def test_the_converted_network_computes_the_same(network: Any, rtol: float):
    apply, variables = network()
    found = from_torch(STATE, apply, variables, X)
    assert jax.tree.structure(found) == jax.tree.structure(variables)
    expected = torch_forward(STATE, X)
    np.testing.assert_allclose(apply(found, X), expected, rtol=rtol, atol=rtol)


class Eqx(eqx.Module):
    """Equinox has PyTorch's own layouts."""

    conv: eqx.nn.Conv2d
    fc1: eqx.nn.Linear
    fc2: eqx.nn.Linear

    def __init__(self) -> None:
        keys = jax.random.split(jax.random.key(0), 3)
        self.conv = eqx.nn.Conv2d(2, 5, 3, key=keys[0])
        self.fc1 = eqx.nn.Linear(40, 6, key=keys[1])
        self.fc2 = eqx.nn.Linear(6, 6, key=keys[2])

    def __call__(self, x: Any) -> Any:
        x = jax.nn.relu(self.conv(x.transpose(2, 0, 1))).reshape(-1)
        return self.fc2(jax.nn.relu(self.fc1(x)))


def transposed(w: Any, x: Any) -> Any:
    """A plain function that stores its dense weights as PyTorch does."""
    x = jax.lax.conv_general_dilated(
        x, w["conv"]["weight"], (1, 1), "VALID", dimension_numbers=("NHWC", "OIHW", "NHWC")
    )
    x = jax.nn.relu(x + w["conv"]["bias"][None, None, None]).reshape(len(x), -1)
    x = jax.nn.relu(x @ w["fc1"]["weight"].T + w["fc1"]["bias"][None])
    return x @ w["fc2"]["weight"].T + w["fc2"]["bias"][None]


PLAIN = {
    "conv": {"weight": jnp.ones((5, 2, 3, 3)), "bias": jnp.ones(5)},
    "fc1": {"weight": jnp.ones((6, 40)), "bias": jnp.ones(6)},
    "fc2": {"weight": jnp.ones((6, 6)), "bias": jnp.ones(6)},
}


@pytest.mark.parametrize("kind", ["equinox", "plain"])
def test_layouts_are_read_off_the_network_not_guessed(kind: str):
    """A square weight would fit either way round."""
    state = {name: array for name, array in STATE.items() if "features.1" not in name}
    neutral = STATE | {
        "features.1.weight": np.ones(5), "features.1.bias": np.zeros(5),
        "features.1.running_mean": np.zeros(5), "features.1.running_var": np.full(5, 1 - 1e-5),
    }  # fmt: skip
    if kind == "plain":
        apply, variables = transposed, PLAIN
    else:
        variables, static = eqx.partition(Eqx(), eqx.is_array)

        def apply(model: Any, x: Any) -> Any:
            return jax.vmap(eqx.combine(model, static))(x)

    found = from_torch(state, apply, variables, X)
    expected = torch_forward(neutral, X)
    np.testing.assert_allclose(apply(found, X), expected, rtol=1e-4, atol=1e-4)


def test_lenet_flattens_its_image_in_pytorchs_order():
    module = networks.build("lenet5", 10)
    x = rng.normal(size=(2, 28, 28, 1)).astype(np.float32)
    variables = module.init(jax.random.key(0), x)
    shapes = {"conv1": (6, 1, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (120, 400), "fc2": (84, 120),
              "fc3": (10, 84)}  # fmt: skip
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = np.zeros(shape, np.float32)
        state[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    # Channel 3, row 1, column 4 of the 16x5x5 image in front of fc1.
    state["fc1.weight"][7, 3 * 25 + 1 * 5 + 4] = 1
    found = from_torch(state, module.apply, variables, x)
    kernel = np.asarray(found["params"]["Dense_0"]["kernel"]).reshape(5, 5, 16, 120)
    assert kernel[1, 4, 3, 7] == 1
    assert np.count_nonzero(kernel) == 1


def test_names_pair_layers_whose_order_differs():
    apply, variables = linen()
    reordered = {k: STATE[k] for k in sorted(STATE, reverse=True)}  # fc2 first
    names = {"features.0": "Conv_0", "features.1": "BatchNorm_0", "fc1": "Dense_0", "fc2": "last"}
    found = from_torch(reordered, apply, variables, X, names)
    np.testing.assert_allclose(apply(found, X), torch_forward(STATE, X), rtol=1e-4, atol=1e-4)
    with pytest.raises(ModeError):
        from_torch(reordered, apply, variables, X)  # in order they do not fit


class TestErrors:
    def line(self, state: dict[str, Any], names: Any = None) -> str:
        apply, variables = linen()
        with pytest.raises(ModeError) as caught:
            from_torch(state, apply, variables, X, names)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_another_number_of_modules(self):
        fewer = {k: v for k, v in STATE.items() if not k.startswith("fc2")}
        message = self.line(fewer)
        assert "has 3 modules" in message
        assert "the network 4" in message

    def test_another_shape(self):
        message = self.line(STATE | {"fc1.weight": np.zeros((6, 32), np.float32)})
        assert (
            "params/Dense_0/kernel has shape (40, 6), fc1.weight in the state dict (6, 32)"
            in message
        )

    def test_a_parameter_without_counterpart(self):
        message = self.line(STATE | {"fc1.gain": np.zeros(6, np.float32)})
        assert "fc1.gain has no counterpart in Dense_0" in message

    def test_a_parameter_that_is_missing(self):
        fewer = {k: v for k, v in STATE.items() if k != "fc1.bias"}
        assert "nothing for params/Dense_0/bias" in self.line(fewer)

    def test_names_that_do_not_pair(self):
        message = self.line(STATE, {"features.0": "Conv_0"})
        assert "names must pair every module" in message
