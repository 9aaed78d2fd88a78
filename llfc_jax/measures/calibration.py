"""The statistics for renormalising the points of a line, pooled over training data.

Layer after layer: a pass over the data measures the mean and the variance of every unit at the
places of one level, with all places before it corrected already, and the next pass goes one level
deeper. So the statistics are those of the whole data set, however it is cut into batches. All
passes run one compiled program.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from llfc_jax.graph import trace
from llfc_jax.graph.row_layout import RowLayout
from llfc_jax.graph.running_statistics import Held, read_normalisers
from llfc_jax.measures.accumulate import CLASSIFICATION, Moments, accumulate, pad_batches
from llfc_jax.measures.renormalise import Correction, Place, evaluate, find_places
from llfc_jax.measures.similarity import wide
from llfc_jax.pair import Way
from llfc_jax.parallel.loops import AlphaLoop, map_over
from llfc_jax.tasks import Task
from llfc_jax.types import AnyArray, Apply, Batches, Inputs, ProgressFn, Scalar

CONSTANT = 1e-7  # deviation below which a unit is only shifted: there is nothing to rescale

Affine = tuple[np.ndarray, np.ndarray]  # scale and shift of each unit [alphas, units]


def calibrate(
    apply: Apply,
    curve: Way,
    alphas: tuple[float, ...],
    batches: Batches,
    kind: str,
    alpha_loop: AlphaLoop,
    task: Task = CLASSIFICATION,
    progress: ProgressFn | None = None,
    shares: Float[np.ndarray, "points points"] | None = None,
) -> Correction:
    """Returns corrections for every point of the line, stacked along α.

    A reset takes the statistics of θ_α itself, at the ends as well. REPAIR brings each unit of
    every linear layer but the last to α E_a + (1 - α) E_b and α s_a + (1 - α) s_b, the mean and the
    deviation of the ends (Jordan et al. 2023); at the ends it changes nothing. Points that are no
    line's are brought to such a mixture of any of them.

    Args:
        apply: the network.
        curve: where the networks are taken from by a number.
        alphas: the points.
        batches: training data; read once for each level of layers.
        kind: "reset" or "repair".
        alpha_loop: how the loop over α runs.
        task: says which tokens of a sample count.
        progress: called per batch.
        shares: of which points (columns) each point's target is the mixture, where the points are
            rising numbers from 0 on and not those of a line.
    """
    first, _, mask = next(pad_batches(batches, task))
    places = find_places(trace(apply, curve.a, first), kind)
    grid = np.unique([*alphas, 0.0, 1.0])  # the ends are REPAIR's target
    shares = _share_line(grid) if shares is None else shares
    points = grid.astype(jnp.result_type(float))
    held = _read(apply, alpha_loop, curve, points, first, 0.0) if kind == "reset" else {}
    measure = partial(_measure, apply, kind, alpha_loop, curve)
    nothing = points, Correction({}, {})
    sizes = jax.eval_shape(measure, nothing, first, mask)
    done = {p.name: _nothing(sizes[p.name].mean.shape) for p in places}
    levels = 1 + max((p.level for p in places), default=-1)
    raw: dict[str, Moments] = {}
    for level in range(levels):
        correction = _as_correction(done)
        words = f"renormalising ({level + 1} of {levels})"
        found = accumulate(
            lambda x, y, mask, c=correction: measure((points, c), x, mask),
            batches,
            progress,
            words,
            task=task,
        )
        raw = raw or found
        for place in places:
            if place.level == level:
                own = found[place.name]
                done[place.name] = (
                    _reset(held[place.name], own) if held else _repair(shares, own, raw[place.name])
                )
    wanted = np.searchsorted(grid, alphas)
    return _as_correction({k: (scale[wanted], shift[wanted]) for k, (scale, shift) in done.items()})


def _nothing(shape: tuple[int, ...]) -> Affine:
    return np.ones(shape), np.zeros(shape)


def _as_correction(done: dict[str, Affine]) -> Correction:
    scale, shift = ({k: jnp.asarray(v[i], float) for k, v in done.items()} for i in (0, 1))
    return Correction(scale, shift)


def _reset(held: Held, own: Moments) -> Affine:
    """Returns what makes y = A v + B the normalised v of these statistics, on y."""
    held = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), held)
    variance = own.squares / own.count + held.epsilon
    scale = np.sqrt(held.variance / np.where(variance > 0, variance, held.variance))
    shift = held.mean - own.mean * scale
    return scale, held.slope * shift + held.offset * (1 - scale)


def _share_line(grid: np.ndarray) -> np.ndarray:
    """Returns how much each point of a grid (columns) is of each point of the line: its ends."""
    shares = np.zeros((len(grid), len(grid)))
    low, high = np.searchsorted(grid, [0.0, 1.0])
    shares[:, high], shares[:, low] = grid, 1 - grid
    return shares


def _repair(shares: np.ndarray, own: Moments, raw: Moments) -> Affine:
    """Returns what brings a unit to the mixture of the means and deviations of other points."""
    deviation = np.sqrt(own.squares / own.count)
    wanted = shares @ np.sqrt(raw.squares / raw.count)
    alive = deviation > CONSTANT
    scale = np.where(alive, wanted / np.where(alive, deviation, 1), 1)
    shift = shares @ raw.mean - own.mean * scale
    ends = (np.diag(shares) == 1)[:, None]
    return np.where(ends, 1, scale), np.where(ends, 0, shift)


@partial(jax.jit, static_argnames=("apply", "kind", "alpha_loop"))
def _measure(
    apply: Apply,
    kind: str,
    alpha_loop: AlphaLoop,
    curve: Way,
    points: tuple[Any, Correction],
    x: Inputs,
    mask: jax.Array,
) -> dict[str, Moments]:
    """Moments of a batch per unit at every place, along α."""
    graph = trace(apply, curve.a, x)
    places = find_places(graph, kind)
    layout = RowLayout.of(graph, apply, curve.a, x, mask)

    def at(point: tuple[jax.Array, Correction]) -> dict[str, Moments]:
        values = evaluate(graph, curve.at(point[0]), x, point[1])
        return {p.name: _moments(values.all[p.value], layout.mask_of(p.value), p) for p in places}

    return map_over(at, points, alpha_loop)


def _moments(value: jax.Array, mask: jax.Array, at: Place) -> Moments:
    """Returns the moments of each unit, over samples and positions."""
    value = wide(value)
    weight = jnp.broadcast_to(mask, value.shape)
    axes = tuple(i for i in range(value.ndim) if i not in at.axes)
    count = weight.sum(axes)
    mean = (value * weight).sum(axes, keepdims=True) / weight.sum(axes, keepdims=True)
    squares = ((value - mean) ** 2 * weight).sum(axes)
    return Moments(*(part.reshape(-1) for part in (count, mean, squares)))


@partial(jax.jit, static_argnames=("apply", "alpha_loop"))
def _read(
    apply: Apply,
    alpha_loop: AlphaLoop,
    curve: Way,
    alphas: AnyArray,
    x: jax.Array,
    zero: Scalar,
) -> dict[str, Held]:
    """Returns what the normalisers of every point hold, stacked along α."""
    graph = trace(apply, curve.a, x)
    return map_over(
        lambda alpha: read_normalisers(graph, curve.at(alpha), jnp.asarray(zero)),
        alphas,
        alpha_loop,
    )
