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
# We train four small networks on the digits that come with the package: two that share their first
# epoch of training (*spawned*), and two that share nothing (*independent*). Then we walk the
# straight line between the weights of each pair, θ(α) = α a + (1 - α) b, and ask two things.
#
# - **LMC**, linear mode connectivity: does the loss stay low on the way?
# - **LLFC**, layerwise linear feature connectivity: are the *features* on the way, in every layer,
#   the mixture of the two networks' features?
#
# It runs on CPU, GPU and TPU alike and needs no download. On Colab, choose any runtime; then clone
# or upload the repository and say below where it is.

# %%
import importlib.util

REPOSITORY = ".."  # the repository's folder, or a wheel
if importlib.util.find_spec("llfc_jax") is None:
    # %pip install -q {REPOSITORY}
    pass

# %%
# %matplotlib inline
import os

import jax

import llfc_jax
from llfc_jax import data, networks, training

TINY = os.environ.get("LLFC_TINY") == "1"  # so that tests of this notebook are quick
print(jax.devices())

# %% [markdown]
# ## Two pairs of networks
#
# `train_pairs` trains whatever the pairs need, each epoch once: the trunk that `spawn_k1` shares is
# trained for one epoch, copied, and both copies go on with the data in different orders.

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
# ## The whole report
#
# `llfc_jax.study` takes any network, its two sets of weights, and data. Studies add up, so that
# both pairs stand in the same tables and figures.

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
# Both ends are good networks. Between the independent ones the error rises to a barrier; between
# the spawned ones it does not.

# %%
study.plot("lmc_error")

# %% [markdown]
# ## The features along it
#
# Solid: how far the features half-way are from the mixture of a's and b's features. Dashed: how far
# a's and b's features are from each other. The scale is logarithmic: for the spawned pair the
# mixture is far closer than the ends are to each other, which is what LLFC says.

# %%
study.plot("llfc_layers")

# %% [markdown]
# ## All of it on one page
#
# `write` makes a page that opens offline, with every figure, table and setting; `study(...,
# workdir=...)` does so at once and goes on from there if it is stopped.

# %%
print(study.write("out/quickstart"))
