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
# # Permutation matching, explained
#
# The hidden units of a layer have no order: exchange two of them, together with their weights on
# both sides, and the network computes what it computed before. So two networks may have learnt
# nearly the same and yet differ by a permutation. Which units can be exchanged is read off the
# network's trace; which permutation brings one network closest to the other is an assignment
# problem.
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

import altair as alt
import jax
import numpy as np

import llfc_jax
from llfc_jax import data, networks, symmetry, training
from llfc_jax.graph import trace

TINY = os.environ.get("LLFC_TINY") == "1"  # set by the tests of this notebook

# %% [markdown]
# ## Two independent networks

# %%
digits = data.load("digits", train_size=200 if TINY else None)
width = 16 if TINY else 128
network = networks.build("mlp", digits.classes, widths=(width, width))
recipe = training.Recipe(
    epochs=2 if TINY else 15,
    optimizer="adam",
    learning_rate=2e-3,
    schedule="constant",
    weight_decay=0.0,
)
pair = training.train_pairs(network, digits, recipe, ("independent",), seed=0)["independent"]

# %% [markdown]
# ## What may be permuted
#
# The permutation spec follows each axis of each weight through the equations. Axes that must be
# permuted together form a *group*; inputs and logits are fixed.

# %%
x, _ = next(iter(data.Batches(digits.test, digits, 100)))
spec = symmetry.permutation_spec(network.apply, pair.a, x)
print(spec.explain())

# %% [markdown]
# `check` permutes every group and returns the largest relative change of the logits, in float64. It
# raises an error if the change is more than rounding.

# %%
print(symmetry.check(spec, network.apply, pair.a, x))

# %% [markdown]
# None of this is written for MLPs. A transformer has groups inside groups: heads can be exchanged,
# and inside each head the width of query and key, and that of value and output.

# %%
vit = networks.build("vit", 10, patch=2, dim=16, depth=1, heads=2, mlp_dim=32)
print(symmetry.permutation_spec(vit.apply, networks.init(vit, jax.random.key(0), x), x).explain())

# %% [markdown]
# ## Before and after
#
# *Weight matching* needs no data; *activation matching* compares what the units compute on training
# images. Either way `b` is the same function afterwards, so its end of the line does not change.
# What changes is the line.

# %%
study = llfc_jax.study(
    network,
    pair.a,
    pair.b,
    digits,
    measures=["lmc", "llfc"],
    align=["none", "weight", "activation"],
)
study

# %%
study.plot("lmc_loss")

# %% [markdown]
# ## One layer in detail
#
# Correlations between units of a and of b in the first hidden layer (the first 40 of each). As
# trained, the partner of a unit can be anywhere; after activation matching, partners lie on the
# diagonal.

# %%
graph = trace(network.apply, pair.a, x)


def units(variables: object) -> np.ndarray:
    """Returns the standardised activations of the first ReLU [images, units]."""
    h = np.asarray(graph.evaluate(variables, x)["Dense_0.relu"])
    return ((h - h.mean(0)) / (h.std(0) + 1e-6))[:, :40]


matched = study.aligned["pair", "activation"].variables
rows = [
    {"b is": name, "unit of a": i, "unit of b": j, "correlation": float(value)}
    for name, b in (("as trained", pair.b), ("permuted to fit a", matched))
    for (i, j), value in np.ndenumerate(units(pair.a).T @ units(b) / len(x))
]
plain = alt.Axis(labels=False, ticks=False)
alt.Chart(alt.InlineData(values=rows)).mark_rect().encode(
    x=alt.X("unit of b:O", axis=plain),
    y=alt.Y("unit of a:O", axis=plain),
    color=alt.Color("correlation:Q", scale=alt.Scale(scheme="redblue", domain=[-1, 1])),
).properties(width=280, height=280).facet(alt.Facet("b is:N", title=None))

# %% [markdown]
# ## Where matching falls short
#
# Deep networks without normalisation (VGG) and narrow networks keep a barrier after matching, for
# two reasons. Features shrink half-way, which `renormalise="repair"` or `"reset"` corrects. And
# some units of a have no partner in b at all; then no permutation helps.
