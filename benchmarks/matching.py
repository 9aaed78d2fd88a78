"""Weight matching against the published algorithm: time and objective, as ratios in one run.

    python benchmarks/matching.py                     # MLP, ResNet-20 x1 and x4: some minutes
    python benchmarks/matching.py mlp vgg16_512 resnet50 --rounds 3
    python benchmarks/matching.py gpt2 --ours         # 93 M parameters, without the published loop

The published algorithm (Ainsworth et al. 2023) is written here as its paper describes it: a Python
loop over the groups in random order, each group's products rebuilt for every parameter with
jax.numpy, SciPy for the assignment, until a whole sweep gains nothing. Beside it stand our ascent
from the same start along the same visits ("identity"), from our default start ("auto"), and from
the relaxed one.

Every measurement is a process of its own, in turns (one of each a round), so that a busy machine
slows all alike: CPU seconds of the process, after imports, from the modes to the permutation with
the spec derived on the way (cold), and of the third call (warm). The table has medians over the
rounds, and the lowest and the highest. The persistent compilation cache is off.

The MLP is trained on the embedded digits; the other networks are untrained, with noise on their
norms' parameters, which is harder on the assignments than it is on the products.
"""

import argparse
import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.optimize import linear_sum_assignment

from llfc_jax import data, networks
from llfc_jax.matching import weight_matching
from llfc_jax.symmetry import PermutationSpec, permutation_spec

RESNET = {"name": "resnet_cifar", "norm": "layer", "shortcut": "conv3"}
CASES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "mlp": ({"name": "mlp"}, (64,)),
    "resnet20_x1": (RESNET, (32, 32, 3)),
    "resnet20_x4": (RESNET | {"width": 4.0}, (32, 32, 3)),
    "resnet20_x8": (RESNET | {"width": 8.0}, (32, 32, 3)),
    "vgg16_d4": (
        {"name": "vgg", "norm": "layer", "width": 0.25, "hidden": (512, 512)},
        (32, 32, 3),
    ),
    "vgg16_512": ({"name": "vgg", "norm": "layer", "hidden": (512, 512)}, (32, 32, 3)),
    "vgg16_4096": ({"name": "vgg", "norm": "layer"}, (32, 32, 3)),
    "resnet50_d8": ({"name": "resnet_imagenet", "width": 0.125}, (64, 64, 3)),
}
OURS = ("identity", "auto", "relaxed")
PUBLISHED = "published"


# -- the published algorithm ---------------------------------------------------------------------


def published(
    key: jax.Array, spec: PermutationSpec, a: Any, b: Any, max_sweeps: int = 100
) -> tuple[dict[str, np.ndarray], int]:
    """Coordinate ascent as published; returns the permutation and the number of sweeps."""
    paths = [path for path, _ in spec.leaves]
    left = dict(zip(paths, jax.tree.leaves(a), strict=True))
    right = dict(zip(paths, jax.tree.leaves(b), strict=True))
    names = [group.name for group in spec.groups]
    acts_on = {name: spec.where(name) for name in names}
    axes_of: dict[str, dict[int, str]] = {path: {} for path in paths}
    for name, places in acts_on.items():
        for path, axis in places:
            axes_of[path][axis] = name
    permutation = {name: jnp.arange(spec.group[name].size) for name in names}
    sweep, gained = 0, True
    while gained and sweep < max_sweeps:
        gained = False
        for number in np.asarray(
            jax.random.permutation(jax.random.fold_in(key, sweep), len(names))
        ):
            name, n = names[number], spec.group[names[number]].size
            scores = jnp.zeros((n, n))
            for path, axis in acts_on[name]:
                if not path.startswith("params/"):
                    continue
                moved = right[path]
                for other, group in axes_of[path].items():
                    if other != axis:
                        moved = jnp.take(moved, permutation[group], axis=other)
                rows = jnp.moveaxis(left[path], axis, 0).reshape(n, -1)
                scores += rows @ jnp.moveaxis(moved, axis, 0).reshape(n, -1).T
            _, found = linear_sum_assignment(np.asarray(scores), maximize=True)
            before = jnp.vdot(scores, jnp.eye(n)[permutation[name]])
            after = jnp.vdot(scores, jnp.eye(n)[found])
            gained |= bool(after > before + 1e-12)
            permutation[name] = jnp.array(found)
        sweep += 1
    return {name: np.asarray(p) for name, p in permutation.items()}, sweep


