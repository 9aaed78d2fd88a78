"""Whether a task judges what a network returns, and whether data are fit for it."""

from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from llfc_jax.errors import DataError
from llfc_jax.graph.graph import Graph
from llfc_jax.graph.trace import abstract
from llfc_jax.parallel import sharding
from llfc_jax.tasks import Batch, Task
from llfc_jax.tasks.task import fit_mask


def inspect_batch(batch: Batch, task: Task) -> tuple[Any, Any, Any]:
    """Returns whether a batch is finite, and the smallest and the largest label that counts.

    Where the data lie on the host it is done there, with nothing to compile for each new shape.
    """
    if all(map(sharding.is_on_host, jax.tree.leaves(batch))):
        return _inspect(jax.tree.map(np.asarray, batch), task, np)
    return _inspect_on_device(batch, task)


def check_finite(data: PyTree) -> None:
    """Checks that data hold no NaN and no infinity.

    Raises:
        DataError: they do.
    """
    on_host = all(map(sharding.is_on_host, jax.tree.leaves(data)))
    if not bool(_all_finite(data, np) if on_host else _all_finite_on_device(data)):
        raise DataError("the data hold NaN or infinity; clean them first")


def _all_finite(data: PyTree, xp: ModuleType) -> Any:
    finite = xp.array(True)
    for leaf in jax.tree.leaves(data):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            finite = finite & xp.isfinite(leaf).all()
    return finite


@jax.jit
def _all_finite_on_device(data: PyTree) -> jax.Array:
    return _all_finite(data, jnp)


def _inspect(batch: Batch, task: Task, xp: ModuleType) -> tuple[Any, Any, Any]:
    finite = _all_finite((batch.x, batch.y), xp)
    if not task.labelled:
        return finite, xp.array(0), xp.array(0)
    (labels,) = jax.tree.leaves(batch.y)
    counts = fit_mask(batch.mask, labels.shape) > 0
    if task.ignore is not None:
        counts = counts & (labels != task.ignore)
    some = xp.where(counts, labels, 0)
    return finite, some.min(), some.max()


@partial(jax.jit, static_argnames="task")
def _inspect_on_device(batch: Batch, task: Task) -> tuple[jax.Array, jax.Array, jax.Array]:
    return _inspect(batch, task, jnp)


def check_outputs(
    graph: Graph, batch: Batch, task: Task, labelled: Batch | None = None
) -> int | None:
    """Returns the number of labels, after a check that a task judges what a network returns.

    Args:
        graph: the network's trace at the batch's shape.
        batch: its inputs and targets.
        task: the task.
        labelled: the samples whose labels must be among the classes; the batch's if None.

    Raises:
        GraphError: the task does not judge such outputs.
        DataError: targets that the task does not take.
    """
    program, shapes = graph.program, abstract(batch)
    outputs = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in
               (program.avals[number] for number in program.outputs)]  # fmt: skip
    outputs = jax.tree.unflatten(program.output_tree, outputs)
    task.check(outputs, shapes.y, program.samples)
    if not task.labelled:
        return None
    classes = jax.tree.leaves(outputs)[0].shape[-1]
    _, low, high = inspect_batch(labelled or batch, task)
    check_labels(int(low), int(high), classes, task)
    return classes


def check_labels(low: int, high: int, classes: int, task: Task) -> None:
    """Checks that labels from `low` to `high` are among the classes.

    Raises:
        DataError: they are not.
    """
    if low < 0 or high >= classes:
        hint = ""
        if low < 0 and task.ignore is None:
            options = {"name": task.name, "ignore": low}
            hint = f"; if {low} marks what does not count, set task={options}"
        raise DataError(
            f"labels run from {low} to {high}, but the network has {classes} classes{hint}"
        )
