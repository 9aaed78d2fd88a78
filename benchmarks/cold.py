"""What a user waits for in one process: start, tracing, compiling and work, in CPU seconds.

    python benchmarks/cold.py                     # everything but the long rows: a few minutes
    python benchmarks/cold.py matching --rounds 5
    python benchmarks/cold.py commands --rounds 5
    python benchmarks/cold.py large --rounds 3    # ResNet-50 at 1/8 width, a GPT-2-shaped network

Every figure is the median over processes that take turns with those of the baseline, with the
least and the greatest beside it. Compiled programs are not kept between processes, but for the row
that says so.

- *matching*: one weight matching after the imports, spec included, over the published algorithm (a
  Python loop over JAX and SciPy, `benchmarks/matching.py`) in a process of its own.
- *commands*: whole processes of the command line, and the time until their first words.
- *large*: one weight matching of a large network, with the peak memory of the process.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MATCHED = ("mlp_512", "resnet20_x1")
LARGE = ("resnet50_8", "gpt2_768")
WAYS = ("ours", "published")


def build(case: str) -> tuple[Callable[..., Any], Any, Any, Any]:
    """Returns apply, two modes and a batch of a case."""
    import jax
    import numpy as np

    from llfc_jax import networks

    if case == "gpt2_768":
        return _gpt2(12, 768)
    name, fields, shape = {
        "mlp_512": ("mlp", {"widths": (512, 512, 512)}, (28, 28, 1)),
        "resnet20_x1": ("resnet_cifar", {"norm": "layer", "shortcut": "conv3"}, (32, 32, 3)),
        "resnet50_8": ("resnet_imagenet", {"depth": 50, "width": 0.125}, (32, 32, 3)),
    }[case]
    module = networks.build(name, 10, **fields)
    x = jax.ShapeDtypeStruct((2, *shape), np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    a, b = (_random(shapes, seed) for seed in (0, 1))
    return module.apply, a, b, x


def _random(shapes: Any, seed: int) -> Any:
    """Returns random weights of these shapes, without compiling anything."""
    import jax
    import numpy as np

    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, np.float32) / np.sqrt(leaf.shape[0]), shapes
    )


def _gpt2(depth: int, width: int) -> tuple[Callable[..., Any], Any, Any, Any]:
    """Returns a decoder of GPT-2's shape: pre-norm, heads of 64, GELU, learned positions."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    heads, length, vocabulary = width // 64, 8, 10_000

    def norm(w: Any, x: Any) -> Any:
        x = x - x.mean(-1, keepdims=True)
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w["g"] + w["b"]

    def apply(w: Any, tokens: Any) -> Any:
        x = w["tokens"][tokens] + w["positions"][None]
        mask = jnp.tril(jnp.ones((length, length), bool))
        for block in w["blocks"]:
            h = norm(block["norm1"], x)
            q, k, v = (jnp.einsum("ntd,dhe->nthe", h, block[n]) for n in "qkv")
            scores = jnp.where(mask, jnp.einsum("nthe,nshe->nhts", q, k) / 8, -1e9)
            mixed = jnp.einsum("nhts,nshe->nthe", jax.nn.softmax(scores), v)
            x = x + jnp.einsum("nthe,hed->ntd", mixed, block["o"])
            h = jax.nn.gelu(norm(block["norm2"], x) @ block["up"] + block["up_bias"])
            x = x + h @ block["down"] + block["down_bias"]
        return (norm(w["norm"], x) @ w["head"])[:, -1]

    d = width
    gain = {"g": (d,), "b": (d,)}
    block = dict.fromkeys("qkv", (d, heads, 64)) | {
        "o": (heads, 64, d), "up": (d, 4 * d), "up_bias": (4 * d,), "down": (4 * d, d),
        "down_bias": (d,), "norm1": gain, "norm2": gain,
    }  # fmt: skip
    tree = {
        "tokens": (vocabulary, d), "positions": (length, d), "blocks": [block] * depth,
        "norm": gain, "head": (d, vocabulary),
    }  # fmt: skip
    is_shape = lambda node: isinstance(node, tuple)  # noqa: E731
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, np.float32), tree, is_leaf=is_shape)
    a, b = (_random(shapes, seed) for seed in (0, 1))
    return apply, a, b, jax.ShapeDtypeStruct((2, length), np.int32)


