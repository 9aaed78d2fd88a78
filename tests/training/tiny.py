"""Small data and networks that all training tests share, so that programs compile once."""

from typing import Any

import jax
import numpy as np
from flax import linen as nn

from llfc_jax.data import Dataset, Split
from llfc_jax.training import Recipe

CLASSES, SAMPLES, BATCH = 3, 50, 8  # 6 steps an epoch; 2 samples are left over
RECIPE = Recipe(epochs=4, batch_size=BATCH, learning_rate=0.05, schedule="cosine")


class Small(nn.Module):
    """A convolution, BatchNorm and dropout: all that training has to carry along."""

    classes: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(4, (3, 3), dtype=self.dtype)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, dtype=self.dtype)(x))
        x = nn.Dropout(0.2, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(self.classes, dtype=self.dtype)(x)


def make_dataset() -> Dataset:
    """Images of 6x6 pixels whose class is the bright row."""
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, 2 * SAMPLES).astype(np.int32)
    images = random.integers(0, 80, (2 * SAMPLES, 6, 6, 1), dtype=np.uint8)
    images[np.arange(2 * SAMPLES), labels] += 120
    train, test = (Split(images[s], labels[s]) for s in np.split(np.arange(2 * SAMPLES), 2))
    return Dataset("made", train, test, CLASSES, (0.3,), (0.2,))


def same(a: Any, b: Any) -> bool:
    """Whether two pytrees have the same bits."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)
