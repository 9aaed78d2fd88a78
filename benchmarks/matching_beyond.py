"""What matching beyond permutations costs, against permutations alone.

    python benchmarks/matching_beyond.py                # small networks: a minute
    python benchmarks/matching_beyond.py --gpt2         # 12 blocks of 768, 93 million parameters

Two networks with random weights, one of them moved by a random element and a little noise. Times
are seconds of whole calls, medians of rounds taken in turns, with their least and largest; the
first call of each kind, which compiles, is told apart.
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.matching import Problem, WeightMatching
from llfc_jax.matching.beyond.sets import restrict
from llfc_jax.networks.gpt import GPT
from llfc_jax.symmetry import permutation_spec, symmetry_spec
from llfc_jax.symmetry.checking import random_element

SMALL: dict[str, Any] = {"dim": 128, "depth": 4, "heads": 4, "mlp_dim": 512, "length": 32}
GPT2: dict[str, Any] = {"dim": 768, "depth": 12, "heads": 12, "mlp_dim": 3072, "length": 64}
KINDS = ("permutation", "heads", "orthogonal", "full")


def random_weights(network: GPT, x: np.ndarray, seed: int) -> Any:
    """Returns weights in NumPy, without running the network."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    rng = np.random.default_rng(seed)

    def draw(leaf: Any) -> np.ndarray:
        numbers = rng.standard_normal(leaf.shape, np.float32)
        return 1 + 0.1 * numbers if leaf.ndim == 1 else numbers * leaf.shape[0] ** -0.5

    return jax.tree.map(draw, shapes)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Returns the seconds of a call, and what it returns."""
    started = time.perf_counter()
    found = call()
    return time.perf_counter() - started, found


def distance(p: Any, q: Any) -> float:
    """Returns how far two networks are from each other, as a share of the norm."""
    pairs = list(zip(jax.tree.leaves(p), jax.tree.leaves(q), strict=True))
    gaps = sum(float(np.sum((np.asarray(x) - np.asarray(y)) ** 2)) for x, y in pairs)
    return (gaps / sum(float(np.sum(np.asarray(x) ** 2)) for x, _ in pairs)) ** 0.5


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gpt2", action="store_true", help="12 blocks of 768")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    fields = GPT2 if options.gpt2 else SMALL
    classes = 10_000 if options.gpt2 else 100
    network = GPT(classes, **fields, norm="rms", positions="learned", mlp="gelu")
    x = np.zeros((2, fields["length"]), np.int32)
    a = random_weights(network, x, 0)
    size = sum(leaf.size for leaf in jax.tree.leaves(a))
    took, whole = timed(lambda: symmetry_spec(network, a, x))
    alone, plain = timed(lambda: permutation_spec(network, a, x))
    print(f"{size:,} parameters; symmetry spec {took:.2f} s, permutation spec {alone:.2f} s")
    rng = np.random.default_rng(1)
    element = random_element(restrict(whole, "full"), rng)
    moved = whole.apply(element, whole.fold(a))
    b = jax.tree.map(
        lambda p: p + 1e-3 * np.std(p) * rng.standard_normal(p.shape, np.float32), moved
    )
    calls: dict[str, Callable[[], Any]] = {}
    for kind in KINDS:
        spec = restrict(whole, kind)
        method = WeightMatching(start="anchored", symmetry=kind)
        own = plain if kind == "permutation" else spec.permutations
        left = a if kind == "permutation" else spec.fold(a)
        problem = Problem(None, own, left, b, symmetry=None if kind == "permutation" else spec)
        calls[kind] = lambda method=method, problem=problem: method(jax.random.key(0), problem)
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    found: dict[str, Any] = {}
    for _ in range(options.rounds + 1):
        for kind, call in calls.items():
            seconds, found[kind] = timed(call)
            times[kind].append(seconds)
    print("| what may move | first call, s | later, s | over permutations | distance left |")
    print("|---|---|---|---|---|")
    base = float(np.median(times["permutation"][1:]))
    for kind in KINDS:
        first, *later = times[kind]
        middle = float(np.median(later))
        match = found[kind]
        after = (
            plain.apply(match.permutation, b)
            if match.transport is None
            else whole.apply(match.transport.element, b)
        )
        left = distance(a if match.transport is None else whole.fold(a), after)
        print(
            f"| {kind} | {first:.2f} | {middle:.2f} ({min(later):.2f} to {max(later):.2f}) | "
            f"{middle / base:.1f} | {left:.1e} |"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\npeak memory {peak:.2f} GiB; backend {jax.default_backend()}, {jnp.float32.__name__}")


if __name__ == "__main__":
    main()
