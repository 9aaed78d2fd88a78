"""On an accelerator: does it give the CPU's numbers, and how fast is it? One table.

    python benchmarks/gpu.py                 # a few minutes on one GPU or TPU
    python benchmarks/gpu.py --out gpu.json  # the table as JSON too

Checked against the CPU of the same machine, in a process of its own: weight matching gives the same
permutation, activation matching the same correlations (and over a GPT's whole symmetry the same
products of features), and LMC and LLFC the same numbers to 1e-5 of their scale, in full float32
(TF32 and bfloat16 products would not). Timed are whole calls, warm, as
the median of rounds, beside the products' share of the device's rate for float32 matrices that this
program measures first.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cold import build
from matching_beyond import SMALL, random_weights

from llfc_jax import networks
from llfc_jax.matching import activation_matching, align, weight_matching
from llfc_jax.measures import PairEvaluator, build_all, llfc, lmc
from llfc_jax.measures.options import EvalOptions
from llfc_jax.networks.gpt import GPT
from llfc_jax.symmetry import permutation_spec

SAMPLES, BATCH = 10_000, 1_000
KEY = jax.random.key(0)
# Method -> options, over the whole symmetry of a GPT of 4 blocks x 128.
BEYOND: dict[str, dict[str, Any]] = {
    "weight": {"symmetry": "full"},
    "activation": {"symmetry": "full"},
    "learned": {"symmetry": "full", "steps": 100, "objective": "linearity"},
}
ALPHAS = tuple(i / 10 for i in range(11))


def trained_like(case: str, seed: int) -> Any:
    """Returns two modes of a case that are near each other, and labels that a gives."""
    apply, a, noise, x = build(case)
    b = jax.tree.map(lambda p, q: p + 0.3 * q, a, noise)
    rng = np.random.default_rng(seed)
    return apply, a, b, x, rng


def checks() -> dict[str, np.ndarray]:
    """Returns the numbers that every device should give."""
    found: dict[str, np.ndarray] = {}
    for case in ("mlp_512", "resnet20_x1"):
        apply, a, b, x, rng = trained_like(case, 0)
        spec = permutation_spec(apply, a, x)
        match = weight_matching(KEY, spec, a, spec.apply(shuffled(spec), b))
        for name, index in match.permutation.items():
            found[f"{case} permutation {name}"] = np.asarray(index, np.float64)
        samples = rng.standard_normal((64, *x.shape[1:]), np.float32)
        labels = np.asarray(apply(a, samples).argmax(-1))
        batches = [(samples, labels)]
        active = activation_matching(apply, spec, a, b, batches)
        found[f"{case} correlation"] = np.asarray(active.objective, np.float64)
        found[f"{case} loss"] = np.asarray(lmc(apply, a, b, batches).loss)
        linear = llfc(apply, a, b, batches)
        found[f"{case} 1 - cos"] = np.asarray(linear.distance)
        found[f"{case} 1 - cos AB"] = np.asarray(linear.baseline)
    match = align("activation", KEY, *transformers(), symmetry="full")
    found["gpt products of features"] = np.asarray(match.objective)
    return found


def transformers() -> tuple[GPT, Any, Any, list[Any]]:
    """Returns a GPT, two sets of random weights, and batches of random text."""
    network = GPT(64, **SMALL, norm="rms", positions="learned", mlp="gelu")
    tokens = np.random.default_rng(2).integers(0, 64, (256, SMALL["length"])).astype(np.int32)
    a, b = (random_weights(network, tokens[:2], seed) for seed in (0, 1))
    return network, a, b, [(tokens[i : i + 64], tokens[i : i + 64]) for i in range(0, 256, 64)]


def shuffled(spec: Any) -> dict[str, Any]:
    """Returns a permutation that does not depend on the device."""
    rng = np.random.default_rng(1)
    return {
        group.name: rng.permuted(
            np.broadcast_to(np.arange(group.size, dtype=np.int32), spec.shape(group.name)), axis=-1
        )
        for group in spec.groups
    }


def on_cpu() -> dict[str, np.ndarray]:
    """Returns the same numbers from a process that sees the CPU alone."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checks.npz"
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        subprocess.run([sys.executable, __file__, "--save", str(file)], env=environment, check=True)
        with np.load(file) as saved:
            return dict(saved)