def match(case: str, way: str) -> dict[str, float]:
    """Match once in this process: CPU seconds after the imports, and the peak memory in MB."""
    import jax
    import scipy.optimize  # noqa: F401  # both use it, and import it on first use

    from llfc_jax.matching import weight_matching
    from llfc_jax.symmetry import permutation_spec

    apply, a, b, x = build(case)
    key = jax.random.key(0)
    jax.block_until_ready(jax.random.bits(key))  # the backend has started
    if way == "published":
        from matching import published

        spec = permutation_spec(apply, a, x)
        start = time.process_time()
        published(key, spec, a, b)
    else:
        start = time.process_time()
        spec = permutation_spec(apply, a, x)
        weight_matching(key, spec, a, b, start="identity")
    cpu = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu": cpu, "peak": peak}


def in_process(*arguments: str) -> dict[str, float]:
    """Returns what a process of this file prints."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def command(*arguments: str) -> dict[str, float]:
    """Run the command line: CPU and wall seconds, and seconds until the first words."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "llfc_jax.main", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.read(1)
    first = time.monotonic() - start
    process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with status {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu, "wall": time.monotonic() - start, "first": first}


def spread(values: Sequence[float]) -> str:
    """Returns the median with the least and the greatest."""
    return f"{statistics.median(values):7.2f}  ({min(values):.2f} to {max(values):.2f})"


def show_matching(cases: Sequence[str], rounds: int, ways: Sequence[str]) -> None:
    """Print cold matching, ours and the published algorithm in turns."""
    for case in cases:
        found = {way: [] for way in ways}
        for _ in range(rounds):
            for way in ways:
                found[way].append(in_process("--match", case, way))
        for way in ways:
            seconds = [one["cpu"] for one in found[way]]
            peak = statistics.median(one["peak"] for one in found[way])
            print(f"{case:<14} {way:<10} CPU s {spread(seconds)}  peak {peak:,.0f} MB")
        if len(ways) == 2:
            ratios = [o["cpu"] / p["cpu"] for o, p in zip(*found.values(), strict=True)]
            print(f"{case:<14} ours over published {spread(ratios)}")


def show_commands(rounds: int) -> None:
    """Print whole processes of the command line."""
    config = ("--config", "configs/quickstart.py")
    with tempfile.TemporaryDirectory() as folder:
        cache = f"{folder}/compiled"
        rows: dict[str, list[dict[str, float]]] = {}
        for i in range(rounds):
            run = (*config, "--workdir", f"{folder}/{i}")
            off = ("--compiled", "off")
            for name, arguments in (
                ("quickstart", (*run, *off)),
                ("finished run shown again", (*run, *off)),
                ("quickstart, programs kept", (*config, "--workdir", f"{folder}/kept{i}",
                                               "--compiled", cache)),
                ("--list", ("--list",)),
                ("--plan", (*config, "--plan")),
            ):  # fmt: skip
                rows.setdefault(name, []).append(command(*arguments))
        for name, found in rows.items():
            cpu, wall, first = ([one[k] for one in found] for k in ("cpu", "wall", "first"))
            print(
                f"{name:<26} CPU s {spread(cpu)}  wall {spread(wall)}  first words {spread(first)}"
            )


def main() -> None:
    """Measure what the arguments name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="*", default=["matching", "commands"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--match", nargs=2, metavar=("CASE", "WAY"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.match:
        print(json.dumps(match(*given.match)))
        return
    if "matching" in given.what:
        show_matching(MATCHED, given.rounds, WAYS)
    if "large" in given.what:
        show_matching(LARGE, given.rounds, WAYS[:1])
    if "commands" in given.what:
        show_commands(given.rounds)


if __name__ == "__main__":
    main()