# -- the networks --------------------------------------------------------------------------------


def network(case: str) -> tuple[Callable[..., Any], jax.ShapeDtypeStruct]:
    """The network as a function, and the shape of a batch."""
    if case == "gpt2":
        return gpt2, jax.ShapeDtypeStruct((2, TOKENS), jnp.int32)
    fields, shape = CASES[case]
    fields = dict(fields)
    module = networks.build(fields.pop("name"), 10, **fields)
    return module.apply, jax.ShapeDtypeStruct((2, *shape), jnp.float32)


def modes(case: str) -> tuple[Any, Any]:
    """Two modes, as NumPy arrays."""
    if case == "gpt2":
        return gpt2_weights(0), gpt2_weights(1)
    fields, shape = CASES[case]
    fields = dict(fields)
    module = networks.build(fields.pop("name"), 10, **fields)
    keys = [jax.random.key(seed) for seed in (0, 1)]
    if case == "mlp":
        made = [_trained(module, key) for key in keys]
    else:
        x = jnp.zeros((2, *shape))
        made = [_noisy(networks.init(module, key, x), seed) for seed, key in enumerate(keys)]
    a, b = (jax.tree.map(np.asarray, mode) for mode in made)
    return a, b


def _noisy(variables: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)

    def one(leaf: jax.Array) -> Any:
        if leaf.ndim > 1:
            return leaf
        return np.float32(leaf + 0.3 * rng.normal(size=leaf.shape))

    return jax.tree.map(one, variables)


