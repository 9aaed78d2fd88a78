"""Commutativity: do the two networks' weights and features change places?"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from llfc_jax.graph import Graph, Site, Values
from llfc_jax.graph.queries import exchange_defect, linear_sites, multiply, operands
from llfc_jax.measures.accumulate import Products
from llfc_jax.measures.batch import PairBatch, Reading
from llfc_jax.measures.evaluator import measure_pair
from llfc_jax.measures.measure import Measure, Totals
from llfc_jax.measures.options import EvalOptions
from llfc_jax.measures.precision import wide
from llfc_jax.measures.registry import measure
from llfc_jax.measures.similarity import pool, pooled, sums
from llfc_jax.measures.site_groups import SiteGroups
from llfc_jax.report.charts import Chart, Section
from llfc_jax.results import Result, axes, labels, result, setting
from llfc_jax.types import Batches, Model, ProgressFn


@result
class CommutativityResult(Result):
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
        renormalise: the kind of renormalisation.
    """

    layers: tuple[str, ...] = labels("layer")
    dist_com: Any = axes("layers")
    dist_w: Any = axes("layers")
    dist_h: Any = axes("layers")
    ratio: Any = axes("layers")
    samples: int = setting()
    renormalise: str = setting("none")


@measure("commutativity")
@dataclasses.dataclass(frozen=True)
class Commutativity(Measure):
    """Exchanged products against own ones at every linear layer.

    It visits no α and reads every linear layer, so neither the grid nor `sites` bears on it.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"renormalise", "precision", "per"})
    columns: ClassVar[Mapping[str, str]] = {"com_ratio": "Dist_com / min(Dist_W, Dist_H)"}
    section: ClassVar[Section] = Section(
        name="commutativity",
        title="Second condition: commutativity",
        text=(
            "At each linear layer, multiply network a's weights with network b's input, "
            "and the other way round. Features add up along the line if the sum of these "
            "two exchanged products equals the sum of the two networks' own products; "
            "`dist com` is the distance between the two sums.\n\n"
            "It would be small for a trivial reason if the two networks had the same "
            "weights (`dist W` near 0) or the same inputs (`dist H` near 0). The paper's "
            "finding is that it is far below both."
        ),
        charts=(
            Chart(
                name="commutativity",
                title="Do the linear layers commute? Layer by layer",
                caption=(
                    "Distance between exchanged and own products, beside that of the weights and "
                    "that of the inputs. The condition holds where the first is far below the "
                    "other two. The first layer has the same input in both networks, so its `dist "
                    "H` is 0."
                ),
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
    )

    def plan(self, graph: Graph, options: EvalOptions) -> tuple[str, ...]:
        """Returns the names of the linear sites."""
        return tuple(site.name for site in linear_sites(graph))

    def read(self, batch: PairBatch, plan: tuple[str, ...]) -> Reading:
        """Returns pooled sums of the products and of the inputs of every layer."""
        products: list[tuple[jax.Array, ...]] = []
        inputs: list[tuple[jax.Array, ...]] = []
        for name in plan:
            site = batch.graph[name]
            eq, feature, _ = operands(batch.graph, site)
            as_rows = functools.partial(batch.layout.rows, eq.outputs[0])
            own = as_rows(_product(site, batch.a) + _product(site, batch.b))
            gap = as_rows(exchange_defect(site, batch.a, batch.b))
            products.append((own, own - gap, gap))
            inputs.append(tuple(wide(batch.layout.rows(feature, v.all[feature]))
                                for v in (batch.a, batch.b)))  # fmt: skip
        return Reading({"com": _pool(products, batch.mask), "h": _pool(inputs, batch.mask)})

    def finish(self, totals: Totals) -> CommutativityResult:
        """Returns the three distances of every layer."""
        names, found = totals.plan, totals.sums
        dist_com, dist_h = (pooled(found[what]).relative for what in ("com", "h"))
        dist_w = np.array([_relative(*pair) for pair in totals.weights(names)])
        with np.errstate(divide="ignore", invalid="ignore"):
            least = np.fmin(dist_w, dist_h)
            ratio = np.where(least > 0, dist_com / least, np.nan)
        return CommutativityResult(
            names, dist_com, dist_w, dist_h, ratio, totals.samples, totals.renormalise
        )

    def summary_metrics(self, result: CommutativityResult) -> dict[str, float]:
        """Returns the median over the layers of dist com over the least of dist W and dist H."""
        ratio = np.asarray(result.ratio)
        return {"com_ratio": float(np.nanmedian(ratio)) if np.isfinite(ratio).any() else np.nan}


def _pool(parts: Sequence[tuple[jax.Array, ...]], mask: jax.Array) -> Products:
    """Returns pooled sums [sites] of every site's rows (u, v) or (u, v, u - v)."""
    columns = list(zip(*parts, strict=True))
    groups = SiteGroups(columns[0])
    found = []
    for u, v, *gap in zip(*map(groups.stack, columns), strict=True):
        found.append(sums(u, v, gap=gap[0] if gap else None))
    return pool(groups.join(found), mask[None])


def _product(site: Site, run: Values) -> jax.Array:
    """Returns W H at a linear site of a run; computed anew where the network's type is narrow."""
    eq, feature, weight = operands(run.graph, site)
    product = run.all[eq.outputs[0]]
    if wide(product).dtype == product.dtype:
        return product
    return multiply(run.graph, site, wide(run.all[feature]), wide(run.all[weight]))


def _relative(u: np.ndarray, v: np.ndarray) -> float:
    """Returns |u - v|² / (|u| |v|); NaN where one of them is zero."""
    lengths = np.linalg.norm(u) * np.linalg.norm(v)
    return float(np.sum((u - v) ** 2) / lengths) if lengths > 0 else float("nan")


def commutativity(
    network: Model,
    a: Model,
    b: Model,
    batches: Batches,
    options: EvalOptions | None = None,
    *,
    train_batches: Batches | None = None,
    progress: ProgressFn | None = None,
    **changes: object,
) -> CommutativityResult:
    """Measures commutativity at every linear site in one pass over the data.

    The layer's one equation of the trace is evaluated anew with the difference of the two weights
    on the difference of the two inputs, since the defect is exactly (W_a - W_b)(H_a - H_b). So a
    convolution, a dense layer and an attention projection are all treated alike.

    Args:
        network: a module of any framework, or `apply(variables, x) -> logits [n, classes]`.
        a: the mode that α multiplies.
        b: the other mode.
        batches: re-iterable pairs (x [n, ...], labels [n]).
        options: how the pair is measured; the defaults if None.
        train_batches: data for renormalising.
        progress: called as (batches done, batches in all or 0, words).
        **changes: fields of the options that are to be other than said.

    Raises:
        ConfigError: an option that there is not, or that the measure cannot honour.
        ModeError: the modes are no pair.
        GraphError: the network has no linear layer.
        DataError: the data do not fit the network.

    Source: the LLFC paper, definition 4.
    """
    return measure_pair(
        "commutativity", network, a, b, batches, options, train_batches, progress, changes
    )
