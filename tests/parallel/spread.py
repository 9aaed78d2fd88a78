"""Measures and matches a pair that lies on eight forced devices; test_spread.py compares it.

python spread.py OUT, with XLA_FLAGS=--xla_force_host_platform_device_count=8.
"""

import pickle
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import llfc_jax
from llfc_jax import measures
from llfc_jax.experiments.dry_run import estimate_memory
from llfc_jax.measures import EvalOptions
from llfc_jax.pair import interpolate

WIDTH, DEPTH = 128, 2
DATA = (np.random.default_rng(0).normal(size=(10, 16)).astype(np.float32), np.arange(10) % 8)
OPTIONS = {"measures": ["lmc", "llfc"], "alphas": (0, 0.5, 1), "batch_size": 4,
           "match": {"weight": {"start": "anchored"}}}  # fmt: skip


class Net(nn.Module):
    """A residual MLP."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(WIDTH)(x)
        for _ in range(DEPTH):
            x = x + nn.Dense(WIDTH)(nn.relu(nn.Dense(2 * WIDTH)(x)))
        return nn.Dense(8)(x)


def modes():
    """Two modes on one device."""
    x = jnp.asarray(DATA[0])
    return [Net().init(jax.random.key(i), x) for i in range(2)]


def spread(tree, mesh):
    """The tree as FSDP and tensor parallelism lay it out, by turns."""

    def spec(path, leaf):
        if leaf.ndim == 1:
            return P(("x", "y")) if leaf.size % 16 == 0 else P()
        tensor = leaf.shape == (WIDTH, 2 * WIDTH)
        return P("x", "y") if tensor else P(("x", "y"))

    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.device_put(leaf, NamedSharding(mesh, spec(path, leaf))), tree
    )


def held(tree):
    """Bytes of a tree on the device that holds most of it."""
    by_device = dict.fromkeys(jax.devices(), 0)
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            by_device[shard.device] += shard.data.nbytes
    return max(by_device.values())


def peaks():
    """Program -> the most bytes that it needs on a device: what it takes, gives and has between."""
    found = {}
    for executable in jax.devices()[0].client.live_executables():
        stats = executable.get_compiled_memory_stats()
        name = executable.hlo_modules()[0].name
        need = stats.argument_size_in_bytes + stats.output_size_in_bytes
        need += stats.temp_size_in_bytes - stats.alias_size_in_bytes
        found[name] = max(found.get(name, 0), need)
    return found


def study(a, b, data, align):
    """What a study of the two gives, and what its programs need."""
    jax.clear_caches()
    found = llfc_jax.study(Net(), a, b, data, align=align, **OPTIONS)
    return {"rows": found.rows, "peaks": peaks(), "aligned": list(found.aligned.values())}


def main():
    options = EvalOptions(alphas=OPTIONS["alphas"])
    one = modes()
    out = {
        "one": study(*one, DATA, ["none", "weight"]),
        "one_estimate": estimate_memory(Net(), one[0], DATA[0][:4], options),
    }
    mesh = jax.make_mesh((4, 2), ("x", "y"))  # its axes are explicit where that is JAX's default
    a, b = (spread(mode, mesh) for mode in one)
    out["spread"] = study(a, b, DATA, ["none", "weight"])
    out["spread_estimate"] = estimate_memory(Net(), a, DATA[0][:4], options)
    (aligned,) = out["spread"]["aligned"]
    out["held"] = [held(tree) for tree in (one[0], a, b, interpolate(a, b, 0.5), aligned.variables)]
    # Batches that lie on the mesh already, their samples over one of its axes.
    parts = [tuple(part[i : i + 4] for part in DATA) for i in (0, 4, 8)]
    on_mesh = jax.device_put(parts, NamedSharding(mesh, P("y")))
    on_host = jax.tree.map(np.asarray, one[1])
    out["on_mesh"] = measures.lmc(Net(), a, on_host, on_mesh, alphas=OPTIONS["alphas"]).loss
    for name in ("one", "spread"):
        (aligned,) = out[name].pop("aligned")
        out[name]["permutation"] = jax.tree.map(np.asarray, aligned.permutation)
    Path(sys.argv[1]).write_bytes(pickle.dumps(out))


if __name__ == "__main__":
    main()
