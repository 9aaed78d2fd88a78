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
# Connectivity* (NeurIPS 2023), draws for spawned pairs, at every layer and several α, the mean over
# test samples of 1 - cosine between the features of θ(α) and the mixture α f(a) + (1 - α) f(b),
# beside 1 - cosine between f(a) and f(b). We draw the same for an MLP of the paper's shape.
#
# As it stands it runs on the embedded digits in seconds. With `DATA = "fashion_mnist"` (prepared
# once, see BUILD.md; about a minute) it is the paper's setting with Fashion-MNIST for MNIST.

# %%
# %matplotlib inline
import os

import matplotlib.pyplot as plt

import llfc_jax
from llfc_jax import data, networks, training

TINY = os.environ.get("LLFC_TINY") == "1"  # so that tests of this notebook are quick
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
# A measure's rows are plain dictionaries: one per layer and α, with the mean over samples and its
# standard deviation.

# %%
rows = study.rows["llfc"]
{k: rows[1][k] for k in ("layer", "alpha", "distance", "distance_std", "baseline", "coefficient")}

# %%
layers = list(dict.fromkeys(row["layer"] for row in rows))
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.2), sharey=True, layout="constrained")
for ax, alpha in zip(axes, (0.25, 0.5, 0.75), strict=True):
    at = [row for row in rows if row["alpha"] == alpha]
    mean, std, ends = ([row[c] for row in at] for c in ("distance", "distance_std", "baseline"))
    ax.bar(layers, ends, color="#d8b365", label="between the ends")
    ax.bar(layers, mean, yerr=std, color="#01665e", label="to the mixture")
    ax.tick_params(axis="x", labelrotation=90)
    ax.set_title(f"α = {alpha}")
axes[0].set_ylabel("1 - cosine, mean over test samples")
axes[0].legend(fontsize=8)
plt.show()

# %% [markdown]
# What to see: the green bars are all but invisible beside the yellow ones at every layer. The
# network half-way does not lie near either end; its features are the *mixture* of theirs.
#
# One layer is exact: before the first ReLU the features are linear in the weights, so the first
# bar is zero up to rounding.

# %%
print(f"{'layer':>14} {'to the mixture':>15} {'between ends':>13}")
for row in (row for row in rows if row["alpha"] == 0.5):
    print(f"{row['layer']:>14} {row['distance']:15.2e} {row['baseline']:13.2e}")
