"""Why a merge works or fails: four pairs of small networks on the digits, diagnosed.

    python benchmarks/merge_digits.py

A network of three hidden layers of 64 learns the embedded digits. Two of it are then fine-tuned on
a half each of the digits shifted to the left; on digits shifted to the left and to the right; on
them as they are and turned by 90 degrees; two more start independently. It takes a minute.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from llfc_jax import data, merging, symmetry

DIGITS = data.load("digits")
IMAGES, LABELS = DIGITS.train.images[..., 0] / np.float32(255), DIGITS.train.labels
HELD_OUT, HELD_LABELS = DIGITS.test.images[..., 0] / np.float32(255), DIGITS.test.labels
OPTIMISER = optax.adam(1e-3)


class MLP(nn.Module):
    """Three hidden layers."""

    @nn.compact
    def __call__(self, x):  # noqa: D102
        x = x.reshape(len(x), -1)
        for _ in range(3):
            x = nn.relu(nn.Dense(64)(x))
        return nn.Dense(10)(x)


def loss(weights, x, y):
    logits = jnp.asarray(MLP().apply(weights, x))
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@jax.jit
def train(weights, x, y, steps):
    """Takes steps of Adam on all of the data at once."""

    def step(_, carry):
        weights, state = carry
        updates, state = OPTIMISER.update(jax.grad(loss)(weights, x, y), state)
        return optax.apply_updates(weights, updates), state

    return jax.lax.fori_loop(0, steps, step, (weights, OPTIMISER.init(weights)))[0]


def fine_tune(base, change, steps=100):
    """Fine-tunes on changed images."""
    return train(base, change(IMAGES), LABELS, steps)


def main() -> None:
    tasks = {
        "as they are": lambda x: x,
        "left": lambda x: np.roll(x, -1, 2),
        "right": lambda x: np.roll(x, 1, 2),
        "turned": lambda x: np.rot90(x, axes=(1, 2)),
    }
    base = train(MLP().init(jax.random.key(0), IMAGES[:1]), IMAGES, LABELS, 300)
    rules = [
        "mean",
        *(merging.TaskArithmetic(scale) for scale in (0.3, 1.0)),
        *(merging.Ties(density) for density in (0.2, 0.5)),
        merging.Dare(0.5),
        "slerp",
    ]
    halves = [train(base, tasks["left"](IMAGES[i::2]), LABELS[i::2], 60) for i in (0, 1)]
    held_out = {"left": [(tasks["left"](HELD_OUT), HELD_LABELS)]}
    print("Fine-tuned on digits shifted to the left, one half each")
    print(merging.diagnose(MLP(), halves, held_out, rules, base))
    for pair in (("left", "right"), ("as they are", "turned")):
        models = [fine_tune(base, tasks[name]) for name in pair]
        held_out = {name: [(tasks[name](HELD_OUT), HELD_LABELS)] for name in pair}
        print(f"\nFine-tuned on digits {pair[0]} and {pair[1]}")
        print(merging.diagnose(MLP(), models, held_out, rules, base))

        def on_both(weights, held_out=held_out):
            return sum(loss(weights, x, y) for ((x, y),) in held_out.values()) / 2

        scales = {"scale": np.linspace(0, 1.2, 13)}
        found = merging.search(models, on_both, scales, base, "task_arithmetic")
        print(f"search: {found.rule}, loss {found.loss.min():.3g}")
    ends = [train(MLP().init(jax.random.key(seed), IMAGES[:1]), IMAGES, LABELS, 300)
            for seed in (1, 2)]  # fmt: skip
    spec = symmetry.permutation_spec(MLP(), ends[0], HELD_OUT)
    print("\nTrained independently")
    rules = ["mean", merging.GitRebasin(spec)]
    print(merging.diagnose(MLP(), ends, {"digits": [(HELD_OUT, HELD_LABELS)]}, rules))


if __name__ == "__main__":
    main()
