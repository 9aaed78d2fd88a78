"""Prints the ratios behind `parallel.loops` and `graph.convolutions` on this machine.

python benchmarks/execution_cliffs.py        (about a minute on 2 cores)

A ratio above 1 says that the choice named first is the slower one.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from llfc_jax import networks
from llfc_jax.data import Dataset, Split
from llfc_jax.graph.convolutions import adapted
from llfc_jax.parallel.loops import LoopPlan, choose_loops, map_over
from llfc_jax.training import Recipe, create_state
from llfc_jax.training.loop import Pace, place_states, run_epoch
from llfc_jax.training.state import stack
from llfc_jax.training.step import make_setup

REPLICAS, ALPHAS, STEPS, ROUNDS = 4, 11, 4, 3
SMALL = ((32, 2, 2, 512), (3, 3, 512, 512))
NETWORKS = {
    "dense (MLP 784-512-512-512-10)": ("mlp", {}, 128),
    "convolutional (LeNet-5)": ("lenet5", {}, 32),
}


def fastest(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Best time of each, in seconds, after one run to compile; taken in turns."""
    for run in runs.values():
        jax.block_until_ready(run())
    times: dict[str, float] = dict.fromkeys(runs, float("inf"))
    for _ in range(ROUNDS):
        for name, run in runs.items():
            began = time.perf_counter()
            jax.block_until_ready(run())
            times[name] = min(times[name], time.perf_counter() - began)
    return times


def made(batch: int) -> Dataset:
    """As many random images as `STEPS` batches take."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (STEPS * batch, 28, 28, 1), dtype=np.uint8)
    labels = np.arange(len(images), dtype=np.int32) % 10
    return Dataset("made", Split(images, labels), Split(images, labels), 10, (0.3,), (0.3,))


def training(name: str, values: dict[str, Any], batch: int) -> dict[str, float]:
    """Seconds per step and replica, by plan and number of replicas."""
    dataset, module = made(batch), networks.build(name, 10, **values)
    recipe = Recipe(epochs=100, batch_size=batch, learning_rate=1e-3)
    task = make_setup(module, recipe, dataset)
    data = jax.device_put((dataset.train.images, dataset.train.labels))

    def run(steps: Any, replicas: Any, count: int) -> Callable[[], Any]:
        keys = jax.random.split(jax.random.key(0), count)
        shape = dataset.shape
        states = stack([create_state(module, recipe, key, shape, task.steps) for key in keys])
        how = LoopPlan(steps=steps, replicas=replicas)
        groups = place_states(states, how)
        return lambda: [list(run_epoch(task, how, data, groups, 0, Pace(STEPS))), groups][1]

    runs = {
        "scan": (run("scan", "loop", 1), 1),
        "python": (run("python", "loop", 1), 1),
        "scan vmap": (run("scan", "vmap", REPLICAS), REPLICAS),
        "scan loop": (run("scan", "loop", REPLICAS), REPLICAS),
        "python vmap": (run("python", "vmap", REPLICAS), REPLICAS),
        "python loop": (run("python", "loop", REPLICAS), REPLICAS),
    }
    times = fastest({name: run for name, (run, _) in runs.items()})
    return {name: times[name] / count / STEPS for name, (_, count) in runs.items()}


def measuring(name: str, values: dict[str, Any]) -> dict[str, float]:
    """Seconds for the logits at all alphas between two networks, by way of mapping."""
    module = networks.build(name, 10, **values)
    x = jax.random.normal(jax.random.key(1), (500, 28, 28, 1))
    a, b = (networks.init(module, jax.random.key(seed), x) for seed in (0, 1))
    alphas = jnp.linspace(0.0, 1.0, ALPHAS)

    @partial(jax.jit, static_argnames="how")
    def line(a: Any, b: Any, how: Any) -> Any:
        def at(alpha: jax.Array) -> Any:
            between = jax.tree.map(lambda u, v: alpha * u + (1 - alpha) * v, a, b)
            return module.apply(between, x)

        return map_over(at, alphas, how)

    return fastest({how: partial(line, a, b, how) for how in ("vmap", "map", "unroll")})


def small() -> dict[str, float]:
    """Seconds for a 3 x 3 convolution on 2 x 2 positions, batch 32, 512 channels, and gradients.

    And for the forward pass of a VGG-16, in which there are three of them.
    """
    x, kernel = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate(SMALL))

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)

    ways = {"as traced": plain, "as product": adapted(plain)}
    runs: dict[str, Callable[[], Any]] = {}
    for name, way in ways.items():
        runs[name] = partial(jax.jit(way), x, kernel)
        gradient = jax.grad(lambda x, k, way=way: way(x, k).sum(), (0, 1))
        runs[f"gradient {name}"] = partial(jax.jit(gradient), x, kernel)
    module = networks.build("vgg", 10)
    images = jax.random.normal(jax.random.key(2), (32, 32, 32, 3))
    variables = networks.init(module, jax.random.key(3), images)
    for name, way in (("as traced", module.apply), ("as product", adapted(module.apply))):
        runs[f"VGG-16 {name}"] = partial(jax.jit(way), variables, images)
    return fastest(runs)


def main() -> None:
    """Measure and print."""
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    print("\n3 x 3 convolution on 2 x 2 positions, 512 channels")
    times = small()
    for what in ("", "gradient ", "VGG-16 "):
        first, second = (times[f"{what}{way}"] for way in ("as traced", "as product"))
        print(
            f"  {what or 'forward':<10} {'as traced':>11} / {'as product':<11} "
            f"{first / second:6.1f}   ({1e3 * first:.1f} / {1e3 * second:.1f} ms)"
        )
    for words, (name, values, batch) in NETWORKS.items():
        module = networks.build(name, 10, **values)
        x = jax.ShapeDtypeStruct((1, 28, 28, 1), "float32")
        variables = jax.eval_shape(module.init, jax.random.key(0), x)
        chosen = choose_loops(module.apply, variables, x)
        print(f"\n{words}: {chosen}")
        step = training(name, values, batch)
        for first, second in (
            ("scan", "python"),
            ("scan vmap", "scan loop"),
            ("python vmap", "python loop"),
        ):
            print(
                f"  training   {first:>11} / {second:<11} {step[first] / step[second]:6.2f}   "
                f"({1e3 * step[first]:.2f} / {1e3 * step[second]:.2f} ms per step and replica)"
            )
        line = measuring(name, values)
        for first in ("vmap", "unroll"):
            print(
                f"  {ALPHAS} alphas  {first:>11} / {'map':<11} {line[first] / line['map']:6.2f}   "
                f"({1e3 * line[first]:.0f} / {1e3 * line['map']:.0f} ms)"
            )


if __name__ == "__main__":
    main()
