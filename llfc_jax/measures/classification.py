"""The task: classification. Loss, accuracy, chance, and what labels and outputs must look like.

Whatever a measure needs to know of the task stands here; the other files know only of `Values`,
features and weights.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from llfc_jax.errors import DataError, GraphError
from llfc_jax.graph import Graph
from llfc_jax.measures.precision import wide

# An end within this many standard errors of always guessing the most frequent class is at chance.
CHANCE = 3.0


def loss_and_right(
    logits: Float[Array, "n classes"], y: Int[Array, " n"], mask: Float[Array, " n"]
) -> tuple[jax.Array, jax.Array]:
    """Returns summed cross-entropy and number of right predictions; NaN predicts nothing."""
    import optax

    logits = wide(logits)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    right = predictions(logits) == y
    return (jnp.where(mask > 0, losses, 0) * mask).sum(), (right * mask).sum()


def predictions(logits: Float[Array, "n classes"]) -> Int[Array, " n"]:
    """Returns the predicted class of each sample; -1 where a logit is NaN."""
    return jnp.where(jnp.isnan(logits).any(-1), -1, logits.argmax(-1))


def count_classes(
    y: Int[Array, " n"], mask: Float[Array, " n"], classes: int
) -> Float[Array, " classes"]:
    """Returns how many samples each class has."""
    return jnp.zeros(classes, mask.dtype).at[y].add(mask)


def better_than_chance(
    accuracies: Sequence[float], classes: Float[np.ndarray, " classes"], n: float
) -> bool:
    """Returns whether every accuracy is above that of always naming the most frequent class.

    Above by `CHANCE` standard errors √(p (1 - p) / n), p being that class's share.
    """
    chance = float(classes.max() / n)
    margin = CHANCE * np.sqrt(chance * (1 - chance) / n)
    return all(accuracy > chance + margin for accuracy in accuracies)


def check_logits(graph: Graph, n: int) -> int:
    """Returns the number of classes of a network, after a check that its output is logits.

    Raises:
        GraphError: the output is not [n, classes].
    """
    shape = graph.program.avals[graph.program.output].shape
    if len(shape) != 2 or shape[0] != n:
        raise GraphError(f"the network must return logits [n, classes], not shape {shape}")
    return shape[1]


def check_labels(low: int, high: int, classes: int) -> None:
    """Checks that labels from `low` to `high` are among the classes.

    Raises:
        DataError: they are not.
    """
    if low < 0 or high >= classes:
        raise DataError(f"labels run from {low} to {high}, but the network has {classes} classes")
