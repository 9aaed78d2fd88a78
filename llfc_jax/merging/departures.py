"""One task's data through models and their merges: losses, feature distances, replaced layers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from llfc_jax.errors import DataError
from llfc_jax.graph import Graph, Values, trace
from llfc_jax.graph.graph import features
from llfc_jax.graph.sites import Site, layer_paths
from llfc_jax.measures.precision import wide
from llfc_jax.measures.similarity import compare
from llfc_jax.types import Apply, Batches, Inputs, Variables

Loss = Callable[[Any, Any], Array]
"""`loss(outputs, targets) -> the loss of each element`."""
Mean = tuple[Array, Array]
"""A sum, and how many it is of."""


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
    loss: Loss | None,
) -> TaskMeans:
    """Returns what models and merges do on a task's data.

    Args:
        apply: the network.
        ends: the models.
        merged: their merges.
        batches: pairs (x, y), read once.
        loss: see `diagnose`.

    Raises:
        DataError: there is no batch.
    """
    total: Any = None
    layers: tuple[str, ...] = ()
    sited: list[int] = []
    for x, y in batches:
        if not layers:
            graph = trace(apply, ends[0], x)
            layers = tuple(layer_paths(graph.program, graph.sites))
            sited = [layers.index(site.name) for site in _sites(graph)]
        sums = jax.tree.map(_to_host, _read_batch(apply, loss, ends, merged, x, y))
        total = sums if total is None else jax.tree.map(np.add, total, sums)
    if total is None:
        raise DataError("there is no batch")
    with np.errstate(invalid="ignore", divide="ignore"):
        means = {name: sums / count for name, (sums, count) in total.items()}
    for name in ("distance", "baseline"):  # NaN for layers without features
        whole = np.full((*means[name].shape[:-1], len(layers)), np.nan)
        whole[..., sited] = means[name]
        means[name] = whole
    return TaskMeans(layers, means)


def _to_host(leaf: Array) -> np.ndarray:
    return np.asarray(leaf, np.float64)


def _sites(graph: Graph) -> list[Site]:
    """Returns the site of each layer that has features, in the layers' order."""
    named = (graph.by_name.get(name) for name in layer_paths(graph.program, graph.sites))
    return [site for site in named if site is not None and site.sample_axis is not None]


@partial(jax.jit, static_argnames=("apply", "loss"))
def _read_batch(
    apply: Apply,
    loss: Loss | None,
    ends: tuple[Variables, ...],
    merged: tuple[Variables, ...],
    x: Inputs,
    y: Any,
) -> dict[str, Mean]:
    """Returns sums and counts over a batch, by the names of `Diagnosis`."""
    graph = trace(apply, ends[0], x)
    with jax.default_matmul_precision("highest"):
        runs = [graph.evaluate(end, x) for end in ends]
        of_ends = [_read_features(run) for run in runs]
        mixtures = [_mean(of) for of in zip(*of_ends, strict=True)]

        def at(theta: Variables) -> tuple[Any, Mean, Array]:
            run = graph.evaluate(theta, x)
            distances = _distances(_read_features(run), mixtures)
            return _judge(loss, run.output, y), distances, _replace(graph, loss, ends, theta, x, y)

        (losses, right, count), distances, replaced = jax.lax.map(at, _stack(merged))
        own = _stack([_judge(loss, run.output, y) for run in runs])
        mean = _judge(loss, _mean([wide(run.output) for run in runs]), y)
        pairs = [_distances(p, q) for n, p in enumerate(of_ends) for q in of_ends[:n]]
    nothing = jnp.zeros(len(mixtures)), jnp.zeros(len(mixtures))
    return {
        "loss": (losses, count),
        "accuracy": (right, count),
        "model_loss": (own[0], own[2]),
        "model_accuracy": (own[1], own[2]),
        "ensemble_loss": (mean[0], mean[2]),
        "ensemble_accuracy": (mean[1], mean[2]),
        "distance": distances,
        "baseline": jax.tree.map(lambda *of: sum(of), nothing, *pairs),
        "replaced": (replaced, count[:, None, None]),
    }


def _read_features(run: Values) -> list[Float[Array, "n d"]]:
    return [wide(features(run, site)) for site in _sites(run.graph)]


def _mean(arrays: Sequence[Array]) -> Array:
    return jnp.stack(arrays).mean(0)


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *trees)


def _distances(us: Sequence[Float[Array, "n d"]], vs: Sequence[Float[Array, "n d"]]) -> Mean:
    """Returns, for each layer, the sum of 1 - cos over samples, and the number of samples."""
    found = [compare(u, v).distance for u, v in zip(us, vs, strict=True)]
    distances = jnp.stack(found) if found else jnp.zeros((0, 1))
    some = jnp.isfinite(distances)
    return jnp.where(some, distances, 0).sum(1), some.sum(1).astype(distances.dtype)


def _judge(loss: Loss | None, outputs: Array, y: Any) -> tuple[Array, Array, Array]:
    """Returns summed loss, number of right predictions (NaN if there are none), and of elements."""
    if loss is not None:
        losses = wide(jnp.asarray(loss(outputs, y)))
        return losses.sum(), jnp.asarray(jnp.nan), jnp.asarray(losses.size)
    counts = y >= 0
    chances = jax.nn.log_softmax(wide(outputs))
    losses = -jnp.take_along_axis(chances, jnp.where(counts, y, 0)[..., None], -1)[..., 0]
    right = (outputs.argmax(-1) == y) & counts
    return jnp.where(counts, losses, 0).sum(), right.sum(), counts.sum()


def _replace(
    graph: Graph,
    loss: Loss | None,
    ends: Sequence[Variables],
    theta: Variables,
    x: Inputs,
    y: Any,
) -> Float[Array, "layers models"]:
    """Returns the loss of a merge where one layer is one model's own, for each."""
    groups, paths = layer_paths(graph.program, graph.sites), graph.program.paths
    masks = jnp.array([[path in group for path in paths] for group in groups.values()])
    every = _stack(ends)

    def at(place: tuple[Array, Array]) -> Array:
        mask, model = place
        leaves, structure = jax.tree.flatten(theta)
        both = enumerate(zip(jax.tree.leaves(every), leaves, strict=True))
        mixed = [jnp.where(mask[i], own[model], leaf) for i, (own, leaf) in both]
        run = graph.evaluate(jax.tree.unflatten(structure, mixed), x)
        return _judge(loss, run.output, y)[0]

    places = jnp.repeat(masks, len(ends), 0), jnp.tile(jnp.arange(len(ends)), len(masks))
    return jax.lax.map(at, places).reshape(len(masks), len(ends))
