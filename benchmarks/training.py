"""What training costs: many replicas against one, and against the same network in PyTorch.

    python benchmarks/training.py                       # 3 minutes on 2 cores
    pip install torch && python benchmarks/training.py  # with the comparison

Seconds per step and replica of whole training epochs, data order, normalisation and all, as
`llfc_jax.training.train` runs them: the second epoch counts, so that nothing is compiled in it.
PyTorch runs its usual eager loop over the same data, as many threads as there are cores: the
split as uint8 in memory, a fresh permutation per epoch, SGD with momentum. All take turns, and the
best of each counts.

Measured in CPU seconds on one core at batch 128 (jax 0.10.2, PyTorch 2.13, least of 4 to 6 turns),
PyTorch's step over ours: MLP 1.27, ResNet-20 .49, VGG-16/8 .68. Tried, and not kept:

- `--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT`: 1.17, .49, .62 on
  whole steps.
- 3 x 3 convolutions (16 to 128 channels on 32 x 32 to 4 x 4, forward and both gradients, ms): XLA's
  own 57, 30, 26, 21; patches times kernel 212, 114, 65, 30; a product for each tap 179, 124, 76,
  37; only the kernel's gradient by patches 184, 85, 58, 29, or by taps 194, 81, 28, 26.
"""

import argparse
import importlib
import importlib.util
import math
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from in_torch import torch_network

from llfc_jax import networks
from llfc_jax.data import Dataset, Split
from llfc_jax.training import Recipe, TrainingRun, train

# Name -> (network, its fields, image shape, batch size, steps that are timed, replicas).
CASES: dict[str, tuple[str, dict[str, Any], tuple[int, ...], int, int, int]] = {
    "mlp 512x3": ("mlp", {}, (28, 28, 1), 128, 60, 8),
    "resnet20": ("resnet_cifar", {}, (32, 32, 3), 128, 4, 2),
    "vgg16": ("vgg", {"norm": "batch", "dropout": 0.0}, (32, 32, 3), 32, 3, 1),
    "vgg16 / 8": (
        "vgg", {"norm": "batch", "width": 0.125, "dropout": 0.0}, (32, 32, 3), 128, 6, 2
    ),
}  # fmt: skip
RATE, MOMENTUM, CLASSES = 1e-3, 0.9, 10


def made(shape: tuple[int, ...], samples: int) -> Dataset:
    """Random images."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (samples, *shape), dtype=np.uint8)
    split = Split(images, np.arange(samples, dtype=np.int32) % CLASSES)
    return Dataset("made", split, split, CLASSES, (0.5,) * shape[-1], (0.25,) * shape[-1])


def ours(name: str, fields: dict[str, Any], dataset: Dataset, batch: int, count: int) -> float:
    """Seconds per step and replica of the second epoch."""
    recipe = Recipe(
        epochs=2, batch_size=batch, optimizer="sgd", learning_rate=RATE, momentum=MOMENTUM
    )
    module = networks.build(name, CLASSES, **fields)
    steps, marks = len(dataset.train) // batch, {}

    def note(done: int, total: int, words: str) -> None:
        marks[done] = time.perf_counter()

    train(
        module,
        dataset,
        recipe,
        [TrainingRun(str(i), (i,), end=2) for i in range(count)],
        progress=note,
    )
    return (marks[2 * steps * count] - marks[steps * count]) / steps / count


def theirs(name: str, fields: dict[str, Any], dataset: Dataset, batch: int) -> float:
    """Seconds per step of an epoch in PyTorch, after one to warm up."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(os.cpu_count() or 1)
    module = torch_network(name, fields, dataset.shape, CLASSES)
    x = jax.ShapeDtypeStruct((1, *dataset.shape), np.float32)
    built = networks.build(name, CLASSES, **fields)
    like = jax.eval_shape(built.init, jax.random.key(0), x)["params"]
    wanted = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(like))
    assert sum(p.numel() for p in module.parameters()) == wanted, "not the same network"
    optimizer = torch.optim.SGD(module.parameters(), RATE, MOMENTUM)
    images = torch.from_numpy(dataset.train.images).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(dataset.train.labels).long()
    steps, began = len(images) // batch, 0.0
    for _ in range(2):
        began, order = time.perf_counter(), torch.randperm(len(images))
        for i in range(steps):
            rows = order[i * batch : (i + 1) * batch]
            x = (images[rows].float() / 255 - 0.5) / 0.25
            loss = torch.nn.functional.cross_entropy(module(x), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (time.perf_counter() - began) / steps


def fastest(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The least of what each returns; they take turns."""
    best = dict.fromkeys(runs, math.inf)
    for _ in range(rounds):
        for name, run in runs.items():
            best[name] = min(best[name], run())
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="*", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    has_torch = importlib.util.find_spec("torch") is not None
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {os.cpu_count()} cores")
    for case in asked.cases:
        name, fields, shape, batch, steps, many = CASES[case]
        dataset = made(shape, batch * steps)
        runs: dict[str, Callable[[], float]] = {
            "one": lambda n=name, f=fields, d=dataset, b=batch: ours(n, f, d, b, 1),
            "many": lambda n=name, f=fields, d=dataset, b=batch, m=many: ours(n, f, d, b, m),
        }
        if has_torch:
            runs["torch"] = lambda n=name, f=fields, d=dataset, b=batch: theirs(n, f, d, b)
        best = fastest(runs, asked.rounds)
        print(
            f"{case:<12} one {1e3 * best['one']:8.2f} ms a step; "
            f"{many} side by side: {best['many'] / best['one']:.2f} x that, each"
            + (f"; PyTorch: {best['torch'] / best['one']:.2f} x" if has_torch else "")
        )


if __name__ == "__main__":
    main()
