"""Loss and features along a curve, and the loss over a plane."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, PyTree

from llfc_jax import tasks
from llfc_jax.data.inputs import Data, as_splits
from llfc_jax.errors import ModeError
from llfc_jax.frameworks import Network
from llfc_jax.graph.trace import abstract
from llfc_jax.landscape.fit import FittedCurve
from llfc_jax.landscape.plane import Plane
from llfc_jax.measures import EvalOptions, PairEvaluator, build
from llfc_jax.measures import renormalise as renorm
from llfc_jax.measures.accumulate import accumulate, check_outputs, pad_batches
from llfc_jax.measures.batch import TracedNetwork
from llfc_jax.measures.calibration import calibrate
from llfc_jax.measures.precision import matmul_precision
from llfc_jax.pair import Curve
from llfc_jax.results import Result, axes, labels, result, setting
from llfc_jax.tasks import Task
from llfc_jax.types import AnyArray, Inputs, Model, ProgressFn, Variables

ON_CURVES = ("lmc", "llfc", "ensemble")


def measure_curve(
    network: Model,
    curve: Curve | FittedCurve,
    data: Data,
    train: Data | None = None,
    measures: Sequence[str] = ("lmc", "llfc"),
    options: EvalOptions | None = None,
    progress: ProgressFn | None = None,
) -> dict[str, Any]:
    """Measures a curve as a line is measured: θ(α) in the place of α a + (1 - α) b.

    LLFC then asks whether the features on the way are, up to scale, the mixture of the ends':
    f(θ(α)) ∝ α f(a) + (1 - α) f(b). A network that keeps running statistics is renormalised
    ("reset") unless the options say otherwise, since a fitted curve has none.

    Args:
        network: what `Network.of` takes.
        curve: between two modes; `Curve(a, b)` is the straight line.
        data: (x, labels), batches of such pairs, or a data set.
        train: data for the running statistics; a data set brings its own, else `data` serves.
        measures: "lmc", "llfc" and "ensemble", the ones that do not assume a straight line.
        options: how it is measured.
        progress: called as (done, total, words).

    Returns:
        The result of each measure, by its name.

    Raises:
        ModeError: another measure; modes that are none.
        LlfcError: see `PairEvaluator`.
    """
    for name in measures:
        if name not in ON_CURVES:
            raise ModeError(f"{name} assumes a straight line; on a curve: {', '.join(ON_CURVES)}")
    curve = curve.curve if isinstance(curve, FittedCurve) else curve
    view, options = Network.of(network), options or EvalOptions()
    splits = as_splits(data, train, options.batch_size)
    batches, pooled = splits["test"], splits.get("train", splits["test"])

    def evaluator(options: EvalOptions) -> PairEvaluator:
        return PairEvaluator(view, curve.a, curve.b, batches, options, pooled, progress, curve)

    made = evaluator(options)
    if made.graph.normalisers and options.renormalise == "none" and curve.kind != "line":
        made = evaluator(dataclasses.replace(options, renormalise="reset"))
    return made.measure([build(name) for name in measures], progress=progress)


@result
class PlaneResult(Result):
    """Loss and error over a plane.

    Attributes:
        xs: coordinates along the plane's first direction.
        ys: coordinates along its second one.
        loss: mean loss [ys, xs].
        error: share that is wrong [ys, xs]; NaN where the task has no error rate.
        samples: number of samples.
        renormalise: "reset" where running statistics were taken anew at every point.
    """

    xs: tuple[float, ...] = labels("x")
    ys: tuple[float, ...] = labels("y")
    loss: Any = axes("ys", "xs")
    error: Any = axes("ys", "xs")
    samples: int = setting()
    renormalise: str = setting("none")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Grid:
    """The points of a plane, row by row, as a way that is followed by their numbers.

    Attributes:
        plane: the plane.
        points: (x, y) of each [points, 2].
    """

    plane: Plane
    points: Any

    @property
    def a(self) -> Variables:
        """Variables of the network's shapes."""
        return self.plane.origin

    def at(self, alpha: ArrayLike) -> Variables:
        """Returns θ at the point of this number, which may be a float."""
        x, y = self.points[jnp.asarray(alpha).astype(int)]
        return self.plane.at(x, y)


