"""Weight matching against the published algorithm: time and objective, as ratios in one run.

    python benchmarks/matching.py                    # MLP, ResNet-20 x1
    python benchmarks/matching.py mlp resnet20_x8 vgg16_4096 --repeat 1

The published algorithm (Ainsworth et al. 2023) is written here as its paper describes it: a Python
loop over the groups in random order, each group's products rebuilt for every parameter with
jax.numpy, SciPy for the assignment, until a whole sweep gains nothing. Both start from the
identity, follow the same random order, and run until they converge. Compilation is timed apart.

The MLP is trained on the embedded digits; the convolutional networks are untrained, with noise on
their norms' parameters, which is harder on the assignments than it is on the products.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.optimize import linear_sum_assignment

from llfc_jax import data, networks
from llfc_jax.matching import weight_matching
from llfc_jax.symmetry import PermutationSpec, permutation_spec

CASES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "mlp": ({"name": "mlp"}, (64,)),
    "resnet20_x1": (
        {"name": "resnet_cifar", "norm": "layer", "shortcut": "conv3"},
        (32, 32, 3),
    ),
    "resnet20_x4": (
        {"name": "resnet_cifar", "norm": "layer", "shortcut": "conv3", "width": 4.0},
        (32, 32, 3),
    ),
    "resnet20_x8": (
        {"name": "resnet_cifar", "norm": "layer", "shortcut": "conv3", "width": 8.0},
        (32, 32, 3),
    ),
    "vgg16_512": ({"name": "vgg", "norm": "layer", "hidden": (512, 512)}, (32, 32, 3)),
    "vgg16_4096": ({"name": "vgg", "norm": "layer"}, (32, 32, 3)),
}


def published(
    key: jax.Array, spec: PermutationSpec, a: Any, b: Any, max_sweeps: int = 100
) -> tuple[dict[str, np.ndarray], int]:
    """Coordinate ascent as published; returns the permutation and the number of sweeps."""
    paths = [path for path, _ in spec.leaves]
    left = dict(zip(paths, jax.tree.leaves(a), strict=True))
    right = dict(zip(paths, jax.tree.leaves(b), strict=True))
    axes_of = {
        path: [
            next((g.name for g in spec.groups if (path, i) in spec.where(g.name)), None)
            for i in range(len(axes))
        ]
        for path, axes in spec.leaves
    }
    names = [group.name for group in spec.groups]
    acts_on = {name: spec.where(name) for name in names}
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
                moved = right[path]
                for other, group in enumerate(axes_of[path]):
                    if group is not None and other != axis:
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


def objective(spec: PermutationSpec, permutation: Any, a: Any, b: Any) -> float:
    """Sum over all leaves of <A, π(B)>, in float64."""
    moved = jax.tree.leaves(spec.apply(permutation, b))
    pairs = zip(jax.tree.leaves(a), moved, strict=True)
    return sum(float(np.vdot(np.asarray(p, np.float64), np.asarray(q))) for p, q in pairs)


def network(case: str) -> tuple[Callable[..., Any], Any, Any, jax.Array]:
    """Apply, two modes and a batch."""
    fields, shape = CASES[case]
    fields = dict(fields)
    module = networks.build(fields.pop("name"), 10, **fields)
    x = jnp.zeros((2, *shape))
    if case == "mlp":
        a, b = (_trained(module, jax.random.key(seed)) for seed in (0, 1))
    else:
        a, b = (_noisy(networks.init(module, jax.random.key(seed), x), seed) for seed in (0, 1))
    return module.apply, a, b, x


def _noisy(variables: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)

    def one(leaf: jax.Array) -> jax.Array:
        if leaf.ndim > 1:
            return leaf
        return leaf + jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype)

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


def timed(run: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds of one call, and its result."""
    start = time.perf_counter()
    result = jax.block_until_ready(run(*arguments))
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="*", default=["mlp", "resnet20_x1"])
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; the fastest counts")
    arguments = parser.parse_args()
    key = jax.random.key(0)
    print(f"{'case':<12} {'compile':>8} {'ours':>8} {'published':>10} {'ratio':>6}  objective")
    for case in arguments.cases:
        apply, a, b, x = network(case)
        spec = permutation_spec(apply, a, x)
        pair = (key, spec, a, b)
        first, _ = timed(weight_matching, *pair)
        timed(published, *pair, 1)
        # Turn and turn about, so that a busy machine slows both.
        runs = [
            (timed(weight_matching, *pair), timed(published, *pair))
            for _ in range(arguments.repeat)
        ]
        ours, theirs = (min(run[which][0] for run in runs) for which in (0, 1))
        matching, (permutation, sweeps) = runs[0][0][1], runs[0][1][1]
        values = [objective(spec, p, a, b) for p in (matching.permutation, permutation)]
        print(
            f"{case:<12} {max(0.0, first - ours):8.2f} {ours:8.3f} {theirs:10.3f} "
            f"{theirs / ours:6.1f}  {values[0]:.3f} against {values[1]:.3f} in "
            f"{int(matching.sweeps)} and {sweeps} sweeps"
        )


if __name__ == "__main__":
    main()
