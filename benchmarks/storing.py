"""LLFC as the paper's scripts measure it, all features stored: what `llfc_stored.py` compares with.

A run per α, in each of which the features of both ends and of θ_α are computed, every layer's kept
in memory until the last batch, and compared in float64 after it: θ_α with the mixture and a with b,
distance and coefficient, their means and deviations over samples and those of the whole matrix.
Written once, for NumPy and for PyTorch; nothing of JAX is imported here.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Name -> (network, its fields, image shape, batch size).
CASES: dict[str, tuple[str, dict[str, Any], tuple[int, ...], int]] = {
    "mlp": ("mlp", {}, (28, 28, 1), 500),
    "resnet20": ("resnet_cifar", {}, (32, 32, 3), 100),
    "vgg16": ("vgg", {"norm": "batch"}, (32, 32, 3), 50),
    "vgg16_8": ("vgg", {"norm": "batch", "width": 0.125}, (32, 32, 3), 100),
}
CLASSES = 10
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


class Library(NamedTuple):
    """What storing features needs of NumPy or PyTorch.

    Attributes:
        kept: variables -> all features, a matrix [samples, units] per layer.
        double: a matrix in float64.
        dot: the inner products of two matrices' rows.
        mix: variables of both ends and α -> those of θ_α.
    """

    kept: Callable[[Any], list[Any]]
    double: Callable[[Any], Any]
    dot: Callable[[Any, Any], Any]
    mix: Callable[[Any, Any, float], Any]


def compared(library: Library, u: Any, v: Any) -> dict[str, float]:
    """Distance and coefficient of two layers' features, per sample and of the whole matrix."""
    u, v = library.double(u), library.double(v)
    inner, uu, vv = (np.asarray(library.dot(p, q)) for p, q in ((u, v), (u, u), (v, v)))
    distance, coefficient = 1 - inner / np.sqrt(uu * vv), inner / vv
    return {
        "distance": distance.mean(),
        "distance_std": distance.std(ddof=1),
        "coefficient": coefficient.mean(),
        "coefficient_std": coefficient.std(ddof=1),
        "pooled_distance": 1 - inner.sum() / np.sqrt(uu.sum() * vv.sum()),
        "pooled_coefficient": inner.sum() / vv.sum(),
    }


def stored(library: Library, a: Any, b: Any, alphas: Sequence[float]) -> np.ndarray:
    """What LLFC is reported by [alphas, layers, numbers], from features that are all kept."""
    found = []
    for alpha in alphas:
        of_a, of_b, middle = map(library.kept, (a, b, library.mix(a, b, alpha)))
        row = []
        for p, q, f in zip(of_a, of_b, middle, strict=True):
            line = compared(library, f, alpha * p + (1 - alpha) * q)
            ends = compared(library, p, q)
            row.append(
                [line[name] for name in ON_THE_LINE]
                + [ends[name.replace("baseline", "distance")] for name in OF_THE_ENDS]
            )
        found.append(row)
    return np.array(found)


def parser(ways: Sequence[str]) -> argparse.ArgumentParser:
    """What a process that measures one way is told."""
    told = argparse.ArgumentParser()
    told.add_argument("case", choices=CASES)
    told.add_argument("--way", choices=ways, required=True)
    told.add_argument("--samples", type=int, required=True)
    told.add_argument("--alphas", type=float, nargs="+", required=True)
    told.add_argument("--warm", type=int, default=0, help="alphas of a first batch, not timed")
    return told


def timed(asked: argparse.Namespace, measure: Callable[[Made, Sequence[float]], Any]) -> None:
    """Print what this process takes: seconds, peak MiB, and the numbers themselves."""
    _, _, shape, batch = CASES[asked.case]
    if asked.warm:
        measure(Made(shape, batch, batch), asked.alphas[: asked.warm])
    begun = time.perf_counter()
    found = measure(Made(shape, asked.samples, batch), asked.alphas)
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "peak": peak(), "found": np.asarray(found).tolist()}))


def peak() -> float:
    """The largest resident set of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux `getrusage` starts from what the parent process had
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
