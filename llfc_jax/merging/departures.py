"""One task's data through models and their merges: losses, feature distances, replaced layers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from llfc_jax.graph import Graph, Values
from llfc_jax.graph.outputs import check_outputs
from llfc_jax.graph.row_layout import RowLayout
from llfc_jax.graph.sites import Site, layer_paths
from llfc_jax.graph.trace import abstract
from llfc_jax.measures.accumulate import accumulate, pad_batches
from llfc_jax.measures.batch import TracedNetwork
from llfc_jax.measures.precision import wide
from llfc_jax.measures.similarity import compare
from llfc_jax.tasks import Task
from llfc_jax.types import Apply, Batches, Inputs, Variables

Mean = tuple[Array, Array]
"""A sum, and how many it is of."""
Rows = Sequence[Float[Array, "n d"]]
"""Features of each layer that has some."""


class TaskMeans(NamedTuple):
    """Means over one task's data.

    Attributes:
        layers: names of the layers.
        means: means by the names of the fields of `Diagnosis`, without the axis of tasks.
    """

    layers: tuple[str, ...]
    means: dict[str, np.ndarray]


def read_task(
    apply: Apply,
    ends: tuple[Variables, ...],
    merged: tuple[Variables, ...],
    batches: Batches,
    task: Task,
) -> TaskMeans:
    """Returns what models and merges do on a task's data.

    Args:
        apply: the network.
        ends: the models.
        merged: their merges.
        batches: the data.
        task: how outputs are judged.

    Raises:
        DataError: there is no batch, or its targets do not fit.
        GraphError: the network does not take the data, or the task not its outputs.
    """
    first = next(pad_batches(batches, task))
    shapes = abstract(first)
    length = shapes.mask.shape[1] if shapes.mask.ndim == 2 else None
    with jax.default_matmul_precision("highest"):
        network = TracedNetwork(apply, ends[0], shapes.x, length)
        classes = check_outputs(network.graph, first, task)
        kernel = partial(_read_batch, network, task, ends, merged)
        found = accumulate(kernel, batches, None, "diagnosing", classes, task)
    layers = tuple(layer_paths(network.graph.program, network.graph.sites))
    sited = [layers.index(site.name) for site in _sites(network.graph)]
    means = {}
    for name in ("distance", "baseline"):  # NaN for layers without features
        total, count = found[name]
        means[name] = np.full((*total.shape[:-1], len(layers)), np.nan)
        with np.errstate(invalid="ignore"):
            means[name][..., sited] = total / count
    for prefix, name in (("", "merged"), ("model_", "models"), ("ensemble_", "ensemble")):
        judged = task.finish(found[name])
        means[prefix + "loss"] = judged["loss"]
        means[prefix + "accuracy"] = 1 - judged.get("error", np.full_like(judged["loss"], np.nan))
    means["replaced"] = task.finish(found["replaced"])["loss"]
    return TaskMeans(layers, means)


def _sites(graph: Graph) -> list[Site]:
    """Returns the site of each layer that has features, in the layers' order."""
    named = (graph.by_name.get(name) for name in layer_paths(graph.program, graph.sites))
    return [site for site in named if site is not None and site.sample_axis is not None]


@partial(jax.jit, static_argnames=("network", "task"))
def _read_batch(
    network: TracedNetwork,
    task: Task,
    ends: tuple[Variables, ...],
    merged: tuple[Variables, ...],
    x: Inputs,
    y: PyTree,
    mask: Float[Array, "n ..."],
) -> dict[str, Any]:
    """Returns sums over a batch: of the task, and (sum, count) of distances."""
    graph = network.graph
    layout = RowLayout(graph, mask, network.token_axes, network.per_token)
    runs = [graph.evaluate(end, x) for end in ends]
    of_ends = [_read_features(run, layout) for run in runs]
    mixtures = [_mean(of) for of in zip(*of_ends, strict=True)]

    def judge(outputs: PyTree) -> dict[str, Any]:
        return task.sums(outputs, y, layout.output_mask)

    def at(theta: Variables) -> dict[str, Any]:
        run = graph.evaluate(theta, x)
        return {
            "merged": judge(run.output),
            "distance": _distances(_read_features(run, layout), mixtures, layout.row_mask),
            "replaced": _judge_replaced(graph, ends, theta, x, judge),
        }

    pairs = [_distances(p, q, layout.row_mask)
             for n, p in enumerate(of_ends) for q in of_ends[:n]]  # fmt: skip
    nothing = jnp.zeros(len(mixtures)), jnp.zeros(len(mixtures))
    return {
        **jax.lax.map(at, _stack(merged)),
        "models": _stack([judge(run.output) for run in runs]),
        "ensemble": judge(jax.tree.map(lambda *of: _mean(of), *[run.output for run in runs])),
        "baseline": jax.tree.map(lambda *of: sum(of), nothing, *pairs),
    }


def _read_features(run: Values, layout: RowLayout) -> list[Float[Array, "n d"]]:
    return [wide(layout.rows(site.value, run.all[site.value])) for site in _sites(run.graph)]


def _mean(arrays: Sequence[Array]) -> Array:
    return jnp.stack([wide(array) for array in arrays]).mean(0)


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *trees)


def _distances(us: Rows, vs: Rows, mask: Float[Array, " n"]) -> Mean:
    """Returns, for each layer, the sum of 1 - cos over samples, and the number of samples."""
    found = [compare(u, v).distance for u, v in zip(us, vs, strict=True)]
    distances = jnp.stack(found) if found else jnp.zeros((0, len(mask)))
    some = jnp.isfinite(distances) & (mask > 0)[None]
    return jnp.where(some, distances, 0).sum(1), some.sum(1).astype(distances.dtype)


def _judge_replaced(
    graph: Graph,
    ends: Sequence[Variables],
    theta: Variables,
    x: Inputs,
    judge: Callable[[PyTree], dict[str, Any]],
) -> dict[str, Any]:
    """Returns a task's sums of a merge where one layer is one model's own: [layers, models]."""
    groups, paths = layer_paths(graph.program, graph.sites), graph.program.paths
    masks = jnp.array([[path in group for path in paths] for group in groups.values()])
    every = _stack(ends)
    leaves, structure = jax.tree.flatten(theta)

    def at(place: tuple[Array, Array]) -> Any:
        mask, model = place
        both = enumerate(zip(jax.tree.leaves(every), leaves, strict=True))
        mixed = [jnp.where(mask[i], own[model], leaf) for i, (own, leaf) in both]
        return judge(graph.evaluate(jax.tree.unflatten(structure, mixed), x).output)

    places = jnp.repeat(masks, len(ends), 0), jnp.tile(jnp.arange(len(ends)), len(masks))
    shape = len(masks), len(ends)
    return jax.tree.map(lambda of: of.reshape(*shape, *of.shape[1:]), jax.lax.map(at, places))
