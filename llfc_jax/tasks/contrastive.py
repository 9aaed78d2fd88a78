"""Contrastive learning of two towers: does each sample find its partner?"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from llfc_jax.errors import ConfigError, GraphError
from llfc_jax.tasks.labels import one_minus
from llfc_jax.tasks.registry import task
from llfc_jax.tasks.task import Derived, Pooled, Task, fit_mask
from llfc_jax.types import Outputs, Targets, Totals


def _similarities(outputs: Outputs, mask: Array, temperature: float) -> Float[Array, "n n"]:
    """Returns cosines of all pairs over the temperature; what does not count is out of reach."""
    leaves = jax.tree.leaves(outputs)
    if len(leaves) != 2 or leaves[0].shape != leaves[1].shape or leaves[0].ndim != 2:
        shapes = ", ".join(str(leaf.shape) for leaf in leaves)
        raise GraphError(
            f"the task 'contrastive' needs two embeddings [n, d] of one size, not {shapes}"
        )
    p, q = (e / jnp.maximum(jnp.linalg.norm(e, axis=-1, keepdims=True), 1e-12) for e in leaves)
    counts = fit_mask(mask, (len(p),))
    similar = jnp.matmul(p, q.T, precision="highest") / temperature
    return jnp.where((counts[:, None] > 0) & (counts[None] > 0), similar, -jnp.inf)


class _Temperature:
    """Base of the functions that know the temperature; equal where it is."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), self.temperature))


class _Loss(_Temperature):
    """InfoNCE in both directions, of each pair."""

    def __call__(self, outputs: Outputs, targets: Targets, mask: Array) -> Float[Array, " n"]:
        similar = _similarities(outputs, mask, self.temperature)
        counts = fit_mask(mask, similar.shape[:1]) > 0
        similar = jnp.where(counts[:, None] | counts[None], similar, 0)  # all -inf would be NaN
        both = (jax.nn.logsumexp(similar, axis) for axis in (0, 1))
        return sum(both) / 2 - jnp.diagonal(similar)  # pyright: ignore[reportReturnType]


class _Finds(_Temperature):
    """Whether the nearest second embedding of each first one is its partner."""

    def __call__(self, outputs: Outputs, targets: Targets, mask: Array) -> Array:
        similar = _similarities(outputs, mask, self.temperature)
        found = jnp.where(jnp.isnan(similar).any(-1), -1, similar.argmax(-1))
        return found == jnp.arange(len(found))


def _batch_sums(outputs: Outputs, targets: Targets, mask: Array) -> tuple[Array, Array]:
    leaf: Int[Array, "n d"] = jax.tree.leaves(outputs)[0]
    n = fit_mask(mask, (len(leaf),)).sum()
    return n * jnp.log(jnp.maximum(n, 1)), n * (1 - 1 / jnp.maximum(n, 1))


def _guess(totals: Totals, count: np.ndarray) -> dict[str, float]:
    return {"loss": float(totals[0] / count), "error": float(totals[1] / count)}


@task("contrastive")
def contrastive(temperature: float = 0.07) -> Task:
    """Outputs are two embeddings [n, d], of one pair each row; targets are not looked at.

    The loss is InfoNCE in both directions, the error the share of first embeddings whose nearest
    second one, by the cosine, is not their partner (1 - retrieval at 1). Candidates are those of
    the same batch, so the numbers depend on its size: compare runs of one batch size.

    Args:
        temperature: what cosines are divided by in the loss.

    Raises:
        ConfigError: a temperature that is not above 0.
    """
    if not temperature > 0 or not np.isfinite(temperature):
        raise ConfigError(f"contrastive: temperature must be above 0, not {temperature!r}")
    return Task(
        _Loss(float(temperature)),
        (("accuracy", _Finds(1.0)), ("error", Derived("accuracy", one_minus))),
        main="error",
        trivial=Pooled(_batch_sums, _guess),
        name="contrastive",
        options={} if temperature == 0.07 else {"temperature": temperature},
    )
