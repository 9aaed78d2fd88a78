"""How far a network's outputs are from those that linear features would give it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from llfc_jax.errors import MatchingError
from llfc_jax.tasks.task import fit_mask
from llfc_jax.types import Outputs


def deviation(
    found: Outputs, mixture: Outputs, mask: Float[Array, "n ..."], *, labelled: bool
) -> Float[Array, ""]:
    """Returns the mean distance of outputs from a mixture of the ends' outputs.

    KL(softmax mixture || softmax found) in nats of logits; where the task has no labels the mean
    square, of absolute values, added over several outputs.

    Args:
        found: outputs of a network on the line.
        mixture: the mixture of the ends' outputs.
        mask: what counts of the outputs, [n] or [n, t].
        labelled: whether outputs are logits.
    """
    if not labelled:
        gaps = jax.tree.map(
            lambda p, q: _mean(jnp.real((p - q) * jnp.conj(p - q)), mask), found, mixture
        )
        return jax.tree.reduce(jnp.add, gaps)
    p, q = jax.nn.log_softmax(mixture), jax.nn.log_softmax(found)
    return _mean((jnp.exp(p) * (p - q)).sum(-1), mask)


def check_distributions(outputs: Outputs) -> None:
    """Checks that outputs are logits of two classes or more, as `deviation` compares them.

    Raises:
        MatchingError: they are not.
    """
    leaves = jax.tree.leaves(outputs)
    if len(leaves) != 1:
        raise MatchingError(
            f"matching by outputs compares class probabilities, and the network has {len(leaves)} "
            "outputs: give the task that judges them"
        )
    (logits,) = leaves
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise MatchingError(
            f"matching by outputs compares class probabilities; outputs are {logits.dtype}: give "
            "the task that judges them"
        )
    if logits.ndim < 2 or logits.shape[-1] < 2:
        raise MatchingError(
            f"matching by outputs compares class probabilities, and outputs of shape "
            f"{logits.shape} have none: match weights, activations or commutativity instead"
        )


def _mean(values: Float[Array, "n ..."], mask: Float[Array, "n ..."]) -> Float[Array, ""]:
    """Returns the mean of what counts."""
    counts = fit_mask(mask, values.shape) > 0
    return jnp.where(counts, values, 0).sum() / jnp.maximum(counts.sum(), 1)
