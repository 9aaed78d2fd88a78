"""Loss and error on the triangle between three modes: every mixture of their weights."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from llfc_jax.errors import GraphError, ModeError
from llfc_jax.frameworks import Network
from llfc_jax.measures.accumulate import accumulate, pad_batches
from llfc_jax.measures.classification import loss_and_right
from llfc_jax.measures.precision import matmul_precision
from llfc_jax.pair import check_pair, mix
from llfc_jax.parallel import sharding
from llfc_jax.parallel.loops import AlphaLoop, choose_loops, map_over
from llfc_jax.report.style import SCREEN, Theme
from llfc_jax.results import Result, axes, labels, result, setting
from llfc_jax.types import Apply, Batches, Model, ProgressFn, Variables


@result
class SimplexResult(Result):
    """Loss and error of w_a θ_a + w_b θ_b + w_c θ_c, over one data set.

    Attributes:
        points: number of each point; the three modes are among them.
        weight_a: w_a of each point [points].
        weight_b: w_b [points].
        weight_c: w_c [points]; the three add up to 1.
        loss: mean cross-entropy [points].
        accuracy: share of samples classified rightly [points].
        error: 1 - accuracy [points].
        samples: number of samples.
    """

    points: tuple[int, ...] = labels("point")
    weight_a: Any = axes("points")
    weight_b: Any = axes("points")
    weight_c: Any = axes("points")
    loss: Any = axes("points")
    accuracy: Any = axes("points")
    error: Any = axes("points")
    samples: int = setting()

    @property
    def weights(self) -> Float[np.ndarray, "points 3"]:
        """The barycentric coordinates of each point."""
        return np.stack([self.weight_a, self.weight_b, self.weight_c], 1)

    def barrier(self, of: str = "error") -> float:
        """Returns max_w E(Σ w_i θ_i) - Σ w_i E(θ_i), with E the `error` or `loss`."""
        values, weights = np.asarray(getattr(self, of)), self.weights
        corners = np.array([values[weights[:, i] == 1][0] for i in range(3)])
        return float(np.max(values - weights @ corners))

    def plot(self, name: str | None = None, theme: Theme = SCREEN) -> Any:
        """Returns the triangle as an Altair chart, coloured by `name`: "loss" or "error"."""
        from llfc_jax.report.triangle import draw_triangle

        return draw_triangle(self.records(), name or "loss", theme)


def simplex(
    network: Model,
    modes: Sequence[Model],
    batches: Batches,
    *,
    steps: int = 20,
    alpha_loop: AlphaLoop | None = None,
    progress: ProgressFn | None = None,
) -> SimplexResult:
    """Measures loss and error on the triangle between three modes, in one pass over the data.

    Its points are all w with w_a + w_b + w_c = 1 on a grid of `steps` steps an edge; on each edge
    they are those of `lmc` between two of the modes.

    Args:
        network: a module of any framework, or `apply(variables, x) -> logits [n, classes]`.
        modes: a, b and c, as their framework has them.
        batches: re-iterable pairs (x [n, ...], labels [n]).
        steps: steps along an edge; (steps + 1) (steps + 2) / 2 points are measured.
        alpha_loop: "vmap", "map" or "unroll"; chosen by network and backend if None.
        progress: called as (batches done, batches in all or 0, words).

    Raises:
        ModeError: not three modes of one network, or no step.
        DataError: the data do not fit the network.

    Examples:
        >>> modes, x, y = [np.eye(2), 2 * np.eye(2), 3 * np.eye(2)], np.ones((3, 2)), [0, 1, 1]
        >>> found = simplex(lambda w, x: x @ w, modes, [(x, np.array(y))], steps=2)
        >>> found.weights.tolist()[:3], round(found.barrier("loss"), 6)
        ([[0.0, 0.0, 1.0], [0.0, 0.5, 0.5], [0.0, 1.0, 0.0]], 0.0)
    """
    if len(modes) != 3 or steps < 1:
        raise ModeError(f"name three modes and 1 step or more, not {len(modes)} and {steps}")
    view = Network.of(network)
    a, *others = (view.variables(mode) for mode in modes)
    for other in others:
        check_pair(a, other)
    x, y, _ = next(pad_batches(batches))
    shape = jax.eval_shape(view.apply, a, x).shape
    if len(shape) != 2 or shape[0] != len(y):
        raise GraphError(f"the network must return logits [n, classes], not shape {shape}")
    how = alpha_loop or choose_loops(view.apply, a, x).alphas
    grid = barycentric_grid(steps)
    placed = sharding.replicate_like(x, ((a, *others), jnp.asarray(grid, jnp.float32)))
    kernel = functools.partial(_evaluate, view.apply, how, *placed)
    with matmul_precision("highest"):
        samples, loss, right = accumulate(kernel, batches, progress, "triangle", shape[1])
    accuracy = right / samples
    return SimplexResult(
        points=tuple(range(len(grid))),
        weight_a=grid[:, 0],
        weight_b=grid[:, 1],
        weight_c=grid[:, 2],
        loss=loss / samples,
        accuracy=accuracy,
        error=1 - accuracy,
        samples=int(samples),
    )


def barycentric_grid(steps: int) -> Float[np.ndarray, "points 3"]:
    """Returns all (w_a, w_b, w_c) of multiples of 1 / steps that add up to 1."""
    cells = [(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]
    return np.array(cells) / steps


@functools.partial(jax.jit, static_argnums=(0, 1))
def _evaluate(
    apply: Apply,
    how: AlphaLoop,
    modes: Sequence[Variables],
    grid: Float[Array, "points 3"],
    x: jax.Array,
    y: jax.Array,
    mask: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns number of samples, and summed loss and right predictions of every point."""

    def at(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
        return loss_and_right(apply(mix(modes, weights), x), y, mask)

    return mask.sum(), *map_over(at, grid, how)
