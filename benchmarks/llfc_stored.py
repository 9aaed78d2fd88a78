"""Measuring LLFC in one pass against storing all features, one α a run: time and memory.

    python benchmarks/llfc_stored.py                      # MLP, 10,000 samples: a minute
    python benchmarks/llfc_stored.py resnet20 --samples 500
    python benchmarks/llfc_stored.py vgg16 --samples 100 --ours-too 1000
    python benchmarks/llfc_stored.py --other torch        # with `torch` installed
    python benchmarks/llfc_stored.py --other torch --whole   # 11 processes against one

The other way is that of the paper's scripts (`storing.py`), for all 11 alphas: in NumPy with the
same compiled forward passes as ours, or in PyTorch, as theirs are, in processes that know nothing
of JAX. Weights, images and the numbers that come out are the same. Each way runs in a fresh
process, first with one batch to compile, then timed; the memory is the peak resident set of that
process, with all that Python and the library take, and then what it is above a process that does
nothing but run the network over the same batches.

With `--whole` a run is a process: what the user of such a script waits for, eleven times, start and
compilation and all.

What is stored grows with the samples; ours does not. So where 10,000 samples do not fit, run both
on fewer (`--samples`) and ours on more (`--ours-too`).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from in_torch import torch_network
from storing import CASES, CLASSES, OF_THE_ENDS, ON_THE_LINE, Library, Made, parser, stored, timed

import llfc_jax
from llfc_jax import convert, networks
from llfc_jax.graph import features, trace
from llfc_jax.measures import llfc
from llfc_jax.measures.options import ALPHAS
from llfc_jax.pair import interpolate

SITES = ("linear", "relu")
OTHERS = ("numpy", "torch")


def pair(case: str) -> tuple[Any, jax.ShapeDtypeStruct, Any, Any]:
    """The network, a batch's shape and two modes, the same ones in every process."""
    name, fields, shape, batch = CASES[case]
    module = networks.build(name, CLASSES, **fields)
    like = jax.ShapeDtypeStruct((batch, *shape), np.float32)
    a, b = (networks.init(module, jax.random.key(seed), like) for seed in (0, 1))
    return module, like, a, b


def library(apply: Any, like: Any, batches: Made) -> Library:
    """The same compiled forward pass as ours, compared in NumPy."""
    graph = trace(apply, like, next(iter(batches))[0])
    sites = graph.select(SITES)

    @jax.jit
    def run(variables: Any, x: Any) -> list[jax.Array]:
        values = graph.evaluate(variables, x)
        return [features(values, site) for site in sites]

    def kept(variables: Any) -> list[np.ndarray]:
        parts = [[np.asarray(f) for f in run(variables, x)] for x, _ in batches]
        return [np.concatenate(layer) for layer in zip(*parts, strict=True)]

    return Library(kept, np.float64, lambda u, v: np.einsum("nd,nd->n", u, v), interpolate)


def streamed(apply: Any, a: Any, b: Any, batches: Made, alphas: Sequence[float]) -> np.ndarray:
    """The same numbers, as the library measures them."""
    found = llfc(apply, a, b, batches, alphas=alphas)
    line = [getattr(found, name) for name in ON_THE_LINE]
    ends = [np.repeat(getattr(found, name)[:, None], len(alphas), 1) for name in OF_THE_ENDS]
    return np.stack([*line, *ends], axis=-1).swapaxes(0, 1)


def alone(asked: argparse.Namespace) -> None:
    """Be a process that measures one way."""
    module, _, a, b = pair(asked.case)

    def measure(batches: Made, alphas: Sequence[float]) -> np.ndarray:
        if asked.way == "ours":
            return streamed(module.apply, a, b, batches, alphas)
        if asked.way == "stored":
            return stored(library(module.apply, a, batches), a, b, alphas)
        run = jax.jit(module.apply)
        return np.concatenate([np.asarray(run(a, x)) for x, _ in batches])

    timed(asked, measure)


def for_torch(case: str, folder: Path) -> list[str]:
    """Files of both modes as PyTorch's state dicts."""
    module, like, *modes = pair(case)
    name, fields, shape, _ = CASES[case]
    theirs = torch_network(name, fields, shape, CLASSES).state_dict()
    state = {key: tensor.numpy() for key, tensor in theirs.items()}
    files = []
    for i, mode in enumerate(modes):
        files.append(str(folder / f"{i}.npz"))
        llfc_jax.save(files[-1], convert.to_torch(mode, state, module.apply, like))
    return files


