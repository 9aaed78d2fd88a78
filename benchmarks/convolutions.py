"""What a network's convolutions cost by themselves in a step of training: XLA's against PyTorch's.

    python benchmarks/convolutions.py                       # ResNet-20, batch 128
    python benchmarks/convolutions.py "vgg16 / 8"
    pip install torch && python benchmarks/convolutions.py  # with the comparison

Every convolution of the traced network alone, compiled: forward, the gradient of its input and that
of its kernel, the best of many rounds; then their sum over the network, which no step of training
can be faster than.
"""

import argparse
import collections
import importlib
import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from training import CASES, CLASSES

from llfc_jax import networks
from llfc_jax.graph.convolutions import adapted

WAYS = ("forward", "input", "kernel")
ROUNDS = 25


class Convolution(NamedTuple):
    """One of them, in Flax's layout: channels last."""

    x: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int
    padding: tuple[tuple[int, int], ...]


def convolutions(case: str) -> Iterator[Convolution]:
    """Those of a network of `benchmarks/training.py`, in order."""
    name, fields, shape, batch, _, _ = CASES[case]
    module = networks.build(name, CLASSES, **fields)
    x = jax.ShapeDtypeStruct((batch, *shape), np.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    for eqn in jax.make_jaxpr(module.apply)(variables, x).jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            data, kernel = (a.aval.shape for a in eqn.invars)
            yield Convolution(data, kernel, eqn.params["window_strides"][0], eqn.params["padding"])


def arrays(one: Convolution) -> tuple[np.ndarray, np.ndarray]:
    """Its input and its kernel."""
    random = np.random.default_rng(0)
    x, kernel = (random.standard_normal(s, np.float32) for s in (one.x, one.kernel))
    return x, kernel


def ours(one: Convolution) -> dict[str, Callable[[], Any]]:
    """As the training step has it: a product where the window is larger than the input."""

    def run(x: Any, kernel: Any) -> Any:
        return jax.lax.conv_general_dilated(
            x, kernel, (one.stride,) * 2, one.padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    run = adapted(run)
    x, kernel = map(jnp.asarray, arrays(one))
    forward = jax.jit(run)
    out = forward(x, kernel)
    input_ = jax.jit(lambda k, dy: jax.vjp(lambda x: run(x, k), jnp.zeros(one.x))[1](dy))
    kernel_ = jax.jit(lambda x, dy: jax.vjp(partial(run, x), jnp.zeros(one.kernel))[1](dy))
    runs = (partial(forward, x, kernel), partial(input_, kernel, out), partial(kernel_, x, out))
    ready = [lambda run=run: jax.block_until_ready(run()) for run in runs]
    return dict(zip(WAYS, ready, strict=True))


def theirs(one: Convolution) -> dict[str, Callable[[], Any]]:
    """As PyTorch has it: channels first."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(os.cpu_count() or 1)
    x, kernel = arrays(one)
    x = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
    kernel = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous()
    around = [low for low, _ in one.padding]
    forward = partial(torch.nn.functional.conv2d, x, kernel, None, one.stride, around)
    dy = torch.ones_like(forward())
    rest = ([one.stride] * 2, around, [1, 1], False, [0, 0], 1)
    backward = partial(torch.ops.aten.convolution_backward, dy, x, kernel, None, *rest)
    runs = (forward, *(partial(backward, [i, not i, False]) for i in (True, False)))
    return dict(zip(WAYS, runs, strict=True))


def fastest(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Milliseconds of each, the best of rounds in turns after one to compile."""
    for run in runs.values():
        run()
    times = dict.fromkeys(runs, float("inf"))
    for _ in range(ROUNDS):
        for way, run in runs.items():
            began = time.perf_counter()
            run()
            times[way] = min(times[way], 1e3 * (time.perf_counter() - began))
    return times


def main() -> None:
    """Print a row per kind of convolution, and the sum."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("case", nargs="?", default="resnet20", choices=CASES)
    case = parser.parse_args().case
    sides = {"XLA": ours} | ({"PyTorch": theirs} if importlib.util.find_spec("torch") else {})
    found = list(convolutions(case))
    total = dict.fromkeys(sides, 0.0)
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {os.cpu_count()} cores; {case}")
    print(f"milliseconds: {', '.join(WAYS)}")
    for one, count in collections.Counter(found).items():
        words = f"{count} x {one.x[1]} x {one.x[2]}, {one.x[3]} to {one.kernel[3]} channels"
        words += f", stride {one.stride}"
        for side, runs in sides.items():
            times = fastest(runs(one))
            total[side] += count * sum(times.values())
            if one == found[0]:
                total[side] -= times["input"]  # of the images, which nobody needs
            words += f"   {side}" + "".join(f"{times[way]:7.2f}" for way in WAYS)
        print(words)
    print("whole network: " + ", ".join(f"{side} {ms:.0f} ms" for side, ms in total.items()))


if __name__ == "__main__":
    main()
