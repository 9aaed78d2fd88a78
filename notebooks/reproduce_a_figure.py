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
# # Reproduce a figure of the paper
#
# Zhou, Yang, Yang, Yan, Hu, *Going Beyond Linear Mode Connectivity: The Layerwise Linear Feature
# Connectivity* (NeurIPS 2023), show for spawned pairs, at every layer and several α, the mean over
# test samples of 1 - cosine between the features of θ(α) and the mixture α f(a) + (1 - α) f(b),
# beside 1 - cosine between f(a) and f(b). We draw the same for an MLP of the paper's shape.
#
# With `DATA = "digits"` it takes less than a minute on a CPU. With `DATA = "fashion_mnist"` (to be
# prepared once, see docs/offline.md) it is the paper's setting, with Fashion-MNIST in place of
# MNIST.
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

import llfc_jax
from llfc_jax import data, networks, training

TINY = os.environ.get("LLFC_TINY") == "1"  # set by the tests of this notebook
DATA = "digits"

# %%
dataset = data.load(DATA, train_size=200 if TINY else None)
network = networks.build("mlp", dataset.classes, widths=(16,) * 3 if TINY else (512, 512, 512))
recipe = training.Recipe(
    epochs=2 if TINY else 20,
    optimizer="adam",
    learning_rate=1e-3 if DATA == "digits" else 1.2e-4,
    schedule="constant",
    weight_decay=0.0,
)
pair = training.train_pairs(network, dataset, recipe, ("spawn_k1",), seed=0)["spawn_k1"]

# %%
study = llfc_jax.study(
    network,
    pair.a,
    pair.b,
    dataset,
    name="spawn_k1",
    measures=["lmc", "llfc"],
    alphas=(0.25, 0.5, 0.75),
    batch_size=1000,
)
study

# %% [markdown]
# ## From rows to a figure
#
# The rows of a measure are plain dictionaries, one per layer and α, with the mean over the samples
# and its standard deviation. `study.to_pandas("llfc")` returns them as a data frame.

# %%
rows = [row for row in study.rows["llfc"] if row["alpha"] in (0.25, 0.5, 0.75)]
{k: rows[3][k] for k in ("layer", "alpha", "distance", "distance_std", "baseline", "coefficient")}

# %%
bars = [
    {"layer": row["layer"], "α": row["alpha"], "between": words, "1 - cosine": row[column]}
    for row in rows
    for column, words in (("baseline", "a and b"), ("distance", "θ(α) and the mixture"))
]
alt.Chart(alt.InlineData(values=bars)).mark_bar().encode(
    x=alt.X("layer:N", sort=None, title=None),
    y=alt.Y("1 - cosine:Q", stack=None, title="1 - cosine, mean over test samples"),
    color=alt.Color("between:N", scale=alt.Scale(range=["#d8b365", "#01665e"])).legend(
        labelLimit=300
    ),
    tooltip=["layer:N", "between:N", alt.Tooltip("1 - cosine:Q", format=".2e")],
).properties(width=180, height=200).facet("α:N")

# %% [markdown]
# The green bars are almost invisible beside the yellow ones, at every layer. The network half-way
# is not close to either end; its features are the *mixture* of theirs.
#
# One layer is exact: before the first activation the features are linear in the weights, so its bar
# is zero up to rounding. The numbers:

# %%
print(f"{'layer':>14} {'to the mixture':>15} {'between ends':>13}")
for row in (row for row in rows if row["alpha"] == 0.5):
    print(f"{row['layer']:>14} {row['distance']:15.2e} {row['baseline']:13.2e}")

# %% [markdown]
# The same at α = ½ as one of the charts that come with the package, on a logarithmic scale:

# %%
study.plot("llfc_layers")