def _trained(module: Any, key: jax.Array, epochs: int = 20, batch: int = 128) -> Any:
    digits = data.load("digits")
    x = data.normalise(digits.train.images, digits.mean, digits.std).reshape(
        len(digits.train.labels), -1
    )
    y = jnp.asarray(digits.train.labels)
    variables, optimizer = networks.init(module, key, x[:2]), optax.adam(1e-3)

    def loss(variables: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        logits = module.apply(variables, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def step(state: Any, rows: jax.Array) -> tuple[Any, None]:
        variables, memory = state
        updates, memory = optimizer.update(jax.grad(loss)(variables, x[rows], y[rows]), memory)
        return (optax.apply_updates(variables, updates), memory), None

    steps = len(x) // batch
    orders = [jax.random.permutation(jax.random.fold_in(key, e), len(x)) for e in range(epochs)]
    rows = jnp.concatenate([order[: steps * batch].reshape(steps, batch) for order in orders])
    (variables, _), _ = jax.lax.scan(step, (variables, optimizer.init(variables)), rows)
    return variables


WIDTH, HEADS, BLOCKS, WORDS, TOKENS = 768, 12, 12, 10240, 16


def gpt2(w: Any, x: Any) -> Any:
    """A decoder of 12 blocks of 768, embedding tied: 93 million parameters."""
    h = w["words"][x] + w["positions"]
    for i in range(BLOCKS):
        p = w[f"block{i:02}"]
        y = _layer_norm(h, p["norm1"])
        q, k, v = (jnp.einsum("btd,dhe->bthe", y, p[name]) for name in ("q", "k", "v"))
        mask = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
        logits = jnp.einsum("bqhe,bkhe->bhqk", q, k) / (WIDTH // HEADS) ** 0.5
        weight = jax.nn.softmax(jnp.where(mask, logits, -1e9), -1)
        h = h + jnp.einsum("bhqk,bkhe,hed->bqd", weight, v, p["o"])
        h = h + jax.nn.gelu(_layer_norm(h, p["norm2"]) @ p["up"] + p["lift"]) @ p["down"]
    return _layer_norm(h, w["norm"]) @ w["words"].T


def _layer_norm(x: Any, scale: Any) -> Any:
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * scale


def gpt2_weights(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    head = WIDTH // HEADS
    shapes = {
        **dict.fromkeys(("q", "k", "v"), (WIDTH, HEADS, head)),
        "o": (HEADS, head, WIDTH),
        "up": (WIDTH, 4 * WIDTH),
        "lift": (4 * WIDTH,),
        "down": (4 * WIDTH, WIDTH),
        "norm1": (WIDTH,),
        "norm2": (WIDTH,),
    }

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        return 0.02 * rng.standard_normal(shape, dtype=np.float32)

    blocks = {f"block{i:02}": {n: draw(s) for n, s in shapes.items()} for i in range(BLOCKS)}
    ends = {"words": (WORDS, WIDTH), "positions": (TOKENS, WIDTH), "norm": (WIDTH,)}
    return blocks | {name: draw(shape) for name, shape in ends.items()}


# -- one process ---------------------------------------------------------------------------------


def objective(spec: PermutationSpec, permutation: Any, a: Any, b: Any) -> float:
    """Sum over the parameters of <A, π(B)>, in float64."""
    moved = spec.apply(permutation, b)
    sides = [tree.get("params", tree) for tree in (a, moved)]
    pairs = zip(*map(jax.tree.leaves, sides), strict=True)
    return sum(float(np.vdot(np.float64(p), np.float64(q))) for p, q in pairs)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(case: str, which: str, file: Path) -> dict[str, float]:
    """Cold and warm CPU seconds, peak memory and objective, in this process."""
    with file.open("rb") as stored:
        a, b = jax.tree.map(jnp.asarray, pickle.load(stored))
    apply, x = network(case)
    key, times = jax.random.key(0), []
    spec: Any = None
    found: Any = None
    sweeps = 0
    while len(times) < 3:
        begun, clock = cpu_seconds(), time.perf_counter()
        spec = spec or permutation_spec(apply, a, x)
        if which == PUBLISHED:
            found, sweeps = published(key, spec, a, b)
        else:
            match = weight_matching(key, spec, a, b, start=which)
            found, sweeps = match.permutation, int(match.sweeps)
        times.append((cpu_seconds() - begun, time.perf_counter() - clock))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "cold": times[0][0],
        "warm": times[-1][0],
        "cold_wall": times[0][1],
        "objective": objective(spec, found, a, b),
        "sweeps": sweeps,
        "peak_gb": peak,
    }


# -- all processes -------------------------------------------------------------------------------


def compare(case: str, methods: list[str], rounds: int, folder: Path) -> None:
    """Prints a case's rows."""
    file = folder / f"{case}.pickle"  # written and read by this program alone
    with file.open("wb") as stored:
        pickle.dump(modes(case), stored)
    found: dict[str, list[dict[str, float]]] = {which: [] for which in methods}
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    for _ in range(rounds):
        for which in methods:
            command = [sys.executable, __file__, "--measure", case, which, str(file)]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
            found[which].append(json.loads(done.stdout))
    for which, runs in found.items():
        cells = [f"{case:<12} {which:<10}"]
        for column in ("cold", "warm"):
            values = [run[column] for run in runs]
            cells.append(f"{np.median(values):8.3f} ({min(values):.3f}-{max(values):.3f})")
            theirs = [run[column] for run in found.get(PUBLISHED, [])]
            if theirs:
                ratio = np.median(theirs) / np.median(values)
                cells.append(f"{ratio:6.1f}x")
        last = runs[-1]
        print(
            *cells,
            f"{last['objective']:11.3f} {last['sweeps']:4.0f} sweeps {last['peak_gb']:5.2f} GB",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="*", default=["mlp", "resnet20_x1", "resnet20_x4"])
    parser.add_argument("--rounds", type=int, default=5, help="processes of each")
    parser.add_argument("--ours", action="store_true", help="leave the published algorithm out")
    parser.add_argument("--starts", nargs="+", default=OURS, choices=OURS)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        case, which, file = arguments.measure
        print(json.dumps(measure(case, which, Path(file))))
        return
    print("CPU seconds, median (lowest-highest); x: the published algorithm's over ours")
    methods = [*([] if arguments.ours else [PUBLISHED]), *arguments.starts]
    with tempfile.TemporaryDirectory() as folder:
        for case in arguments.cases:
            compare(case, methods, arguments.rounds, Path(folder))


if __name__ == "__main__":
    main()
