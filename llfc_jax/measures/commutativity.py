"""Commutativity: do the two networks' weights and features change places?"""

import functools
from typing import Any

import jax
import numpy as np

from llfc_jax.graph import rows, trace
from llfc_jax.graph.queries import exchange_defect, linear_sites, operands
from llfc_jax.measures.accumulate import Batches, Progress, padded
from llfc_jax.measures.evaluator import Step, line
from llfc_jax.measures.measure import Measure
from llfc_jax.measures.similarity import pool, pooled, sums
from llfc_jax.results import Chart, Result, Section, axes, labels, result, setting


@result
class Commutativity(Result):
    """W_a H_a + W_b H_b against W_a H_b + W_b H_a at every linear layer.

    dist(u, v) = |u - v|² / (|u| |v|), over the whole data set as one vector; no bias enters.

    Attributes:
        layers: names of the linear sites.
        dist_com: dist(W_a H_a + W_b H_b, W_a H_b + W_b H_a) [layers].
        dist_w: dist(W_a, W_b) [layers].
        dist_h: dist(H_a, H_b), H being the layer's input [layers]; 0 for the first layer.
        ratio: dist_com / min(dist_w, dist_h): far below 1 where commutativity holds beyond what
            alike weights or features would give; NaN where that minimum is 0 [layers].
        samples: number of samples.
    """

    layers: tuple[str, ...] = labels("layer")
    dist_com: Any = axes("layers")
    dist_w: Any = axes("layers")
    dist_h: Any = axes("layers")
    ratio: Any = axes("layers")
    samples: int = setting()


def commutativity(
    apply: Any, a: Any, b: Any, batches: Batches, *, progress: Progress | None = None
) -> Commutativity:
    """Measure commutativity at every linear site in one pass over the data.

    The layer's one equation of the trace is evaluated anew with the difference of the two weights
    on the difference of the two inputs, since the defect is exactly (W_a - W_b)(H_a - H_b). So a
    convolution, a dense layer and an attention projection are all treated alike.

    Args:
        apply: `apply(variables, x) -> logits [n, classes]`.
        a: variables of one mode.
        b: variables of the other (permuted, to measure after matching).
        batches: re-iterable pairs (x, labels).
        progress: called as (done, total, words).

    Raises:
        ModeError: the modes are no pair.
        GraphError: the network has no linear layer.

    Source: the LLFC paper, definition 4.
    """
    path = line(apply, a, b, batches, alphas=(0.5,))
    names = tuple(s.name for s in linear_sites(trace(apply, a, next(padded(batches))[0])))
    found = path.fold(_kernel, batches, progress, "commutativity", sites=names)
    dist_com = np.array([pooled(found[name]["com"]).relative for name in names])
    dist_h = np.array([pooled(found[name]["h"]).relative for name in names])
    dist_w = np.array([_relative(*w) for w in _weights(apply, a, b, batches, names)])
    with np.errstate(divide="ignore", invalid="ignore"):
        least = np.fmin(dist_w, dist_h)
        ratio = np.where(least > 0, dist_com / least, np.nan)
    return Commutativity(names, dist_com, dist_w, dist_h, ratio, int(found["samples"]))


def _kernel(step: Step, sites: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {"samples": step.weight.sum()}
    for name in sites:
        site = step.graph[name]
        eq, feature, _ = operands(step.graph, site)
        as_rows = functools.partial(rows, step.graph, eq.outputs[0])
        own = as_rows(step.a.all[eq.outputs[0]] + step.b.all[eq.outputs[0]])
        gap = as_rows(exchange_defect(site, step.a, step.b))
        h_a, h_b = (rows(step.graph, feature, v.all[feature]) for v in (step.a, step.b))
        found[name] = {
            "com": pool(sums(own, own - gap, gap=gap), step.weight),
            "h": pool(sums(h_a, h_b), step.weight),
        }
    return found


def _weights(
    apply: Any, a: Any, b: Any, batches: Batches, names: tuple[str, ...]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two weights of every site, as the products see them."""
    x, _, _ = next(padded(batches))

    @jax.jit  # only the weights are asked for, so nothing else of the network is run
    def read(variables: Any) -> list[jax.Array]:
        graph = trace(apply, variables, x)
        values = graph.evaluate(variables, np.zeros(x.shape, x.dtype))
        return [values.all[operands(graph, graph[name])[2]] for name in names]

    pairs = zip(read(a), read(b), strict=True)
    return [(np.asarray(p, np.float64), np.asarray(q, np.float64)) for p, q in pairs]


def _relative(u: np.ndarray, v: np.ndarray) -> float:
    lengths = np.linalg.norm(u) * np.linalg.norm(v)
    return float(np.sum((u - v) ** 2) / lengths) if lengths > 0 else float("nan")


def _headline(of: Commutativity) -> dict[str, Any]:
    ratio = np.asarray(of.ratio)
    return {"com_ratio": float(np.nanmedian(ratio)) if np.isfinite(ratio).any() else np.nan}


MEASURE = Measure(
    run=lambda s: commutativity(s.apply, s.a, s.b, s.batches, progress=s.progress),
    section=Section(
        name="commutativity",
        title="Second condition: commutativity",
        text=(
            "At each layer, give network a's weights the features of network b, and the other "
            "way round. Features add up along the line if the sum of the two exchanged products "
            "equals the sum of the two own ones. `dist com` is how far it is from that.\n\n"
            "It would be small for a dull reason if the two networks had the same weights "
            "(`dist W` near 0) or the same features (`dist H` near 0). The finding of the paper "
            "is that it is far below both."
        ),
        charts=(
            Chart(
                name="commutativity",
                title="Exchanged products against own products, layer by layer",
                caption="Commutativity holds where the solid line is far below the other two. "
                "The first layer sees the same input in both networks: its `dist H` is 0.",
                x="layer",
                y={
                    "dist_com": "dist com: exchanged against own",
                    "dist_w": "dist W: the two weights",
                    "dist_h": "dist H: the two inputs",
                },
                x_label="layer, input to output",
                y_label="dist",
                log=True,
            ),
        ),
        columns={
            "layer": "layer",
            "dist_com": "dist com",
            "dist_w": "dist W",
            "dist_h": "dist H",
            "ratio": "com / least",
        },
    ),
    headline=_headline,
    columns={"com_ratio": "dist com / least of W, H"},
)
