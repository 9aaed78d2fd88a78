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
# # When do two runs part? A sweep over spawn epochs
#
# Two networks share the first k epochs and then see the data in different orders. What does k do
# to the line between them, and to their features along it? All pairs are trained side
# by side, and what they share is trained once: on GPU and TPU the replicas are one batch (`vmap`),
# on a CPU they take turns.

# %%
# %matplotlib inline
import os

import matplotlib.pyplot as plt

import llfc_jax
from llfc_jax import data, networks, training

TINY = os.environ.get("LLFC_TINY") == "1"  # so that tests of this notebook are quick

# %%
FORKS = (0, 1) if TINY else (0, 1, 2, 4)
SEEDS = (0,) if TINY else (0, 1, 2)
digits = data.load("digits", train_size=200 if TINY else None)
width = 16 if TINY else 128
network = networks.build("mlp", digits.classes, widths=(width, width, width))
recipe = training.Recipe(
    epochs=2 if TINY else 12,
    batch_size=64,
    optimizer="adam",
    learning_rate=1e-3,
    schedule="constant",
    weight_decay=0.0,
)
pairs = training.train_seeds(network, digits, recipe, [f"spawn_k{k}" for k in FORKS], seeds=SEEDS)
print({seed: list(of_seed) for seed, of_seed in pairs.items()})

# %% [markdown]
# ## Measured
#
# Every row of a summary is a dictionary, ready for pandas or a plot of one's own.

# %%
rows = []
for seed, of_seed in pairs.items():
    for k, pair in zip(FORKS, of_seed.values(), strict=True):
        study = llfc_jax.study(
            network, pair.a, pair.b, digits, name=pair.name, measures=["lmc", "llfc"]
        )
        rows.append({"seed": seed, "k": k} | study.summary[0])
        print(seed, k, study.summary[0]["verdict"])

# %% [markdown]
# ## Against k
#
# On a set as easy as this one every k leaves the two connected: the barriers are tenths of a
# point, one or two test images. What k changes is how linear the features are. One shared epoch
# brings the features half-way (solid) about ten times closer to the mixture, and more so than it
# brings the two networks' own features (dashed) to each other: they stay different networks.

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for seed in SEEDS:
    mine = [row for row in rows if row["seed"] == seed]
    k = [row["k"] for row in mine]
    distance = [row["llfc_median"] for row in mine]
    between = [row["llfc_median"] * row["llfc_ratio"] for row in mine]
    axes[0].plot(k, [100 * row["error_barrier"] for row in mine], "o-", label=f"seed {seed}")
    (line,) = axes[1].plot(k, distance, "o-")
    axes[1].plot(k, between, "o--", color=line.get_color(), alpha=0.6)
axes[0].set(xlabel="k, epochs shared", ylabel="error barrier, points", xticks=FORKS)
axes[1].set(xlabel="k, epochs shared", ylabel="1 - cosine, median layer", yscale="log")
axes[1].set_xticks(FORKS)
axes[0].legend()
plt.show()

# %% [markdown]
# For sweeps that run for hours, on several machines, with intervals over seeds, write a config with
# `config.sweep` and give it to `llfc_jax.main`: it resumes, and makes tables and a page of its own.