def deviation(name: str, here: np.ndarray, there: np.ndarray) -> float:
    """Returns how far two arrays are apart, relative to the largest entry."""
    if "permutation" in name:
        return float((here != there).mean())
    return float(np.abs(here - there).max() / max(np.abs(there).max(), 1e-30))


def seconds(run: Callable[[], Any], rounds: int = 5) -> float:
    """Returns the median time of a call, after one that compiles."""
    run()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def float32_rate(n: int = 8192) -> float:
    """Returns the device's operations per second in full float32 matrix products."""
    x = jnp.ones((n, n), jnp.float32)
    product = jax.jit(lambda x: jnp.matmul(x, x, precision="highest"))
    return 2 * n**3 / seconds(lambda: product(x), 3)


def timed() -> dict[str, tuple[float, float]]:
    """Returns what -> (seconds, share of the float32 rate, NaN where products cost little)."""
    rate = float32_rate()
    found = {"float32 products, operations per second": (rate, 1.0)}
    for case in ("mlp_512", "resnet20_x1"):
        apply, a, b, x, rng = trained_like(case, 0)
        samples = jnp.asarray(rng.standard_normal((SAMPLES, *x.shape[1:]), np.float32))
        labels = jnp.zeros(SAMPLES, jnp.int32)
        batches = [
            (samples[i : i + BATCH], labels[i : i + BATCH]) for i in range(0, SAMPLES, BATCH)
        ]
        pair = PairEvaluator(apply, a, b, batches, EvalOptions(alphas=ALPHAS))
        measure = build_all(("llfc",), pair.options)
        took = seconds(lambda p=pair, m=measure: p.measure(m), 3)
        costs = jax.jit(apply).lower(a, batches[0][0]).compile().cost_analysis() or {}
        work = costs.get("flops", float("nan")) * len(ALPHAS) * len(batches)
        found[f"LLFC, {case}, {SAMPLES:,} samples, 11 α"] = took, work / took / rate
        spec = permutation_spec(apply, a, x)
        took = seconds(lambda s=spec, a=a, b=b: weight_matching(KEY, s, a, b).permutation, 3)
        found[f"weight matching, {case}"] = took, float("nan")
    for method, own in BEYOND.items():
        took = seconds(lambda m=method, o=own: align(m, KEY, *transformers(), **o).history, 1)
        found[f"{method} matching over the whole symmetry, GPT"] = took, float("nan")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Check, time, and print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--save", help=argparse.SUPPRESS)
    parser.add_argument("--out", help="also write the table as JSON")
    given = parser.parse_args(arguments)
    if given.save:
        np.savez(given.save, **checks())  # pyright: ignore[reportArgumentType]
        return
    device = jax.devices()[0]
    print(f"{device.device_kind} ({device.platform}), jax {jax.__version__}")
    here, there = checks(), on_cpu()
    worst = {name: deviation(name, here[name], there[name]) for name in there}
    for name, value in worst.items():
        if "permutation" not in name or value:
            print(f"{name:<48} differs from the CPU by {value:.1e}")
    moved = max((v for n, v in worst.items() if "permutation" in n), default=0.0)
    print(f"permutations that differ: {moved:.1%} of indices at most")
    table = timed()
    for name, (value, share) in table.items():
        print(f"{name:<48} {value:.3g}" + ("" if np.isnan(share) else f"  {share:.1%} of the rate"))
    parameters = networks.count({"params": build("resnet20_x1")[1]["params"]})
    print(f"(ResNet-20 has {parameters:,} parameters)")
    if given.out:
        content = {"device": device.device_kind, "deviations": worst, "timed": table}
        Path(given.out).write_text(json.dumps(content, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