class Runs:
    """Fresh processes of one way; `weights` are the files of PyTorch's."""

    def __init__(self, case: str, weights: Sequence[str] = ()) -> None:
        script = Path(__file__).with_name("llfc_torch.py") if weights else Path(__file__)
        self.command = [sys.executable, str(script), case]
        self.more = ["--weights", *weights] if weights else []

    def __call__(
        self, way: str, samples: int, alphas: Sequence[float] = ALPHAS, warm: int = 0
    ) -> dict[str, Any]:
        """Seconds, peak MiB and the numbers found."""
        told = ["--way", way, "--samples", str(samples), "--warm", str(warm)]
        told += ["--alphas", *map(str, alphas), *self.more]
        done = subprocess.run([*self.command, *told], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)


def off(found: Any, other: Any) -> str:
    """The largest difference between two ways' numbers."""
    return f"largest difference {np.abs(np.array(found) - np.array(other)).max():.1e}"


def whole(asked: argparse.Namespace, ours: Runs, theirs: Runs) -> None:
    """Print how long one process of ours takes, and eleven of the other way."""
    begun = time.perf_counter()
    found = ours("ours", asked.samples)["found"]
    middle = time.perf_counter()
    other = [row for alpha in ALPHAS for row in theirs("stored", asked.samples, [alpha])["found"]]
    own, long = middle - begun, time.perf_counter() - middle
    print(f"{asked.case}, {asked.samples:,} samples, whole runs: ours {own:.1f} s, {len(ALPHAS)} "
          f"{asked.other} {long:.1f} s, ratio {long / own:.1f}; {off(found, other)}")  # fmt: skip


def compare(asked: argparse.Namespace, ours: Runs, theirs: Runs) -> None:
    """Print time and memory of both, each warm."""
    own = ours("ours", asked.samples, warm=len(ALPHAS))
    other = theirs("stored", asked.samples, warm=1)
    for way, run in (("ours", own), (asked.other, other)):
        print(f"{asked.case}, {asked.samples:,} samples, {way:<7}{run['seconds']:8.2f} s"
              f"{run['peak']:8.0f} MiB")  # fmt: skip
    print(
        f"{asked.other} / ours: time {other['seconds'] / own['seconds']:.1f}, "
        f"memory {other['peak'] / own['peak']:.1f}; {off(own['found'], other['found'])}"
    )
    bare, bare_other = (runs("plain", asked.samples)["peak"] for runs in (ours, theirs))
    print(f"memory above that of the network alone ({bare:.0f} and {bare_other:.0f} MiB): "
          f"{(other['peak'] - bare_other) / (own['peak'] - bare):.1f}")  # fmt: skip
    least = ours("ours", CASES[asked.case][3], warm=len(ALPHAS))["peak"]
    print(f"ours on a single batch: {least:.0f} MiB")
    if asked.ours_too:
        more = ours("ours", asked.ours_too, warm=len(ALPHAS))
        print(f"ours on {asked.ours_too:,}: {more['seconds']:.2f} s {more['peak']:.0f} MiB")


def main() -> None:
    """Print the comparison, or be the fresh process that does one part of it."""
    if "--way" in sys.argv:
        alone(parser(("ours", "stored", "plain")).parse_args())
        return
    told = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    told.add_argument("case", nargs="?", default="mlp", choices=CASES)
    told.add_argument("--samples", type=int, default=10_000)
    told.add_argument("--ours-too", type=int, help="ours alone, on so many")
    told.add_argument("--other", choices=OTHERS, default="numpy", help="what stores the features")
    told.add_argument("--whole", action="store_true", help="whole processes, start and all")
    asked = told.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {len(ALPHAS)} alphas")
    with tempfile.TemporaryDirectory() as folder:
        weights = for_torch(asked.case, Path(folder)) if asked.other == "torch" else ()
        (whole if asked.whole else compare)(asked, Runs(asked.case), Runs(asked.case, weights))


if __name__ == "__main__":
    main()
