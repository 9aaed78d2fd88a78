"""Model stitching: one network's features, fed to the rest of the other."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.graph import Graph, Values, trace
from llfc_jax.measures.accumulate import Batches, Progress, padded
from llfc_jax.measures.evaluator import Step, line
from llfc_jax.measures.lmc import loss_and_right
from llfc_jax.measures.measure import Measure
from llfc_jax.results import Chart, Result, Section, axes, labels, result, setting

DIRECTIONS = ("a into b", "b into a")
# Equations evaluated in one compiled program: beyond, compiling would outweigh the prefixes saved.
BUDGET = 3000


@result
class Stitching(Result):
    """Loss and error of stitched networks, without an adapter.

    Attributes:
        layers: sites whose value is handed over.
        directions: "a into b": a's value at the site, the rest is b; and the other way round.
        loss: cross-entropy [layers, directions].
        error: share of samples classified wrongly [layers, directions].
        loss_a: of the end a [].
        loss_b: of the end b [].
        error_a: of the end a [].
        error_b: of the end b [].
        samples: number of samples.
    """

    layers: tuple[str, ...] = labels("layer")
    directions: tuple[str, ...] = labels("direction")
    loss: Any = axes("layers", "directions")
    error: Any = axes("layers", "directions")
    loss_a: Any = axes()
    loss_b: Any = axes()
    error_a: Any = axes()
    error_b: Any = axes()
    samples: int = setting()


def stitching(
    apply: Any,
    a: Any,
    b: Any,
    batches: Batches,
    *,
    sites: str | Sequence[str] = ("linear", "relu"),
    progress: Progress | None = None,
) -> Stitching:
    """Stitch the two networks at every site, in both directions.

    With f_l the network up to site l and g_l what follows it, "a into b" is g_l(b; f_l(a; x)).

    Each end runs once a batch; a stitched network starts from the end that it goes on in, and
    only what depends on the site is evaluated again.

    Args:
        apply: `apply(variables, x) -> logits [n, classes]`.
        a: variables of one mode.
        b: variables of the other.
        batches: re-iterable pairs (x, labels).
        sites: kinds or name patterns of the sites.
        progress: called as (done, total, words).

    Raises:
        ModeError: the modes are no pair.
        GraphError: a pattern matches no site.

    Source: the LLFC paper, appendix B.4; Lenc and Vedaldi 2015; Bansal et al. 2021.
    """
    path = line(apply, a, b, batches, alphas=(0.5,))
    graph = trace(apply, a, next(padded(batches))[0])
    names = tuple(site.name for site in graph.select(sites))
    parts = [
        path.fold(_kernel, batches, progress, "stitching", sites=group)
        for group in _groups(graph, names)
    ]
    n = parts[0]["samples"]
    loss = np.concatenate([part["loss"] for part in parts]) / n
    right = np.concatenate([part["right"] for part in parts]) / n
    (loss_a, right_a), (loss_b, right_b) = parts[0]["ends"]
    return Stitching(
        layers=names,
        directions=DIRECTIONS,
        loss=loss,
        error=1 - right,
        loss_a=loss_a / n,
        loss_b=loss_b / n,
        error_a=1 - right_a / n,
        error_b=1 - right_b / n,
        samples=int(n),
    )


def _groups(graph: Graph, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The sites in runs whose stitched networks fit into one program."""
    total = len(graph.program.equations)
    groups: list[list[str]] = [[]]
    spent = 0
    for name in names:
        cost = 2 * (total - graph[name].equation)
        if groups[-1] and spent + cost > BUDGET:
            groups.append([])
            spent = 0
        groups[-1].append(name)
        spent += cost
    return [tuple(group) for group in groups]


def _kernel(step: Step, sites: tuple[str, ...]) -> dict[str, Any]:
    def judge(values: Values) -> tuple[jax.Array, jax.Array]:
        return loss_and_right(values.output, step.y, step.weight)

    ways = ((step.a, step.b), (step.b, step.a))
    stitched = [
        [judge(rest.replace({name: start[name]})) for start, rest in ways] for name in sites
    ]
    loss, right = (
        jnp.stack([jnp.stack([one[part] for one in row]) for row in stitched]) for part in (0, 1)
    )
    return {
        "loss": loss,
        "right": right,
        "ends": (judge(step.a), judge(step.b)),
        "samples": step.weight.sum(),
    }


def _headline(of: Stitching) -> dict[str, Any]:
    return {"stitch_best": float(np.min(of.error)), "stitch_worst": float(np.max(of.error))}


MEASURE = Measure(
    run=lambda s: stitching(s.apply, s.a, s.b, s.batches, sites=s.sites, progress=s.progress),
    section=Section(
        name="stitching",
        title="Stitching",
        text=(
            "Cut both networks behind a layer and glue the first part of one to the second part "
            "of the other, with nothing trained in between. If the result works about as well as "
            "the two networks, they hold the same information there in the same place; if it is "
            "no better than chance, their features only look alike."
        ),
        charts=(
            Chart(
                name="stitching",
                title="Error of the stitched network, by the layer that is cut behind",
                caption="Dashed and dotted: the two networks themselves.",
                x="layer",
                y={"error": "stitched", "error_a": "network a", "error_b": "network b"},
                x_label="cut behind",
                y_label="error",
                lines="direction",
            ),
        ),
        columns={
            "layer": "cut behind",
            "direction": "direction",
            "error": "error",
            "loss": "loss",
            "error_a": "error of a",
            "error_b": "error of b",
        },
    ),
    headline=_headline,
    columns={"stitch_worst": "error stitched, worst"},
)