def measure_plane(
    network: Model,
    plane: Plane,
    data: Data,
    xs: Sequence[float],
    ys: Sequence[float],
    train: Data | None = None,
    renormalise: str = "none",
    batch_size: int = 500,
    task: Task | str = "classification",
    progress: ProgressFn | None = None,
) -> PlaneResult:
    """Measures the loss at every point of a grid in one pass over the data.

    Args:
        network: what `Network.of` takes.
        plane: the plane.
        data: (x, labels), batches of such pairs, or a data set.
        xs: coordinates along u.
        ys: coordinates along v.
        train: data for the running statistics; a data set brings its own, else `data` serves.
        renormalise: "none", or "reset": running statistics anew at every point.
        batch_size: samples at a time, where data are arrays.
        task: how outputs are judged: a `llfc_jax.tasks.Task`, or the name of one.
        progress: called as (done, total, words).

    Raises:
        ModeError: no coordinates, numbers that are not finite, or a renormalisation that does not
            fit the network.
        LlfcError: data that do not fit the network.
    """
    grid = [np.asarray(sorted(map(float, axis))) for axis in (xs, ys)]
    if not all(axis.size and np.isfinite(axis).all() for axis in grid):
        raise ModeError("xs and ys must be finite numbers, at least one of each")
    if renormalise not in ("none", "reset"):
        raise ModeError(f"renormalise={renormalise!r} is not for planes; use 'none' or 'reset'")
    view, splits = Network.of(network), as_splits(data, train, batch_size)
    points = np.stack(np.meshgrid(*grid), -1).reshape(-1, 2).astype(np.float32)
    way = _Grid(plane, jnp.asarray(points))
    task = tasks.build(task)
    first = next(pad_batches(splits["test"], task))
    with matmul_precision("highest"):
        traced = TracedNetwork(view.apply, plane.origin, abstract(first.x))
        check_outputs(traced.graph, first, task)
        renorm.check(traced.graph, renormalise)
        numbers, corrections = np.arange(len(points), dtype=np.float32), renorm.NOTHING
        if renormalise == "reset":
            pooled = splits.get("train", splits["test"])
            wanted = tuple(map(float, numbers))
            corrections = calibrate(view.apply, way, wanted, pooled, "reset", "map", task, progress)
        found = accumulate(
            lambda x, y, mask: _measure(traced, task, way, (numbers, corrections), x, y, mask),
            splits["test"],
            progress,
            "measuring the plane",
            task=task,
        )
    values, shape = task.finish(found["judged"]), (len(grid[1]), len(grid[0]))
    loss, error = (np.reshape(values.get(n, np.full(len(points), np.nan)), shape)
                   for n in ("loss", "error"))  # fmt: skip
    columns, rows = (tuple(axis.tolist()) for axis in grid)
    return PlaneResult(columns, rows, loss, error, int(found["samples"]), renormalise)


@partial(jax.jit, static_argnames=("network", "task"))
def _measure(
    network: TracedNetwork,
    task: Task,
    way: _Grid,
    points: tuple[AnyArray, renorm.Correction],
    x: Inputs,
    y: PyTree,
    mask: jax.Array,
) -> dict[str, Any]:
    """Returns the sums by which the task judges a batch at every point, and its samples."""

    def at(point: tuple[jax.Array, renorm.Correction]) -> dict[str, Any]:
        number, correction = point
        values = renorm.evaluate(network.graph, way.at(number), x, correction)
        return task.sums(values.output, y, mask)

    samples = mask if mask.ndim == 1 else mask.max(1)
    return {"judged": jax.lax.map(at, points), "samples": samples.sum()}
