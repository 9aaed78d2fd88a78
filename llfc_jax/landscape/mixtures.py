"""Mixtures of any number of modes: their mean, or any other shares, with REPAIR if need be."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from llfc_jax.data.inputs import Data
from llfc_jax.errors import ModeError
from llfc_jax.frameworks import Network
from llfc_jax.landscape.points import PointOptions, judge_points
from llfc_jax.pair import check_pair, mix
from llfc_jax.results import Result, axes, labels, result, setting
from llfc_jax.types import Model, ProgressFn, Variables


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mixtures:
    """All mixtures Σ_i w_i θ_i of some modes.

    Attributes:
        modes: the modes θ_i.
    """

    modes: tuple[Variables, ...]

    @property
    def a(self) -> Variables:
        """Variables of the network's shapes."""
        return self.modes[0]

    def at(self, *coordinates: ArrayLike) -> Variables:
        """Returns the mixture with these weights, which may be traced."""
        return mix(self.modes, jnp.stack(list(map(jnp.asarray, coordinates))))


def share_corners(weights: Float[np.ndarray, "points modes"]) -> Float[np.ndarray, "points points"]:
    """Returns the weights by the points that are the modes themselves, all of which are there."""
    shares = np.zeros((len(weights), len(weights)))
    for mode in range(weights.shape[1]):
        shares[:, np.flatnonzero(weights[:, mode] == 1)[0]] = weights[:, mode]
    return shares


@result
class MixtureResult(Result):
    """Loss and error of the modes and of mixtures Σ_i w_i θ_i, over one data set.

    Attributes:
        points: the modes by their places, then the mixtures.
        modes: the modes.
        weights: w_i of each point [points, modes].
        loss: mean loss [points].
        error: share that is wrong [points]; NaN where the task has no error rate.
        samples: number of samples.
    """

    points: tuple[str, ...] = labels("point")
    modes: tuple[str, ...] = labels("mode")
    weights: Any = axes("points", "modes")
    loss: Any = axes("points")
    error: Any = axes("points")
    samples: int = setting()


def measure_mixtures(
    network: Model,
    modes: Sequence[Model],
    data: Data,
    weights: Float[ArrayLike, "points modes"] | None = None,
    train: Data | None = None,
    options: PointOptions | None = None,
    progress: ProgressFn | None = None,
) -> MixtureResult:
    """Measures loss and error of two or more modes and of their mixtures, in one pass.

    With `PointOptions(renormalise="repair")` every unit of every linear layer but the last has the
    same mixture of the modes' means and deviations (Jordan et al. 2023, of any number of modes).

    Args:
        network: what `Network.of` takes.
        modes: as their framework has them.
        data: (x, labels), batches of such pairs, or a data set.
        weights: shares of the modes, a row for each mixture, which adds up to 1; if None, the mean.
        train: data for statistics; a data set brings its own, else `data` serves.
        options: how they are measured; the defaults if None.
        progress: called as (done, total, words).

    Raises:
        ModeError: modes that are not of one network, or weights that are none.
        LlfcError: data that do not fit the network.

    Examples:
        >>> modes, x, y = [np.eye(2), 2 * np.eye(2), 3 * np.eye(2)], np.ones((3, 2)), [0, 1, 1]
        >>> found = measure_mixtures(lambda w, x: x @ w, modes, [(x, np.array(y))])
        >>> found.points, [round(float(loss), 3) for loss in found.loss]
        (('modes[0]', 'modes[1]', 'modes[2]', 'mean'), [0.693, 0.693, 0.693, 0.693])
    """
    count = len(modes)
    if count < 2:
        raise ModeError(f"a mixture needs two or more modes, not {count}")
    given = np.full((1, count), 1 / count) if weights is None else np.asarray(weights, float)
    if given.ndim != 2 or given.shape[1] != count or not np.allclose(given.sum(1), 1):
        raise ModeError(
            f"weights must be rows of {count} numbers that add up to 1, not an array of shape "
            f"{given.shape}"
        )
    view = Network.of(network)
    held = tuple(view.variables(mode) for mode in modes)
    for other in held[1:]:
        check_pair(held[0], other)
    points = np.concatenate([np.eye(count), given])
    values, samples = judge_points(
        view, Mixtures(held), points, data, train, options, progress, share_corners(points)
    )
    names = tuple(f"modes[{i}]" for i in range(count))
    mixed = ("mean",) if weights is None else tuple(f"mixture {i}" for i in range(len(given)))
    return MixtureResult(
        points=names + mixed,
        modes=names,
        weights=points,
        loss=values["loss"],
        error=values["error"],
        samples=samples,
    )
