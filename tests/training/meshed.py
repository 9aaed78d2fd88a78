"""Trains and measures on a mesh, over one process or several; test_mesh.py compares what comes out.

python meshed.py OUT WORKDIR REPLICA DATA [--processes COORDINATOR COUNT INDEX] [--kill INDEX]
    [--stream]
"""

import argparse
import dataclasses
import os
import pickle
import re
import signal
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tiny import RECIPE, Small, make_dataset

from llfc_jax import measures
from llfc_jax.data import Batches
from llfc_jax.errors import HostsError
from llfc_jax.networks import build
from llfc_jax.parallel import multihost, sharding
from llfc_jax.parallel.loops import LoopPlan
from llfc_jax.training import create_state, train_pairs
from llfc_jax.training.feed import place_train_split
from llfc_jax.training.loop import _draw_orders, _single_step, place_states
from llfc_jax.training.state import stack
from llfc_jax.training.step import make_setup

NETWORKS = {"mlp": build("mlp", 3, widths=(8,)), "conv": Small(3)}
PAIR = "spawn_k1"


def found(
    name: str, laid: Mesh | None = None, stream: bool = False, **options: Any
) -> dict[str, Any]:
    """What training a pair gives, and what measuring it gives, as arrays on the host."""
    module, dataset = NETWORKS[name], make_dataset()
    if stream:
        dataset = dataclasses.replace(dataset, resident_mb=0)
    pair = train_pairs(module, dataset, RECIPE, (PAIR,), mesh=laid, **options)[PAIR]
    # 18 samples, then 18, then 14: none divides by four devices.
    batches = Batches(dataset.test, dataset, 18, laid)
    ends = module.apply, pair.a, pair.b, batches
    made = {
        "training": (pair.a, pair.b, pair.history),
        "lmc": measures.lmc(*ends, alphas=(0.0, 0.5, 1.0)),
        "llfc": measures.llfc(*ends, alphas=(0.5,)),
    }
    return {what: [np.asarray(leaf) for leaf in jax.tree.leaves(made[what])] for what in made}


def talk(name: str, laid: Mesh | None, plan: LoopPlan) -> list[str]:
    """What XLA sends between devices in one step of eight networks."""
    dataset = make_dataset()
    task = make_setup(NETWORKS[name], RECIPE, dataset, laid)
    keys = map(jax.random.key, range(8))
    states = [create_state(task.module, RECIPE, key, dataset.shape, task.steps) for key in keys]
    (group, *_) = place_states(stack(states), plan, laid)
    step = _single_step.lower(
        task, place_train_split(dataset, laid), _draw_orders(task, group), group
    )
    sent = re.findall(r" (all-\w+|collective-\w+|reduce-scatter)\(", step.compile().as_text())
    return sorted(set(sent))


def main() -> None:
    """Everything on the mesh that the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("replica", type=int)
    parser.add_argument("data", type=int)
    parser.add_argument("--processes", nargs=3)
    parser.add_argument("--kill", type=int)
    parser.add_argument("--stream", action="store_true")
    given = parser.parse_args()
    if given.processes:
        where, count, index = given.processes
        multihost.join(where, int(count), int(index))
    laid = sharding.make(given.replica, given.data)

    def progress(done: int, total: int, words: str) -> None:
        if given.kill == jax.process_index() and words.startswith("epoch 3 "):
            os.kill(os.getpid(), signal.SIGKILL)

    with multihost.watched():
        made: dict[str, Any] = {
            name: found(
                name,
                laid,
                given.stream,
                workdir=given.workdir / name,
                checkpoint_seconds=0,
                progress=progress,
            )
            for name in NETWORKS
        }
    if not given.processes:
        apart, across = sharding.make(4, 1), sharding.make(2, 2)
        made["talk"] = {
            "apart": talk("conv", apart, LoopPlan("python", "vmap")),
            "across": talk("conv", across, LoopPlan("python", "loop")),
        }
    if multihost.is_primary():
        given.out.write_bytes(pickle.dumps(made))


if __name__ == "__main__":
    try:
        main()
    except HostsError as error:
        print(error, file=sys.stderr)
        multihost.leave(3)
