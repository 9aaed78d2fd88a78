"""The statistics for renormalising the points of a line, measured over training data.

θ_α runs as in training: each batch is normalised by its own statistics on its way, so that later
layers see what earlier ones will hand them. The batches' statistics are then merged exactly, the
spread of their means included.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.graph import Apply, Graph, Site, trace
from llfc_jax.graph.graph import Visit
from llfc_jax.measures.renormalise import (
    Correction,
    Normaliser,
    running_statistics,
    unit_axes,
    variance_path,
)
from llfc_jax.measures.similarity import wide
from llfc_jax.measures.stream import Batches, Moments, Progress, fold
from llfc_jax.modes import interpolate

CONSTANT = 1e-7  # deviation below which a unit is only shifted: there is nothing to rescale

# Site, or path of a running mean -> (mean, deviation) per unit.
Target = Mapping[str, tuple[Any, Any]]


def statistics(value: Any, weight: Any, sample_axis: int, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Mean and variance over `axes`, which are kept with length 1; samples are weighted."""
    value = wide(value)
    along = [-1 if i == sample_axis else 1 for i in range(value.ndim)]
    weight = jnp.broadcast_to(weight.reshape(along), value.shape)
    total = weight.sum(axes, keepdims=True)
    mean = (value * weight).sum(axes, keepdims=True) / total
    return mean, ((value - mean) ** 2 * weight).sum(axes, keepdims=True) / total


def repaired_sites(graph: Graph) -> tuple[Site, ...]:
    """The linear sites that REPAIR rescales: all but the output layer."""
    sites = [s for s in graph.sites if s.kind == "linear" and s.sample_axis is not None]
    return tuple(s for s in sites if s.value != graph.program.output)


def _ratio(deviation: Any, own: Any) -> Any:
    return jnp.where(own > CONSTANT, deviation / jnp.where(own > CONSTANT, own, 1), 1)


def _renew(norm: Normaliser, shape: tuple[int, ...], weight: Any, seen: dict[str, Any]) -> Visit:
    """A visitor that replaces running statistics by the batch's, and notes them."""

    def visit(values: Mapping[int, Any]) -> Mapping[int, Any]:
        mean, var = statistics(values[norm.value], weight, 0, norm.axes)
        seen[norm.path] = mean.reshape(shape), var.reshape(shape)
        return {norm.mean: mean.reshape(shape), norm.var: var.reshape(shape)}

    return visit


def _bring(
    graph: Graph, site: Site, weight: Any, target: Target | None, seen: dict[str, Any]
) -> Visit:
    """A visitor that notes a product's statistics and brings the batch to the target's."""
    product, units = unit_axes(graph, site)

    def visit(values: Mapping[int, Any]) -> Mapping[int, Any]:
        value = values[product]
        others = tuple(i for i in range(value.ndim) if i not in units)
        mean, var = statistics(value, weight, others[0], others)
        seen[site.name] = mean.reshape(-1), var.reshape(-1)
        if target is None:
            return {}
        goal, deviation = (t.reshape(mean.shape) for t in target[site.name])
        new = (wide(value) - mean) * _ratio(deviation, jnp.sqrt(var)) + goal
        return {product: new.astype(value.dtype)}

    return visit


@functools.lru_cache(maxsize=16)
def _kernel(apply: Apply, kind: str) -> Any:
    """Jitted: moments of one batch at every place that is renormalised."""

    @jax.jit
    def run(variables: Any, target: Target | None, x: Any, weight: Any) -> dict[str, Moments]:
        graph = trace(apply, variables, x)
        seen: dict[str, Any] = {}
        visit: dict[int, Visit] = {}
        if kind == "reset":
            for norm in running_statistics(graph):
                shape = graph.program.avals[norm.mean].shape
                visit[norm.value] = _renew(norm, shape, weight, seen)
        else:
            for site in repaired_sites(graph):
                visit[unit_axes(graph, site)[0]] = _bring(graph, site, weight, target, seen)
        graph.evaluate(variables, x, visit)
        n = weight.sum()
        return {k: Moments(n + 0 * m, m, v * n) for k, (m, v) in seen.items()}

    return run


def _measure(
    run: Any, variables: Any, batches: Batches, target: Target | None, progress: Progress | None
) -> Target:
    """(mean, deviation) over all batches, in float64."""
    merged = fold(
        lambda x, y, weight: run(variables, target, x, weight), batches, progress, "renormalising"
    )
    return {k: (m.mean, np.sqrt(m.squares / m.count)) for k, m in merged.items()}


def calibrate(
    apply: Apply,
    a: Any,
    b: Any,
    alphas: tuple[float, ...],
    batches: Batches,
    kind: str,
    progress: Progress | None = None,
) -> Correction:
    """Corrections for every point of the line, stacked along α.

    A reset takes the statistics of θ_α itself. REPAIR brings each unit of every linear layer but
    the last to α E_a + (1 - α) E_b and α s_a + (1 - α) s_b, the mean and the deviation of the ends
    (Jordan et al. 2023).

    Args:
        apply: the network.
        a: the mode that α multiplies.
        b: the other mode.
        alphas: the points.
        batches: training data.
        kind: "reset" or "repair".
        progress: called per batch.
    """
    run = _kernel(apply, kind)
    ends = [_measure(run, m, batches, None, progress) for m in (a, b)] if kind == "repair" else []
    points = []
    for alpha in alphas:
        target = None
        if ends:
            target = {
                k: (
                    jnp.asarray(alpha * mean + (1 - alpha) * ends[1][k][0], jnp.float32),
                    jnp.asarray(alpha * dev + (1 - alpha) * ends[1][k][1], jnp.float32),
                )
                for k, (mean, dev) in ends[0].items()
            }
        own = _measure(run, interpolate(a, b, alpha), batches, target, progress)
        points.append(_correction(own, target))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *points)


def _correction(own: Target, target: Target | None) -> Correction:
    if target is None:
        leaves = {k: mean for k, (mean, _) in own.items()}
        leaves |= {variance_path(k): deviation**2 for k, (_, deviation) in own.items()}
        return Correction({k: jnp.asarray(v, jnp.float32) for k, v in leaves.items()}, {}, {})
    scale, shift = {}, {}
    for k, (mean, deviation) in own.items():
        goal, wanted = target[k]
        scale[k] = _ratio(wanted, jnp.asarray(deviation, jnp.float32))
        shift[k] = goal - jnp.asarray(mean, jnp.float32) * scale[k]
    return Correction({}, scale, shift)
