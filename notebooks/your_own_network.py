# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own network
#
# Here a network is written in Flax NNX and trained by a loop of one's own; nothing in it knows of
# `llfc_jax`. Two runs of it are studied, one is aligned with the other, and the aligned one is
# saved. The same works with Flax Linen, Equinox, Haiku and plain functions.

# %%
# %matplotlib inline
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import llfc_jax
from llfc_jax import convert, data

TINY = os.environ.get("LLFC_TINY") == "1"  # so that tests of this notebook are quick

# %% [markdown]
# ## Two networks

# %%
WIDTH, EPOCHS = (16, 2) if TINY else (128, 15)


class MLP(nnx.Module):
    """Two hidden layers."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(64, WIDTH, rngs=rngs)
        self.second = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.out = nnx.Linear(WIDTH, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of flattened images."""
        return self.out(nnx.relu(self.second(nnx.relu(self.first(x)))))


@nnx.jit
def step(model: MLP, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> None:
    """One step of Adam."""

    def loss(model: MLP) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    optimizer.update(model, nnx.grad(loss)(model))


def train(seed: int) -> MLP:
    """A network trained from its own random weights, on its own order of the data."""
    model = MLP(nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, optax.adam(2e-3), wrt=nnx.Param)
    rng = np.random.default_rng(seed)
    for _ in range(EPOCHS):
        for batch in rng.permutation(len(X))[: len(X) // 50 * 50].reshape(-1, 50):
            step(model, optimizer, X[batch], Y[batch])
    return model


digits = data.load("digits")
X, X_TEST = (s.images.reshape(len(s), -1).astype("f4") / 16 for s in (digits.train, digits.test))
Y, Y_TEST = digits.train.labels, digits.test.labels
a, b = train(0), train(1)

# %% [markdown]
# ## One call
#
# The network, its two modes, and the data. `train=` is what activation matching may look at.
# Whatever does not fit is said in one line before any work starts: try `Y_TEST[:5]`.

# %%
study = llfc_jax.study(
    a,  # for NNX and Equinox, either of the two tells what the network is
    a,
    b,
    (X_TEST, Y_TEST),
    train=(X, Y),
    measures=["lmc", "llfc"],
    align=["none", "weight", "activation"],
)
study

# %%
study.plot("lmc_loss")

# %% [markdown]
# ## The aligned network
#
# It is an NNX module as `b` is: the same function, its hidden units in other places. Half-way
# between it and `a` lies a network that works.

# %%
matched = study.aligned["pair", "activation"].model
print(type(matched).__name__, float(jnp.abs(matched(X_TEST) - b(X_TEST)).max()))

merged = llfc_jax.Network.of(a)
between = jax.tree.map(lambda p, q: (p + q) / 2, *map(merged.variables, (a, matched)))
for name, model in (("a", a), ("b", b), ("half-way, aligned", merged.model(between))):
    print(f"{name:>18}: accuracy {float((model(X_TEST).argmax(-1) == Y_TEST).mean()):.3f}")

# %% [markdown]
# ## In and out of files
#
# By the ending of the path: `.npz`, `.safetensors`, `.pt`, or a directory for Orbax. Nothing is
# ever unpickled. For weights from PyTorch see `convert.from_torch`, and `convert.to_torch` for the
# way back.

# %%
convert.save("out/matched.npz", nnx.state(matched))
restored = convert.load("out/matched.npz", like=nnx.state(b))
print(sorted(jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(restored))[:3])

# %% [markdown]
# ## The same in other frameworks
#
# | network | the two modes |
# |---|---|
# | Flax Linen `module` | variables, `{"params": ...}` |
# | Flax NNX module | modules, or their states |
# | Equinox module, for one sample | modules |
# | Haiku `hk.transform(f)` | parameters; with state, (parameters, state) |
# | `apply(variables, x)` | any tree of arrays |
#
# Arguments of the call go to `Network.of`: `llfc_jax.Network.of(module, train=False)`.
