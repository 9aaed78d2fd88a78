"""Measuring LLFC in one pass against storing all features, one α a run: time and memory.

    python benchmarks/llfc_stored.py                      # MLP, 10,000 samples: a minute
    python benchmarks/llfc_stored.py resnet20 --samples 500
    python benchmarks/llfc_stored.py vgg16 --samples 100 --ours-too 1000
    python benchmarks/llfc_stored.py --whole              # 11 processes against one

What the paper's scripts do is written here plainly, for all 11 alphas: a run per α, in each of
which the features of both ends and of θ_α are computed, every layer's kept in host memory until
the last batch, and compared in float64 after it: θ_α with the mixture and a with b, distance and
coefficient, their means and deviations over samples and those of the whole matrix. The forward
passes are the same compiled ones as ours, and so are the numbers that come out. Each way runs in a
fresh process, once with one batch to compile, then timed; the memory is the peak resident set of
that process, with all that Python and JAX take, and then what it is above a process that does
nothing but run the network over the same batches.

With `--whole` a run is a process: what the user of such a script waits for, eleven times, start and
compilation and all.

What is stored grows with the samples; ours does not. So where 10,000 samples do not fit, run both
on fewer (`--samples`) and ours on more (`--ours-too`).
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from llfc_jax import networks
from llfc_jax.graph import features, trace
from llfc_jax.measures import ALPHAS, llfc
from llfc_jax.modes import interpolate

# Name -> (network, its fields, image shape, batch size).
CASES: dict[str, tuple[str, dict[str, Any], tuple[int, ...], int]] = {
    "mlp": ("mlp", {}, (28, 28, 1), 500),
    "resnet20": ("resnet_cifar", {}, (32, 32, 3), 100),
    "vgg16": ("vgg", {"norm": "batch"}, (32, 32, 3), 50),
}
SITES = ("linear", "relu")
ON_THE_LINE = (
    *("distance", "distance_std", "coefficient", "coefficient_std"),
    *("pooled_distance", "pooled_coefficient"),
)
OF_THE_ENDS = ("baseline", "baseline_std", "pooled_baseline")


class Made:
    """Random images and labels, made anew at every pass and always the same."""

    def __init__(self, shape: tuple[int, ...], samples: int, batch: int) -> None:
        self.shape, self.samples, self.batch = shape, samples, batch

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, self.samples, self.batch):
            random, n = np.random.default_rng(start), min(self.batch, self.samples - start)
            yield random.random((n, *self.shape), np.float32), random.integers(0, 10, n, np.int32)


def compared(u: np.ndarray, v: np.ndarray) -> dict[str, float]:
    """Distance and coefficient of two layers' features, per sample and of the whole matrix."""
    u, v = (features.astype(np.float64).reshape(len(features), -1) for features in (u, v))
    inner, uu, vv = (np.einsum("nd,nd->n", p, q) for p, q in ((u, v), (u, u), (v, v)))
    distance, coefficient = 1 - inner / np.sqrt(uu * vv), inner / vv
    return {
        "distance": distance.mean(),
        "distance_std": distance.std(ddof=1),
        "coefficient": coefficient.mean(),
        "coefficient_std": coefficient.std(ddof=1),
        "pooled_distance": 1 - inner.sum() / np.sqrt(uu.sum() * vv.sum()),
        "pooled_coefficient": inner.sum() / vv.sum(),
    }


def stored(apply: Any, a: Any, b: Any, batches: Made, alphas: tuple[float, ...]) -> np.ndarray:
    """What LLFC is reported by [alphas, layers, numbers], from features that are all kept."""
    graph = trace(apply, a, next(iter(batches))[0])
    sites = graph.select(SITES)

    @jax.jit
    def run(variables: Any, x: Any) -> list[jax.Array]:
        values = graph.evaluate(variables, x)
        return [features(values, site) for site in sites]

    def kept(variables: Any) -> list[np.ndarray]:
        parts = [[np.asarray(f) for f in run(variables, x)] for x, _ in batches]
        return [np.concatenate(layer) for layer in zip(*parts, strict=True)]

    found = []
    for alpha in alphas:
        of_a, of_b, middle = kept(a), kept(b), kept(interpolate(a, b, alpha))
        row = []
        for p, q, f in zip(of_a, of_b, middle, strict=True):
            line, ends = compared(f, alpha * p + (1 - alpha) * q), compared(p, q)
            row.append(
                [line[name] for name in ON_THE_LINE]
                + [ends[name.replace("baseline", "distance")] for name in OF_THE_ENDS]
            )
        found.append(row)
    return np.array(found)


