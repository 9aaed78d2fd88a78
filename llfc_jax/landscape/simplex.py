"""Loss and error on the triangle between three modes: every mixture of their weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from llfc_jax.data.inputs import Data
from llfc_jax.errors import ModeError
from llfc_jax.frameworks import Network
from llfc_jax.landscape.mixtures import Mixtures, share_corners
from llfc_jax.landscape.points import PointOptions, judge_points
from llfc_jax.pair import check_pair
from llfc_jax.report.style import SCREEN, Theme
from llfc_jax.results import Result, axes, labels, result, setting
from llfc_jax.types import Model, ProgressFn


@result
class SimplexResult(Result):
    """Loss and error of w_a θ_a + w_b θ_b + w_c θ_c, over one data set.

    Attributes:
        points: number of each point; the three modes are among them.
        weight_a: w_a of each point [points].
        weight_b: w_b [points].
        weight_c: w_c [points]; the three add up to 1.
        loss: mean loss [points].
        error: share that is wrong [points]; NaN where the task has no error rate.
        samples: number of samples.
    """

    points: tuple[int, ...] = labels("point")
    weight_a: Any = axes("points")
    weight_b: Any = axes("points")
    weight_c: Any = axes("points")
    loss: Any = axes("points")
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


def measure_simplex(
    network: Model,
    modes: Sequence[Model],
    data: Data,
    steps: int = 20,
    train: Data | None = None,
    options: PointOptions | None = None,
    progress: ProgressFn | None = None,
) -> SimplexResult:
    """Measures loss and error on the triangle between three modes, in one pass over the data.

    Its points are all w with w_a + w_b + w_c = 1 on a grid of `steps` steps an edge; on each edge
    they are those of `lmc` between two of the modes.

    Args:
        network: what `Network.of` takes.
        modes: a, b and c, as their framework has them.
        data: (x, labels), batches of such pairs, or a data set.
        steps: steps along an edge; (steps + 1) (steps + 2) / 2 points are measured.
        train: data for the running statistics; a data set brings its own, else `data` serves.
        options: how it is measured; the defaults if None.
        progress: called as (done, total, words).

    Raises:
        ModeError: not three modes of one network, or no step.
        LlfcError: data that do not fit the network.

    Examples:
        >>> modes, x, y = [np.eye(2), 2 * np.eye(2), 3 * np.eye(2)], np.ones((3, 2)), [0, 1, 1]
        >>> found = measure_simplex(lambda w, x: x @ w, modes, [(x, np.array(y))], steps=2)
        >>> found.weights.tolist()[:3], round(found.barrier("loss"), 6)
        ([[0.0, 0.0, 1.0], [0.0, 0.5, 0.5], [0.0, 1.0, 0.0]], 0.0)
    """
    if len(modes) != 3 or steps < 1:
        raise ModeError(f"name three modes and 1 step or more, not {len(modes)} and {steps}")
    view = Network.of(network)
    held = tuple(view.variables(mode) for mode in modes)
    for other in held[1:]:
        check_pair(held[0], other)
    grid = barycentric_grid(steps)
    values, samples = judge_points(
        view, Mixtures(held), grid, data, train, options, progress, share_corners(grid)
    )
    return SimplexResult(
        points=tuple(range(len(grid))),
        weight_a=grid[:, 0],
        weight_b=grid[:, 1],
        weight_c=grid[:, 2],
        loss=values["loss"],
        error=values["error"],
        samples=samples,
    )


def barycentric_grid(steps: int) -> Float[np.ndarray, "points 3"]:
    """Returns all (w_a, w_b, w_c) of multiples of 1 / steps that add up to 1."""
    cells = [(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]
    return np.array(cells) / steps
