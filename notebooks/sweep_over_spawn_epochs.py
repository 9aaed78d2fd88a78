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
# # How long must two networks train together? A sweep over spawning epochs
#
# Two networks share the first k epochs and then see the data in different orders. How does k change
# the line between them, and the features along it? All pairs are trained side by side, and what
# they share is trained once: as one batch (`vmap`) on a GPU or TPU, in turns on a CPU.
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
# ## Measure all pairs
#
# Every row of a summary is a dictionary, ready for pandas or for a chart of your own.

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
# On a data set as easy as this one, every k leaves the two networks connected: the barriers are
# tenths of a point, which is one or two test images. What changes with k is how linear the features
# are. One shared epoch brings the features half-way (solid) much closer to the mixture, and this
# gain is larger than the one between the two networks' own features (dashed): they remain different
# networks.

# %%
points = [
    {
        "seed": row["seed"],
        "k": row["k"],
        "points": 100 * row["error_barrier"],
        "to the mixture": row["llfc_median"],
        "between a and b": row["llfc_median"] * row["llfc_ratio"],
    }
    for row in rows
]
base = alt.Chart(alt.InlineData(values=points)).encode(
    x=alt.X("k:O", title="k, shared epochs", axis=alt.Axis(labelAngle=0)), color="seed:N"
)
barrier = base.mark_line(point=True).encode(y=alt.Y("points:Q", title="error barrier, points"))
distances = (
    base.transform_fold(["to the mixture", "between a and b"], as_=["distance", "value"])
    .mark_line()
    .encode(
        y=alt.Y("value:Q", title="1 - cosine, median layer", scale=alt.Scale(type="log")).axis(
            format="~e", tickCount=5
        ),
        strokeDash=alt.StrokeDash("distance:N", sort=["to the mixture"]).legend(
            symbolType="stroke", symbolSize=300
        ),
    )
)
barrier.properties(width=260, height=240) | distances.properties(width=260, height=240)

# %% [markdown]
# For sweeps that run for hours or on several machines, write a config with `config.sweep`, such as
# `configs/sweep_spawn_mlp.py`, and pass it to `llfc-jax`: it continues after a stop, and writes
# tables and a page with intervals over the seeds.