def streamed(apply: Any, a: Any, b: Any, batches: Made, alphas: tuple[float, ...]) -> np.ndarray:
    """The same numbers, as the library measures them."""
    found = llfc(apply, a, b, batches, alphas=alphas)
    line = [getattr(found, name) for name in ON_THE_LINE]
    ends = [np.repeat(getattr(found, name)[:, None], len(alphas), 1) for name in OF_THE_ENDS]
    return np.stack([*line, *ends], axis=-1).swapaxes(0, 1)


def plain(apply: Any, a: Any, b: Any, batches: Made, alphas: tuple[float, ...]) -> np.ndarray:
    """Nothing but the network's outputs."""
    run = jax.jit(apply)
    return np.concatenate([np.asarray(run(a, x)) for x, _ in batches])


WAYS = {"ours": streamed, "stored": stored, "plain": plain}


def alone(case: str, way: str, samples: int, alphas: tuple[float, ...] | None) -> dict[str, Any]:
    """What this process measures: seconds, peak MiB, and the numbers themselves.

    Of all alphas, after a batch to compile; of the alphas given, at once.
    """
    name, fields, shape, batch = CASES[case]
    module = networks.build(name, 10, **fields)
    like = jax.ShapeDtypeStruct((batch, *shape), np.float32)
    a, b = (networks.init(module, jax.random.key(seed), like) for seed in (0, 1))

    def measure(count: int, alphas: tuple[float, ...]) -> np.ndarray:
        batches = Made(shape, count, batch)
        return WAYS[way](module.apply, a, b, batches, alphas)

    def peak() -> float:
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

    if alphas is None:
        measure(batch, ALPHAS if way == "ours" else ALPHAS[:1])
    begun = time.perf_counter()
    found = measure(samples, alphas or ALPHAS)
    return {"seconds": time.perf_counter() - begun, "peak": peak(), "found": found.tolist()}


def fresh(case: str, way: str, samples: int, alphas: tuple[float, ...] = ()) -> dict[str, Any]:
    """`alone` in a process of its own."""
    command = [sys.executable, __file__, case, "--way", way, "--samples", str(samples)]
    command += ["--alphas", *map(str, alphas)] if alphas else []
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out)


def whole(case: str, samples: int) -> None:
    """Print how long one process of ours takes, and eleven of the other way."""
    seconds, found = {}, {}
    for way, runs in (("ours", [ALPHAS]), ("stored", [(alpha,) for alpha in ALPHAS])):
        begun = time.perf_counter()
        found[way] = [row for run in runs for row in fresh(case, way, samples, run)["found"]]
        seconds[way] = time.perf_counter() - begun
    ours, theirs = seconds["ours"], seconds["stored"]
    off = np.abs(np.array(found["ours"]) - np.array(found["stored"])).max()
    print(f"{case}, {samples:,} samples, whole runs: ours {ours:.1f} s, {len(ALPHAS)} stored "
          f"{theirs:.1f} s, ratio {theirs / ours:.1f}; largest difference {off:.1e}")  # fmt: skip


def main() -> None:
    """Print the comparison, or be the fresh process that does one part of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("case", nargs="?", default="mlp", choices=CASES)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--ours-too", type=int, help="ours alone, on so many")
    parser.add_argument("--whole", action="store_true", help="whole processes, start and all")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--alphas", type=float, nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        alphas = tuple(asked.alphas) if asked.alphas else None
        print(json.dumps(alone(asked.case, asked.way, asked.samples, alphas)))
        return
    if asked.whole:
        whole(asked.case, asked.samples)
        return
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {len(ALPHAS)} alphas")
    runs = {way: fresh(asked.case, way, asked.samples) for way in ("ours", "stored")}
    least = fresh(asked.case, "ours", CASES[asked.case][3])["peak"]
    bare = fresh(asked.case, "plain", asked.samples)["peak"]
    for way, run in runs.items():
        print(f"{asked.case}, {asked.samples:,} samples, {way:<7}{run['seconds']:8.2f} s"
              f"{run['peak']:8.0f} MiB")  # fmt: skip
    ours, theirs = runs["ours"], runs["stored"]
    off = np.abs(np.array(ours["found"]) - np.array(theirs["found"])).max()
    print(f"stored / ours: time {theirs['seconds'] / ours['seconds']:.1f}, "
          f"memory {theirs['peak'] / ours['peak']:.1f}; largest difference {off:.1e}")  # fmt: skip
    print(f"memory above the {bare:.0f} MiB of the network alone: "
          f"{(theirs['peak'] - bare) / (ours['peak'] - bare):.1f}")  # fmt: skip
    print(f"ours on a single batch: {least:.0f} MiB")
    if asked.ours_too:
        more = fresh(asked.case, "ours", asked.ours_too)
        print(f"ours on {asked.ours_too:,}: {more['seconds']:.2f} s {more['peak']:.0f} MiB")


if __name__ == "__main__":
    main()
