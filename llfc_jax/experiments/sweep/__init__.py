"""Sweeps: one config, many values; every run resumable, one tidy table at the end.

    python -m llfc_jax.main --config configs/sweep_spawn_mlp.py --workdir out/spawn

`config.sweep` maps fields to the values they take, in groups as the config has them:
`{"seed": (0, 1, 2), "network": {"width": (1, 2, 4)}}`. All combinations are run (`grid`). Fields
below `zip` move together, their first values, then their second ones, instead of in all
combinations: `{"zip": {"train": {"learning_rate": (0.1, 0.2), "batch_size": (64, 128)}}}` is two
runs, and with `"seed": (0, 1)` beside it four. Those whose networks have the same shapes (other
seeds, pairs, learning rates, weight decays, and whatever does not touch training) train side by
side as one batch of replicas, and those that share a trunk train it once (`runner`). Each run has a
directory of its own below `runs/`, complete with its report, so a sweep that was stopped goes on
from what is done, and `--shard i/n` lets n processes on any machines that share the directory do a
part each without talking to each other; each gathers the tables of whatever is done then (`gather`,
`show`), and `--shard 0/0` does nothing else.
"""

from llfc_jax.experiments.sweep.gather import gather, over_seeds
from llfc_jax.experiments.sweep.grid import Run, axes, done, expand, families, shard, together
from llfc_jax.experiments.sweep.runner import run
from llfc_jax.experiments.sweep.show import columns, spread

__all__ = [
    "Run",
    "axes",
    "columns",
    "done",
    "expand",
    "families",
    "gather",
    "over_seeds",
    "run",
    "shard",
    "spread",
    "together",
]
