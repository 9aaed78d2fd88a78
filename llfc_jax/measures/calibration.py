"""The statistics for renormalising the points of a line, measured in one pass over training data.

θ_α runs as in training: each batch is normalised on its way, by its own statistics (reset) or to
those of the two ends on the same batch (REPAIR), so that later layers see what earlier ones will
hand them. The batches' statistics are then merged exactly, the spread of their means included.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.graph import Apply, Graph, Site, trace
from llfc_jax.graph.graph import Visit
from llfc_jax.graph.queries import unit_axes
from llfc_jax.measures.accumulate import Moments, accumulate
from llfc_jax.measures.renormalise import (
    Correction,
    Normaliser,
    running_statistics,
    variance_path,
)
from llfc_jax.measures.similarity import wide
from llfc_jax.pair import interpolate
from llfc_jax.parallel.loops import AlphaLoop, map_over
from llfc_jax.types import Batches, ProgressFn

CONSTANT = 1e-7  # deviation below which a unit is only shifted: there is nothing to rescale

# Site, or path of a running mean -> (mean, deviation) per unit.
Statistics = Mapping[str, tuple[Any, Any]]


def statistics(value: Any, weight: Any, sample_axis: int, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Mean and deviation over `axes`, which are kept with length 1; samples are weighted."""
    value = wide(value)
    along = [-1 if i == sample_axis else 1 for i in range(value.ndim)]
    weight = jnp.broadcast_to(weight.reshape(along), value.shape)
    total = weight.sum(axes, keepdims=True)
    mean = (value * weight).sum(axes, keepdims=True) / total
    return mean, jnp.sqrt(((value - mean) ** 2 * weight).sum(axes, keepdims=True) / total)


def repaired_sites(graph: Graph) -> tuple[Site, ...]:
    """The linear sites that REPAIR rescales: all but the output layer."""
    sites = [s for s in graph.sites if s.kind == "linear" and s.sample_axis is not None]
    return tuple(s for s in sites if s.value != graph.program.output)


def _ratio(wanted: Any, own: Any, xp: Any = jnp) -> Any:
    return xp.where(own > CONSTANT, wanted / xp.where(own > CONSTANT, own, 1), 1)


def _mixed(alpha: Any, a: Statistics, b: Statistics) -> Statistics:
    """Means and deviations interpolated between the ends."""
    return {k: tuple(alpha * p + (1 - alpha) * q for p, q in zip(a[k], b[k], strict=True))
            for k in a}  # fmt: skip


def _renew(norm: Normaliser, shape: tuple[int, ...], weight: Any, seen: dict[str, Any]) -> Visit:
    """A visitor that replaces running statistics by the batch's, and notes them."""

    def visit(values: Mapping[int, Any]) -> Mapping[int, Any]:
        mean, deviation = (
            s.reshape(shape) for s in statistics(values[norm.value], weight, 0, norm.axes)
        )
        seen[norm.path] = mean, deviation
        return {norm.mean: mean, norm.var: deviation**2}

    return visit


def _bring(
    graph: Graph, site: Site, weight: Any, target: Statistics | None, seen: dict[str, Any]
) -> Visit:
    """A visitor that notes a product's statistics and brings the batch to the target's."""
    product, units = unit_axes(graph, site)

    def visit(values: Mapping[int, Any]) -> Mapping[int, Any]:
        value = values[product]
        others = tuple(i for i in range(value.ndim) if i not in units)
        mean, deviation = statistics(value, weight, others[0], others)
        seen[site.name] = mean.reshape(-1), deviation.reshape(-1)
        if target is None:
            return {}
        goal, wanted = (t.reshape(mean.shape) for t in target[site.name])
        new = (wide(value) - mean) * _ratio(wanted, deviation) + goal
        return {product: new.astype(value.dtype)}

    return visit


@functools.lru_cache(maxsize=16)
def _kernel(apply: Apply, kind: str, how: AlphaLoop) -> Any:
    """Jitted: moments of one batch at every place that is renormalised, of the ends and along α."""

    @jax.jit
    def run(a: Any, b: Any, alphas: Any, x: Any, weight: Any) -> dict[str, Any]:
        graph = trace(apply, a, x)

        def measure(variables: Any, target: Statistics | None = None) -> Statistics:
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
            return seen

        # The ends on the same batch: at α = 0 and 1 the target is then met exactly.
        ends = [measure(m) for m in (a, b)] if kind == "repair" else []

        def at(alpha: Any) -> Statistics:
            return measure(interpolate(a, b, alpha), _mixed(alpha, *ends) if ends else None)

        n = weight.sum()
        found = {"line": map_over(at, alphas, how), "ends": ends}
        return jax.tree.map(
            lambda s: Moments(n + 0 * s[0], s[0], s[1] ** 2 * n),
            found,
            is_leaf=lambda node: isinstance(node, tuple),
        )

    return run


def calibrate(
    apply: Apply,
    a: Any,
    b: Any,
    alphas: tuple[float, ...],
    batches: Batches,
    kind: str,
    how: AlphaLoop,
    progress: ProgressFn | None = None,
) -> Correction:
    """Corrections for every point of the line, stacked along α.

    A reset takes the statistics of θ_α itself. REPAIR brings each unit of every linear layer but
    the last to α E_a + (1 - α) E_b and α s_a + (1 - α) s_b, the mean and the deviation of the ends
    (Jordan et al. 2023); at the ends it changes nothing.

    Args:
        apply: the network.
        a: the mode that α multiplies.
        b: the other mode.
        alphas: the points.
        batches: training data.
        kind: "reset" or "repair".
        how: how the loop over α runs.
        progress: called per batch.
    """
    run = _kernel(apply, kind, how)
    points = np.asarray(alphas, jnp.result_type(float))
    merged = accumulate(
        lambda x, y, weight: run(a, b, points, x, weight), batches, progress, "renormalising"
    )
    found = jax.tree.map(
        lambda m: (m.mean, np.sqrt(m.squares / m.count)),
        merged,
        is_leaf=lambda node: isinstance(node, Moments),
    )
    own, ends = found["line"], found["ends"]
    if not ends:
        leaves = {k: mean for k, (mean, _) in own.items()}
        leaves |= {variance_path(k): deviation**2 for k, (_, deviation) in own.items()}
        return Correction(_single(leaves), {}, {})
    target = _mixed(np.asarray(alphas)[:, None], *ends)
    scale = {k: _ratio(target[k][1], deviation, np) for k, (_, deviation) in own.items()}
    shift = {k: target[k][0] - mean * scale[k] for k, (mean, _) in own.items()}
    return Correction({}, _single(scale), _single(shift))


def _single(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {k: jnp.asarray(v, float) for k, v in arrays.items()}
