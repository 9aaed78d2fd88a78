"""Many networks at once: the points of a plane or a simplex, judged in one pass over the data."""

import dataclasses
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from llfc_jax import tasks
from llfc_jax.data.inputs import Data, as_splits
from llfc_jax.errors import ModeError, unknown
from llfc_jax.frameworks import Network
from llfc_jax.graph.outputs import check_outputs
from llfc_jax.graph.row_layout import RowLayout
from llfc_jax.graph.trace import abstract
from llfc_jax.measures import renormalise as renorm
from llfc_jax.measures.accumulate import accumulate, pad_batches
from llfc_jax.measures.batch import TracedNetwork
from llfc_jax.measures.calibration import calibrate
from llfc_jax.measures.precision import matmul_precision
from llfc_jax.tasks import Task
from llfc_jax.types import AnyArray, Inputs, Model, ProgressFn, Variables


@dataclasses.dataclass(frozen=True)
class PointOptions:
    """How the points of a plane or a simplex are measured; checked when it is made.

    Attributes:
        task: how outputs are judged: a `llfc_jax.tasks.Task`, or the name of one.
        renormalise: "none"; "reset": running statistics anew at every point; "repair", of
            mixtures: every unit's mean and deviation as the mixture of the modes' own.
        batch_size: samples at a time, where data are arrays; results do not depend on it.

    Raises:
        ConfigError: a task that there is not.
        ModeError: another renormalisation.
    """

    task: Task = dataclasses.field(default_factory=tasks.classification)
    renormalise: str = "none"
    batch_size: int = 500

    def __post_init__(self) -> None:
        """Checks every field."""
        object.__setattr__(self, "task", tasks.build(self.task))
        if self.renormalise not in renorm.CHOICES:
            raise ModeError(unknown("renormalisation", self.renormalise, renorm.CHOICES))


class Space(Protocol):
    """A family of networks by their coordinates."""

    @property
    def a(self) -> Variables:
        """Variables of the networks' shapes."""
        ...

    def at(self, *coordinates: ArrayLike) -> Variables:
        """Returns the network's variables at a point."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Numbered:
    """Points of a space by their numbers.

    Attributes:
        space: the space.
        coordinates: of each point [points, dimensions].
    """

    space: Any
    coordinates: Float[Array, "points dimensions"]

    @property
    def a(self) -> Variables:
        """Variables of the networks' shapes."""
        return self.space.a

    def at(self, alpha: ArrayLike) -> Variables:
        """Returns θ at the point of this number, which may be a float."""
        return self.space.at(*self.coordinates[jnp.asarray(alpha).astype(int)])


def judge_points(
    network: Model,
    space: Space,
    coordinates: Float[np.ndarray, "points dimensions"],
    data: Data,
    train: Data | None,
    options: PointOptions | None,
    progress: ProgressFn | None,
    shares: Float[np.ndarray, "points points"] | None = None,
) -> tuple[dict[str, Float[np.ndarray, " points"]], int]:
    """Returns loss and metrics of the network at every point, and the number of samples.

    `shares` says of which points each is a mixture, for REPAIR.

    Raises:
        ModeError: a renormalisation that does not fit the network.
        LlfcError: data that do not fit it.
    """
    options = options or PointOptions()
    task, view = options.task, Network.of(network)
    if options.renormalise == "repair" and shares is None:
        raise ModeError("renormalise='repair' is for mixtures of modes; use 'none' or 'reset' here")
    splits = as_splits(data, train, options.batch_size)
    points = Numbered(space, jnp.asarray(coordinates, jnp.float32))
    numbers = np.arange(len(coordinates), dtype=np.float32)
    first, corrections = next(pad_batches(splits["test"], task)), renorm.NOTHING
    with matmul_precision("highest"):
        traced = TracedNetwork(view.apply, space.a, abstract(first.x))
        check_outputs(traced.graph, first, task)
        renorm.check(traced.graph, options.renormalise)
        if options.renormalise != "none":
            pooled = splits.get("train", splits["test"])
            wanted = tuple(map(float, numbers))
            kind = options.renormalise
            corrections = calibrate(
                view.apply, points, wanted, pooled, kind, "map", task, progress, shares
            )
        found = accumulate(
            lambda x, y, mask: _judge(traced, task, points, (numbers, corrections), x, y, mask),
            splits["test"],
            progress,
            "measuring points",
            task=task,
        )
    values = task.finish(found["judged"])
    nothing = np.full(len(coordinates), np.nan)  # of a task without an error rate
    return {"error": nothing, **values}, int(found["samples"])


@partial(jax.jit, static_argnames=("network", "task"))
def _judge(
    network: TracedNetwork,
    task: Task,
    points: Numbered,
    at: tuple[AnyArray, renorm.Correction],
    x: Inputs,
    y: PyTree,
    mask: jax.Array,
) -> dict[str, Any]:
    """Returns the sums by which the task judges a batch at every point, and its samples."""
    layout = RowLayout.of(network.graph, network.apply, points.a, x, mask)

    def judge(point: tuple[jax.Array, renorm.Correction]) -> dict[str, Any]:
        number, correction = point
        values = renorm.evaluate(network.graph, points.at(number), x, correction)
        return task.sums(values.output, y, layout.output_mask)

    return {"judged": jax.lax.map(judge, at), "samples": layout.row_mask.sum()}
