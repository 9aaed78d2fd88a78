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
# # Quickstart: are two networks connected, layer by layer?
#
# We train four small networks on handwritten digits that come with the package: two that share
# their first epoch of training (*spawned*), and two that share nothing (*independent*). Then we
# follow the straight line between the weights of each pair, θ(α) = α a + (1 - α) b, and ask two
# questions.
#
# - **LMC**, linear mode connectivity: does the loss stay low along the line?
# - **LLFC**, layerwise linear feature connectivity: are the *features* along the line, in every
#   layer, the mixture of the two networks' features?
#
# It runs on a CPU in under two minutes, and on a GPU or TPU as it is: on Colab, choose one under
# *Runtime, Change runtime type* before the first cell runs.
# Nothing is downloaded but the package.

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

import llfc_jax
from llfc_jax import data, networks, training

TINY = os.environ.get("LLFC_TINY") == "1"  # set by the tests of this notebook
print(jax.devices())

# %% [markdown]
# ## Two pairs of networks
#
# `train_pairs` trains what the pairs need, and each epoch once: the trunk of `spawn_k1` is trained
# for one epoch and copied, and both copies continue with the data in different orders.

# %%
digits = data.load("digits", train_size=200 if TINY else None)
network = networks.build("mlp", digits.classes, widths=(16, 16) if TINY else (256, 256, 256))
recipe = training.Recipe(
    epochs=2 if TINY else 20,
    optimizer="adam",
    learning_rate=1e-3,
    schedule="constant",
    weight_decay=0.0,
)
pairs = training.train_pairs(network, digits, recipe, ("spawn_k1", "independent"), seed=0)

# %% [markdown]
# ## Study both
#
# `llfc_jax.study` takes a network, two sets of weights, and data. Two studies are added with `+`;
# both pairs then share tables and figures. Printed, a study is a sentence for each pair.

# %%
measures = ["lmc", "llfc"] if TINY else ["lmc", "llfc", "weak_additivity", "commutativity"]
spawned, independent = (
    llfc_jax.study(network, pair.a, pair.b, digits, name=pair.name, measures=measures)
    for pair in pairs.values()
)
study = spawned + independent
study

# %% [markdown]
# ## The line between the weights
#
# The ends of both lines are good networks. Between the independent ones the error rises to a
# barrier; between the spawned ones it does not. Point at a curve to read its values.

# %%
study.plot("lmc_error")

# %% [markdown]
# ## The features along it
#
# Solid: how far the features half-way are from the mixture of a's and b's features. Dashed: how far
# the features of a and b are from each other. The scale is logarithmic. For the spawned pair the
# features are far closer to the mixture than those of a and b are to each other: LLFC holds.

# %%
study.plot("llfc_layers")

# %% [markdown]
# ## All of it on one page
#
# `write` makes a page with every figure, table and setting, which opens offline. With `study(...,
# workdir=...)` the page is written at once, and a study that is stopped can be continued.

# %%
print(study.write("out/quickstart"))
