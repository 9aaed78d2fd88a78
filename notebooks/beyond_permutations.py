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
# # Beyond permutations: what else may be moved in a transformer
#
# The units of a layer can be exchanged, and matching two networks usually means to find the best
# such permutation. In a transformer much more leaves the function as it is: the residual stream
# can be rotated, and inside each attention head the queries and keys, and the values, can be
# multiplied by any invertible matrix. Here we take two small transformers that were trained
# independently, read off their trace what may be moved, and look at the line between them for each
# kind of alignment.
#
# It runs on a CPU in about two minutes, and on a GPU or TPU as it is: on Colab, choose one under
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
import numpy as np

import llfc_jax
from llfc_jax import data, networks, symmetry, training

TINY = os.environ.get("LLFC_TINY") == "1"  # set by the tests of this notebook

# %% [markdown]
# ## Two independent transformers
#
# One block with four heads, RMSNorm and GELU, on the embedded digits.

# %%
digits = data.load("digits", train_size=128 if TINY else None)
network = networks.build(
    "vit", digits.classes, patch=2, dim=24, depth=1, heads=4, mlp_dim=64, norm="rms"
)
recipe = training.Recipe(
    epochs=1 if TINY else 30,
    batch_size=64,
    optimizer="adamw",
    learning_rate=4e-3,
    schedule="warmup_cosine",
    warmup_epochs=1,
    weight_decay=1.0,
)
pair = training.train_pairs(network, digits, recipe, ("independent",), seed=0)["independent"]

# %% [markdown]
# ## What may be moved
#
# `symmetry_spec` follows each axis of each weight through the equations, and finds the largest
# group that all of them allow.

# %%
x, _ = next(iter(data.Batches(digits.test, digits, 64)))
spec = symmetry.symmetry_spec(network, pair.a, x)
print(spec.explain())

# %% [markdown]
# The stream may be rotated once the gains of the norms are *folded* into the weights that read the
# normalised values. `fold` does that, and changes no output. Then a random element of the group
# moves every weight, and still changes no output beyond rounding.

# %%
folded = spec.fold(pair.a)
moved = spec.apply(spec.random(jax.random.key(0)), folded)
logits = network.apply(pair.a, x)
for name, weights in (("folded", folded), ("folded, then moved at random", moved)):
    change = np.abs(network.apply(weights, x) - logits).max() / np.abs(logits).max()
    print(f"{name}: the logits change by {change:.1e} of their size")

# %% [markdown]
# ## Aligned in closed form
#
# Activation matching over four sets of symmetries: *permutation* moves units and heads only,
# *heads* also uses matrices inside each head, *stream* one rotation of the residual stream, and
# *full* all that the network allows. In every case `b` computes the same function as before.

# %%
SETS = ("permutation", "heads", "stream", "full")
closed = {name: {"method": "activation", "symmetry": name} for name in SETS}
study = llfc_jax.study(
    network,
    pair.a,
    pair.b,
    digits,
    name="closed form",
    measures=["lmc", "llfc"],
    align=["none", *SETS],
    match=closed,
    alphas=np.linspace(0, 1, 11),
)
study.plot("lmc_aligned")

# %% [markdown]
# The whole group takes away about half of the barrier, permutations a quarter. The recipe matters:
# with little weight decay, closed forms leave more. Weight matching (`"method": "weight"`) is the
# other closed form; it needs no data.
#
# ## Aligned by learning
#
# *Learned* matching improves the element of the group by gradients, so that loss and features
# along the line become as they should be. So many free numbers can train the middle of the line
# whatever `b` is. The *control* repeats it with the entries of each weight of `b` shuffled: only
# what is gained beyond the control says something about the two networks. *without_labels* learns
# on the linearity of the features alone: layerwise linear feature connectivity, made an objective.

# %%
steps = {"steps": 20 if TINY else 100}
learned = {
    "permutation": {"method": "learned", "symmetry": "permutation", **steps},
    "full": {"method": "learned", "symmetry": "full", "control": True, **steps},
    "without_labels": {"method": "learned", "objective": "linearity", "control": True, **steps},
}
study += llfc_jax.study(
    network,
    pair.a,
    pair.b,
    digits,
    name="learned",
    measures=["lmc", "llfc"],
    align=["none", *learned],
    match=learned,
    alphas=np.linspace(0, 1, 11),
)
study.plot("lmc_aligned")

# %%
study

# %% [markdown]
# Without labels the barrier goes as far as with them. The features of a shuffled `b` become as
# linear, so the objective alone proves nothing; that the loss in the middle falls with it does.
#
# [The documentation](../docs/beyond_permutations.md) has the table of what each equation allows,
# and the same experiment with larger networks, several seeds, and more controls.
