"""The three assignment solvers, side by side: what `assign(solver="auto")` rests on.

    python benchmarks/assignment.py                         # sizes 16 to 512, one and 16 at a time
    python benchmarks/assignment.py --sizes 64 1024 --batches 1 --repeat 3

Milliseconds per matrix, the least of some runs, warm. `again` solves a matrix that differs a
little from one solved before (as from visit to visit in weight matching). Scores are correlations
of noisy copies of the same units, as in matching: the hard kind is where the copies are noisy.
"""

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.matching import assign, assign_warm

SOLVERS = ("scipy", "hungarian", "auction")


def scores(n: int, batch: int, noise: float, seed: int = 0) -> jax.Array:
    """Cross-correlations of `n` units with shuffled noisy copies of themselves: [batch, n, n]."""
    rng = np.random.default_rng(seed)
    samples = 2 * n
    units = rng.normal(size=(batch, samples, n))
    copies = rng.permuted(units, axis=2) + noise * rng.normal(size=units.shape)
    return jnp.asarray(np.einsum("bsi,bsj->bij", units, copies) / samples, jnp.float32)


def least(run: Callable[[], object], repeat: int) -> float:
    """Least seconds of some runs, after one that compiles."""
    times = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 256, 512])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--solvers", nargs="+", default=SOLVERS, choices=SOLVERS)
    parser.add_argument("--noise", type=float, default=3.0)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{jax.default_backend()}: milliseconds per matrix")
    heads = [f"{solver:>10} {'again':>8}" for solver in arguments.solvers]
    print(f"{'n':>5} {'batch':>5} " + " ".join(heads))
    for n in arguments.sizes:
        for batch in arguments.batches:
            matrix = scores(n, batch, arguments.noise)
            near = matrix + 0.02 * scores(n, batch, arguments.noise, seed=1)
            cells = []
            for solver in arguments.solvers:
                fresh = jax.jit(lambda s, solver=solver: assign(s, solver))
                again = jax.jit(lambda s, p, solver=solver: assign_warm(s, p, solver))
                _, prices = again(matrix, jnp.zeros(matrix.shape[:-1]))
                one = least(lambda f=fresh, s=matrix: f(s), arguments.repeat)
                two = least(lambda f=again, s=near, p=prices: f(s, p), arguments.repeat)
                cells.append(f"{1e3 * one / batch:10.3f} {1e3 * two / batch:8.3f}")
            print(f"{n:>5} {batch:>5} " + " ".join(cells), flush=True)


if __name__ == "__main__":
    main()
