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
# Here a network is written in Flax NNX and trained by a loop of its own; nothing in it knows about
# `llfc_jax`. Two trained copies are studied, one is aligned with the other, and the aligned one is
# saved. The same works with Flax Linen, Equinox, Haiku and plain functions.
#
# It runs on a CPU in under two minutes, and on a GPU or TPU as it is: on Colab, choose one under
# *Runtime, Change runtime type* before the first cell runs.

# %%
# Installs llfc_jax where it is missing, and keeps the runtime's own JAX for its GPU or TPU.
import importlib.util
from importlib.metadata import version
from pathlib import Path

REPOSITORY = ""  # not published yet: an address such as https://github.com/OWNER/llfc_jax

if importlib.util.find_spec("llfc_jax") is None:
    folders = [Path.cwd(), *Path.cwd().parents]
    checkout = [str(f) for f in folders if (f / "llfc_jax" / "version.py").is_file()]
    if not (checkout or REPOSITORY):
        raise ImportError("set REPOSITORY above to the address of llfc_jax's git repository")
    source = checkout[0] if checkout else f"git+{REPOSITORY}"
    pinned = f"jax=={version('jax')}" if importlib.util.find_spec("jax") else "jax"
    # %pip install -q {source} {pinned}

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import llfc_jax
from llfc_jax import data

TINY = os.environ.get("LLFC_TINY") == "1"  # set by the tests of this notebook

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
        """Returns logits of flattened images."""
        return self.out(nnx.relu(self.second(nnx.relu(self.first(x)))))


@nnx.jit
def step(model: MLP, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> None:
    """Updates the model by one step of Adam."""

    def loss(model: MLP) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    optimizer.update(model, nnx.grad(loss)(model))


def train(seed: int) -> MLP:
    """Returns a network trained from random weights, on the data in an order of its own."""
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
# The network, its two modes, and the data; activation matching uses the training data (`train=`).
# What does not fit is refused with one line before any work starts: try `Y_TEST[:5]`.

# %%
study = llfc_jax.study(
    a,  # the network: for NNX and Equinox, either of the two will do
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
# It is an NNX module like `b`: the same function, its hidden units in another order. The average of
# its weights and a's is a network that works.

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
# The ending of the path chooses the format: `.npz`, `.safetensors`, `.pt`, or a directory for
# Orbax. Nothing is ever unpickled. A study takes such paths in place of the networks, too.
# `convert.from_torch` converts weights from PyTorch, `convert.to_torch` converts them back.

# %%
llfc_jax.save("out/matched.npz", nnx.state(matched))
restored = llfc_jax.load("out/matched.npz", like=nnx.state(b))
print(sorted(jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(restored))[:3])

# %% [markdown]
# ## The same in other frameworks
#
# | network | the two modes |
# |---|---|
# | Flax Linen `module` | variables, `{"params": ...}` |
# | Flax NNX module | modules, or their states |
# | Equinox module, for one sample | modules; with state, (module, state) |
# | Haiku `hk.transform(f)` | parameters; with state, (parameters, state) |
# | `apply(variables, x)` | any tree of arrays |
#
# `Network.of` takes further arguments of the call: `Network.of(module, mask=mask)`.
