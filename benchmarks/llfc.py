"""Prints what measuring LLFC costs beside plain evaluation, and that its memory does not grow.

python benchmarks/llfc.py        (under a minute on 2 cores)

Network: MLP 784-512-512-512-10. Measured: `llfc` at 11 alphas and all 7 sites, batches of 500.

- Time, 10,000 samples: one whole call over K + 2 = 13 plain jitted forward passes over the same
  batches, one per alpha and one per end: the least that any way of measuring needs. Both are warm,
  take turns, and the best of each counts. CPU time, of all threads together, is given beside wall
  time: it depends less on what else the machine does.
- Memory: peak resident set of a fresh process that measures 2,000 or 10,000 samples, and of one
  that makes the 13 plain passes over 2,000. Batches are made as they are read, so that the data
  themselves do not count.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import storing

from llfc_jax import networks
from llfc_jax.measures import llfc
from llfc_jax.measures.options import ALPHAS

SAMPLES, FEW, BATCH, ROUNDS = 10_000, 2_000, 500, 5
NETWORK = networks.build("mlp", 10, widths=(512, 512, 512))


def made(samples: int) -> storing.Made:
    """Random images and labels."""
    return storing.Made((784,), samples, BATCH)


def runs(batches: Any) -> dict[str, Callable[[], Any]]:
    """The two things compared, over the same data."""
    shape = jax.ShapeDtypeStruct((BATCH, 784), np.float32)
    a, b = (networks.init(NETWORK, jax.random.key(seed), shape) for seed in (0, 1))
    forward = jax.jit(NETWORK.apply)

    def plain() -> None:
        for _ in range(len(ALPHAS) + 2):
            jax.block_until_ready([forward(a, x) for x, _ in batches])

    return {"llfc": lambda: llfc(NETWORK.apply, a, b, batches), "plain": plain}


def seconds(compared: dict[str, Callable[[], Any]]) -> dict[str, tuple[float, float]]:
    """Best wall and CPU time of each, after one run to compile; taken in turns."""
    for run in compared.values():
        run()
    best = dict.fromkeys(compared, (float("inf"), float("inf")))
    for _ in range(ROUNDS):
        for name, run in compared.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            taken = time.perf_counter() - wall, time.process_time() - cpu
            best[name] = min(best[name][0], taken[0]), min(best[name][1], taken[1])
    return best


def peak_of(name: str, samples: int) -> float:
    """Peak resident set in MiB of a fresh process that does one of the two."""
    command = [sys.executable, __file__, "--peak", name, "--samples", str(samples)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(out)


def main() -> None:
    """Print the two tables, or be the fresh process that `peak_of` starts."""
    parser = argparse.ArgumentParser(description="What measuring LLFC costs")
    parser.add_argument("--peak", choices=("llfc", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--samples", type=int, default=SAMPLES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peak:
        runs(made(asked.samples))[asked.peak]()
        print(storing.peak())
        return

    few, many = peak_of("llfc", FEW), peak_of("llfc", SAMPLES)
    plain = peak_of("plain", FEW)
    print(f"peak memory, {FEW:,} samples       {few:7.0f} MiB")
    print(f"peak memory, {SAMPLES:,} samples      {many:7.0f} MiB   {many / few:.3f} x the first")
    print(f"plain passes, {FEW:,} samples      {plain:7.0f} MiB   {plain / few:.3f} x the first")

    best = seconds(runs(list(made(SAMPLES))))
    passes = len(ALPHAS) + 2
    for i, kind in enumerate(("wall", "CPU")):
        ours, theirs = best["llfc"][i], best["plain"][i]
        print(f"{kind} time, {SAMPLES:,} samples     llfc {ours:.2f} s   {passes} plain passes "
              f"{theirs:.2f} s   ratio {ours / theirs:.2f}")  # fmt: skip
    print(f"jax {jax.__version__} on {jax.default_backend()}, {jax.devices()[0].device_kind}")


if __name__ == "__main__":
    main()
