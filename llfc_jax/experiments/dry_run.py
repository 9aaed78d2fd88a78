"""What an experiment would do and need, from shapes alone: nothing is trained here."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from llfc_jax import data, networks
from llfc_jax.data.stream import is_streamed
from llfc_jax.experiments import sweep
from llfc_jax.experiments.config import Config
from llfc_jax.experiments.run import build_network
from llfc_jax.frameworks import Network
from llfc_jax.graph import trace
from llfc_jax.graph.trace import Program, abstract, is_literal
from llfc_jax.measures import MEASURES, EvalOptions
from llfc_jax.measures.measure import MIDDLE
from llfc_jax.parallel import loops, sharding
from llfc_jax.training.finetuning import join_variants
from llfc_jax.training.step import make_setup
from llfc_jax.types import Inputs, Model

# Arrays of the parameters' size that an optimizer keeps beside them.
OPTIMIZER_COPIES = {"sgd": 1, "adam": 2, "adamw": 2}


def plan(config: Config) -> dict[str, dict[str, str]]:
    """Returns what a run of this config would do: heading -> what -> how much.

    The data are loaded and the network is traced, so that mistakes in them show; sizes are
    estimates from shapes. Of a sweep, the first run stands for all.

    Raises:
        LlfcError: what `run.run` or `sweep.run` would raise before it trains.
    """
    if config.sweep:
        runs = sweep.expand(config)
        return {"sweep": _sweep(runs, config.together), **plan(runs[0].config)}
    dataset = data.load(**dataclasses.asdict(config.data))
    module = build_network(config, dataset)
    x = dataset.inputs(config.eval.batch_size)
    variables = jax.eval_shape(lambda key: networks.init(module, key, x), jax.random.key(0))
    graph = trace(module.apply, variables, x)
    recipe = config.train
    runs = config.list_runs()
    tuned = config.finetune.variants if any(run.finetuning for run in runs) else ()
    ranges = join_variants(dataset, tuned).ranges if tuned else ()
    steps = make_setup(module, recipe, dataset, ranges=ranges).steps
    counts = [
        sum(run.start <= epoch < run.end for run in runs) for epoch in {r.start for r in runs}
    ]
    together = max(counts, default=0)
    size = _bytes(variables)
    measuring = sum(estimate_memory(module, variables, x, config.eval).values())
    training = together * size * (2 + OPTIMIZER_COPIES.get(recipe.optimizer, 2))
    splits = {"train": dataset.train, "test": dataset.test}
    streams = [name for name, split in splits.items() if is_streamed(split, dataset)]
    kept = [s.images.nbytes + s.labels.nbytes for n, s in splits.items() if n not in streams]
    return {
        "data": {
            "name": dataset.name,
            "train, test": f"{len(dataset.train):,}, {len(dataset.test):,} samples",
            "shape": f"{' x '.join(map(str, dataset.shape))}, "
            + ("no classes" if dataset.classes is None else f"{dataset.classes} classes"),
        },
        "network": {
            "name": str(config.network["name"]),
            "parameters": f"{networks.count(variables):,}",
            "sites": f"{len(graph.select(config.eval.sites))} "
            f"({', '.join(s.name for s in graph.select(config.eval.sites)[:4])}, ...)",
        },
        "training": {
            "pairs": ", ".join(config.pair_names),
            "epochs": f"{recipe.epochs} of {steps} steps, batch {recipe.batch_size}",
            "steps": f"{sum((run.end - run.start) * steps for run in runs):,} over {len(runs)} "
            f"runs, at most {together} side by side",
        },
        "measuring": dict(_measuring(config)),
        "devices": _devices(config),
        "memory": {
            "data": _readable(sum(kept)) + "".join(f", {name} streamed" for name in streams),
            "training": f"about {_readable(training)}, and the batches' features",
            "measuring": f"up to {_readable(measuring)} a batch of {x.shape[0]}",
        },
    }


def estimate_memory(
    network: Model, variables: Model, x: Inputs, options: EvalOptions | None = None
) -> dict[str, int]:
    """Returns about how many bytes each device needs at most to measure a pair on a batch.

    Counted are the two modes; the points of the line that are there at a time; a leaf that is
    gathered, or as much again as a point; the features of both ends at all sites in float32, which
    are kept while the line is walked; and what a run of each point holds at its fullest.

    Args:
        network: what `Network.of` takes.
        variables: a mode, or shapes and types (`jax.ShapeDtypeStruct`); where they have shardings,
            each device counts its part.
        x: a batch, or its shape.
        options: whose `alphas`, `alpha_loop` and `sites` count.

    Examples:
        >>> import numpy as np
        >>> apply = lambda w, x: x @ w
        >>> estimate_memory(apply, np.ones((4, 2), "f4"), np.ones((3, 4), "f4"))
        {'modes': 64, 'points': 32, 'moved': 32, 'features': 48, 'runs': 72}
    """
    options, view = options or EvalOptions(), Network.of(network)
    variables = view.variables(variables)
    graph = trace(view, variables, x)
    parts = [_part(leaf) for leaf in jax.tree.leaves(variables)]
    spread = sum(parts) < _bytes(variables)
    how = options.alpha_loop or loops.choose_loops(view.apply, abstract(variables), x).alphas
    points = 1 if spread or how == "map" else len({*options.alphas, MIDDLE} - {0, 1})
    features = sum(4 * math.prod(site.shape) for site in graph.select(options.sites))
    return {
        "modes": 2 * sum(parts),
        "points": points * sum(parts),
        "moved": max(sum(parts), *(_size(leaf) for leaf in jax.tree.leaves(abstract(variables)))),
        "features": 2 * features,
        "runs": points * _fullest(graph.program),
    }


def _fullest(program: Program) -> int:
    """Returns the most bytes of values that a run holds at a time, if each goes after its use."""
    given = {*program.leaves, *program.constants}
    uses = {a: i for i, eq in enumerate(program.equations) for a in eq.inputs if not is_literal(a)}
    uses |= dict.fromkeys(program.outputs, len(program.equations))
    live = {number: _size(program.avals[number]) for number in program.inputs}
    fullest = 0
    for i, eq in enumerate(program.equations):
        live |= {number: _size(program.avals[number]) for number in eq.outputs}
        fullest = max(fullest, sum(live.values()))
        for number in (*eq.inputs, *eq.outputs):
            if not is_literal(number) and number not in given and uses.get(number, i) <= i:
                live.pop(number, None)
    return fullest


def _part(leaf: Any) -> int:
    """Returns the bytes of an array that one device holds."""
    sharding = getattr(leaf, "sharding", None)
    shape = np.shape(leaf) if sharding is None else sharding.shard_shape(leaf.shape)
    return math.prod(shape) * np.dtype(leaf.dtype).itemsize


def _sweep(runs: list[sweep.Run], most: int) -> dict[str, str]:
    batches = sweep.together(sweep.families(runs), most)
    largest = max(sum(len(run.config.pairs) for run in batch) for batch in batches)
    return {
        "runs": f"{len(runs)}; what follows is the first, {runs[0].name}",
        "trained": f"{len(batches)} batches in turn, up to {largest} pairs side by side",
    }


def _devices(config: Config) -> dict[str, str]:
    kinds = sorted({device.device_kind for device in jax.devices()})
    mesh = sharding.make(config.mesh.replica, config.mesh.data)
    return {
        "available": f"{jax.device_count()} ({', '.join(kinds)})",
        "used": " x ".join(f"{n} {axis}" for axis, n in mesh.shape.items()) if mesh else "1",
    }


def _measuring(config: Config) -> Iterator[tuple[str, str]]:
    yield "alignments", ", ".join(config.align)
    for name in config.measures:
        splits = config.eval.splits or MEASURES[name].splits
        yield name, f"{' and '.join(splits)} split, {len(config.eval.alphas)} points"


def _size(aval: jax.ShapeDtypeStruct) -> int:
    return math.prod(getattr(aval, "shape", ())) * getattr(aval.dtype, "itemsize", 0)


def _bytes(tree: PyTree) -> int:
    return sum(map(_size, jax.tree.leaves(tree)))


def _readable(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
