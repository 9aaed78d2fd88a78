"""The GPT against plain NumPy, and what every form of it must keep."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax import networks
from llfc_jax.errors import ConfigError, DataError

X = np.random.default_rng(0).integers(0, 11, (2, 7))
SMALL = {"dim": 12, "depth": 1, "heads": 2, "mlp_dim": 10}


def made(**fields):
    module = networks.build("gpt", 11, **{**SMALL, **fields})
    return module, networks.init(module, jax.random.key(1), jnp.asarray(X))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def by_hand(params, x):
    """A block of RMSNorm, rotary attention with shared keys and SwiGLU, one token at a time."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, float), params)
    h = p["embed"]["embedding"][x]

    def norm(v, name, at):
        return v / np.sqrt((v**2).mean(-1, keepdims=True) + 1e-6) * at[name]["scale"]

    block = p["block0"]
    y = norm(h, "norm1", block)
    out = np.zeros_like(h)
    for n, t, head in itertools.product(range(2), range(7), range(2)):

        def turned(kernel, position, n=n):
            v = y[n, position] @ kernel
            half = len(v) // 2
            angle = position * 10_000.0 ** (-np.arange(half) / half)
            a, b = v[:half], v[half:]
            return np.concatenate([a * np.cos(angle) - b * np.sin(angle),
                                   a * np.sin(angle) + b * np.cos(angle)])  # fmt: skip

        attention = block["attention"]
        q = turned(attention["query"]["kernel"][:, head], t)
        keys = [turned(attention["key"]["kernel"][:, 0], s) for s in range(t + 1)]
        values = [y[n, s] @ attention["value"]["kernel"][:, 0] for s in range(t + 1)]
        weights = softmax(np.array([q @ k for k in keys]) / np.sqrt(6))
        out[n, t] += (weights @ np.array(values)) @ attention["out"]["kernel"][head]
    h = h + out
    y = norm(h, "norm2", block)
    gate = y @ block["gate"]["kernel"]
    h = h + (gate / (1 + np.exp(-gate)) * (y @ block["up"]["kernel"])) @ block["down"]["kernel"]
    return norm(h, "norm", p) @ p["head"]["kernel"]


def test_the_default_form_is_that_of_plain_numpy():
    module, variables = made(groups=1)
    ours = module.apply(variables, X)
    np.testing.assert_allclose(ours, by_hand(variables["params"], X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"norm": "layer", "positions": "learned", "mlp": "gelu", "bias": True, "tied": True},
    ],
)
def test_no_token_sees_those_after_it_and_order_matters(fields):
    module, variables = made(**fields)
    logits = module.apply(variables, X)
    changed = X.copy()
    changed[:, 4] = (changed[:, 4] + 1) % 11
    after = module.apply(variables, changed)
    np.testing.assert_allclose(after[:, :4], logits[:, :4], atol=1e-6)
    assert np.abs(after[:, 4:] - logits[:, 4:]).max() > 1e-4
    swapped = X[:, [1, 0, 2, 3, 4, 5, 6]]
    swapped[:, 0] = (X[:, 0] + 3) % 11
    assert np.abs(module.apply(variables, swapped)[:, 6] - logits[:, 6]).max() > 1e-5
    assert ("head" in variables["params"]) == ("tied" not in fields)


@pytest.mark.parametrize(
    ("fields", "x", "kind"),
    [
        ({"heads": 5}, X, ConfigError),
        ({"heads": 4, "groups": 3}, X, ConfigError),
        ({"heads": 4, "dim": 12}, X, ConfigError),
        ({"positions": "learned", "length": 3}, X, ConfigError),
        ({}, X.astype(np.float32), DataError),
    ],
)
def test_what_does_not_fit_is_one_line(fields, x, kind):
    module = networks.build("gpt", 11, **{**SMALL, **fields})
    with pytest.raises(kind):
        networks.init(module, jax.random.key(0), jnp.asarray(x))


def test_the_unet_and_the_towers():
    x = jnp.ones((3, 8, 8, 1))
    unet = networks.build("unet", 4, widths=(2, 3, 4))
    assert unet.apply(networks.init(unet, jax.random.key(0), x), x).shape == (3, 8, 8, 4)
    with pytest.raises(DataError, match="multiples of 4"):
        networks.init(unet, jax.random.key(0), jnp.ones((3, 6, 8, 1)))
    towers = networks.build("towers", widths=(5,), dim=6)
    p, q = towers.apply(networks.init(towers, jax.random.key(0), x), x)
    assert p.shape == q.shape == (3, 6)
