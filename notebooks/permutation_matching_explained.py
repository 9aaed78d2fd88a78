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
# The hidden units of a layer have no order: exchange two of them, with their weights on both sides,
# and the network computes what it did. So two networks may have learnt alike and still differ by a
# permutation. Which units may trade places is read off the network's trace; which permutation
# brings one network closest to the other is then a problem of assignment.

# %%
# %matplotlib inline
import os

import jax
import matplotlib.pyplot as plt
import numpy as np

import llfc_jax
from llfc_jax import data, networks, symmetry, training
from llfc_jax.graph import trace

TINY = os.environ.get("LLFC_TINY") == "1"  # so that tests of this notebook are quick

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
# The spec follows each axis of each weight through the equations. Axes that must move together are
# a *group*; inputs and logits stay where they are.

# %%
x, _ = next(iter(data.Batches(digits.test, digits, 100)))
spec = symmetry.permutation_spec(network.apply, pair.a, x)
print(spec.explain())

# %% [markdown]
# It is proved on numbers: random permutations leave the logits as they were.

# %%
print(symmetry.check(spec, network.apply, pair.a, x))

# %% [markdown]
# Nothing in it is written for MLPs. A transformer has groups inside groups: heads trade places, and
# inside each head the width of query and key, and that of value and output.

# %%
vit = networks.build("vit", 10, patch=2, dim=16, depth=1, heads=2, mlp_dim=32)
print(symmetry.permutation_spec(vit.apply, networks.init(vit, jax.random.key(0), x), x).explain())

# %% [markdown]
# ## Before and after
#
# *Weight matching* needs no data; *activation matching* looks at what the units do on training
# images. Either way `b` is the same function afterwards, so its end of the line does not move. What
# changes is the way there.

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
# ## Seen in one layer
#
# Correlations between the units of a and of b in the first hidden layer. Unaligned, partners lie
# anywhere; aligned by activations, they lie on the diagonal.

# %%
graph = trace(network.apply, pair.a, x)


def units(variables: object) -> np.ndarray:
    """Standardised activations of the first ReLU [images, units]."""
    h = np.asarray(graph.evaluate(variables, x)["Dense_0.relu"])
    return (h - h.mean(0)) / (h.std(0) + 1e-6)


figure, axes = plt.subplots(1, 2, figsize=(7, 3.4), layout="constrained")
for ax, title, b in (
    (axes[0], "as trained", pair.b),
    (axes[1], "aligned", study.aligned["pair", "activation"].variables),
):
    picture = ax.imshow(units(pair.a).T @ units(b) / len(x), vmin=-1, vmax=1, cmap="RdBu_r")
    ax.set(title=title, xlabel="unit of b", ylabel="unit of a")
figure.colorbar(picture, ax=axes, label="correlation")
plt.show()

# %% [markdown]
# ## Where matching falls short
#
# Deep networks without normalisation (VGG) and narrow ones keep a barrier after matching. Two
# reasons, both measured here: features shrink half-way (`renormalise="repair"` or `"reset"` mends
# it), and units of a may have no partner in b at all: there is no permutation that helps.
