"""Layerwise linear feature connectivity: are the features of θ_α the interpolated features?"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from llfc_jax.graph import Graph, Values
from llfc_jax.measures.accumulate import moments_of_each
from llfc_jax.measures.batch import PairBatch, Reading
from llfc_jax.measures.evaluator import measure_pair
from llfc_jax.measures.measure import MIDDLE, Measure, Totals, by_layer
from llfc_jax.measures.options import EvalOptions
from llfc_jax.measures.precision import wide
from llfc_jax.measures.registry import measure
from llfc_jax.measures.similarity import (
    Sums,
    absolute,
    from_sums,
    pool,
    pooled,
    scale_of,
    stack,
    sums,
)
from llfc_jax.measures.site_groups import SiteGroups
from llfc_jax.report.charts import Chart, Section
from llfc_jax.results import Result, axes, labels, result, setting
from llfc_jax.tasks import Task
from llfc_jax.types import Batches, Model, ProgressFn

# Below this baseline the two ends have the same features, and LLFC holds whatever the networks do.
SAME = 1e-4
_WORDS = {"distance": "1 - cosine_α (θ_α against the interpolated features)",
          "baseline": "1 - cosine_AB (a against b)"}  # fmt: skip


@result
class LLFCResult(Result):
    """Distance between f_l(θ_α) and α f_l(a) + (1 - α) f_l(b), layer by layer.

    Attributes:
        layers: names of the sites.
        alphas: points on the line.
        distance: mean over samples of 1 - cos_α, signed [layers, alphas].
        distance_std: its standard deviation over samples [layers, alphas].
        distance_abs: mean of 1 - |cos_α|, the authors' form [layers, alphas].
        distance_abs_std: its standard deviation [layers, alphas].
        baseline: mean of 1 - cos(f_l(a), f_l(b)) [layers].
        baseline_std: its standard deviation [layers].
        baseline_abs: mean of 1 - |cos(f_l(a), f_l(b))| [layers].
        coefficient: mean of c, least squares of f_l(θ_α) ≈ c (interpolated) [layers, alphas].
        coefficient_std: its standard deviation [layers, alphas].
        pooled_distance: 1 - cosine of the whole data set's features as one vector [layers, alphas].
        pooled_coefficient: coefficient of the same [layers, alphas].
        pooled_baseline: baseline of the same [layers].
        num_undefined: samples without a cosine, one of their vectors being zero [layers, alphas].
        informative: False where LLFC says nothing: an end is no better than a predictor that
            does not see the input, the baseline is below 1e-4,
            or the layer is affine in the parameters, as the first one is, so that it holds for
            any two networks [layers].
        accuracy_a: accuracy of the end a; NaN where the task has none [].
        accuracy_b: accuracy of the end b [].
        samples: number of rows: of samples, or of tokens where `per="token"`.
        renormalise: the kind of renormalisation.
    """

    layers: tuple[str, ...] = labels("layer")
    alphas: tuple[float, ...] = labels("alpha")
    distance: Any = axes("layers", "alphas")
    distance_std: Any = axes("layers", "alphas")
    distance_abs: Any = axes("layers", "alphas")
    distance_abs_std: Any = axes("layers", "alphas")
    baseline: Any = axes("layers")
    baseline_std: Any = axes("layers")
    baseline_abs: Any = axes("layers")
    coefficient: Any = axes("layers", "alphas")
    coefficient_std: Any = axes("layers", "alphas")
    pooled_distance: Any = axes("layers", "alphas")
    pooled_coefficient: Any = axes("layers", "alphas")
    pooled_baseline: Any = axes("layers")
    num_undefined: Any = axes("layers", "alphas")
    informative: Any = axes("layers")
    accuracy_a: Any = axes()
    accuracy_b: Any = axes()
    samples: int = setting()
    renormalise: str = setting("none")

    def ratio(self) -> np.ndarray:
        """Returns baseline over distance at α = ½ [layers]: far above 1 where LLFC holds."""
        distance = np.asarray(self.distance)[:, self.alphas.index(MIDDLE)]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.baseline) / distance


@measure("llfc")
@dataclasses.dataclass(frozen=True)
class LLFC(Measure):
    """Features of θ_α against the interpolated features, per layer; ½ is always on the grid."""

    always: ClassVar[tuple[float, ...]] = (MIDDLE,)
    uses: ClassVar[frozenset[str]] = frozenset(
        {"alphas", "extrapolate", "sites", "alpha_loop", "renormalise", "precision", "per"}
    )
    columns: ClassVar[Mapping[str, str]] = {
        "llfc_worst": "1 - cosine_α, worst layer",
        "llfc_median": "1 - cosine_α, median layer",
        "llfc_ratio": "times below 1 - cosine_AB",
    }
    section: ClassVar[Section] = Section(
        name="llfc",
        title="Layerwise linear feature connectivity",
        text=(
            "Layerwise linear feature connectivity (LLFC) asks for more than a low loss: "
            "at every layer, the features of the network at `α a + (1 - α) b` should be, "
            "up to a scale, the same mixture of the features of a and of b. `1 - "
            "cosine_α` is their distance from that mixture: 0 means that both point the "
            "same way.\n\n"
            "Read it beside `1 - cosine_AB`, the distance between the features of a and b "
            "themselves. LLFC holds where the first is far below the second; where the "
            "two are similar, it does not. Where the second is near 0, or an end is no "
            "better than chance, a small distance proves nothing, and the table says so. "
            "The coefficient is the scale: near 1, the features are not only parallel to "
            "the mixture but equal to it."
        ),
        charts=(
            Chart(
                name="llfc_layers",
                title="Do the features at the midpoint add up? Layer by layer",
                caption="1 - cosine between the features of (a + b) / 2 and the mean of those of a "
                "and b; baseline: between the features of a and those of b. LLFC holds where "
                "the first line is far below the second. Means over samples; bands: one standard "
                "deviation.",
                x="layer",
                y=_WORDS,
                x_label="layer, input to output",
                y_label="1 - cosine",
                band={"distance": "distance_std", "baseline": "baseline_std"},
                where={"alpha": 0.5},
                log=True,
            ),
            Chart(
                name="llfc_alphas",
                title="Do the features add up along the whole line?",
                caption="1 - cosine between the features of the network at α and the mixture of "
                "the features of a and b, one line per layer: flat at 0 where LLFC holds.",
                x="alpha",
                y={"distance": "1 - cosine_α"},
                x_label="α (0: network b, 1: network a)",
                y_label="1 - cosine",
                lines="layer",
            ),
            Chart(
                name="llfc_map",
                title="Where the features add up: every layer and every point of the line",
                caption="The darker, the closer the features of the network at α are to the "
                "mixture of those of a and b; at the ends they are equal.",
                x="alpha",
                y={"distance": "1 - cosine_α"},
                x_label="α (0: network b, 1: network a)",
                y_label="1 - cosine_α",
                lines="layer",
                log=True,
                mark="heat",
            ),
            Chart(
                name="llfc_coefficient",
                title="Are the features at the midpoint as long as the mixture?",
                caption="The factor c by which the mean of the features of a and b has to be "
                "scaled to come closest to those of (a + b) / 2: 1 where they are equally long. "
                "Band: one standard deviation over samples.",
                x="layer",
                y={"coefficient": "coefficient at α = ½"},
                x_label="layer, input to output",
                y_label="coefficient c",
                band={"coefficient": "coefficient_std"},
                where={"alpha": 0.5},
            ),
        ),
        columns={
            "layer": "layer",
            "alpha": "α",
            "distance": "1 - cosine_α",
            "distance_std": "deviation",
            "baseline": "1 - cosine_AB",
            "coefficient": "coefficient",
            "informative": "informative",
        },
    )

    def plan(self, graph: Graph, options: EvalOptions) -> tuple[str, ...]:
        """Returns the names of the sites."""
        return tuple(site.name for site in graph.select(options.sites))

    def read(self, batch: PairBatch, plan: tuple[str, ...]) -> Reading:
        """Returns moments of the comparisons at every site, and pooled sums."""
        reader = FeatureReader(batch, plan)
        of_a, of_b = reader.read(batch.a), reader.read(batch.b)
        scales = [scale_of(p, q) for p, q in zip(of_a, of_b, strict=True)]

        def at(alpha: jax.Array, values: Values) -> Any:
            mixed = [alpha * p + (1 - alpha) * q for p, q in zip(of_a, of_b, strict=True)]
            return summarise(reader.compare(reader.read(values), mixed, scales), batch.mask)

        both = reader.compare(of_a, of_b, scales)
        itself = [_against_itself(square, both.scale) for square in (both.vv, both.uu)]
        of_ends = summarise(stack([both, *itself]), batch.mask)
        ends, *known = (jax.tree.map(lambda leaf, i=i: leaf[i], of_ends) for i in range(3))
        judged = batch.judge(batch.a.output), batch.judge(batch.b.output)
        return Reading((ends, judged, batch.trivial()), on_line=at, at_ends=tuple(known))

    def finish(self, totals: Totals) -> LLFCResult:
        """Returns distances, coefficients and baselines, and where they say something."""
        n, names, graph = totals.samples, totals.plan, totals.graph
        ((baseline, _, baseline_abs), of_ends), judged, trivial = totals.sums
        (distance, coefficient, distance_abs), of_line = totals.on_line
        pooled_line = pooled(of_line)
        of_a, of_b = (totals.task.finish(sums) for sums in judged)
        count = judged[0]["count"]
        trivial = totals.task.trivial_values(trivial, count)
        better = self.is_informative(totals.task, (of_a, of_b), trivial, count)
        holds_always = np.array([graph[name].value in graph.affine for name in names])
        informative = better & (baseline.average >= SAME)
        return LLFCResult(
            layers=names,
            alphas=totals.alphas,
            distance=by_layer(distance.average),
            distance_std=by_layer(distance.std),
            distance_abs=by_layer(distance_abs.average),
            distance_abs_std=by_layer(distance_abs.std),
            baseline=baseline.average,
            baseline_std=baseline.std,
            baseline_abs=baseline_abs.average,
            coefficient=by_layer(coefficient.average),
            coefficient_std=by_layer(coefficient.std),
            pooled_distance=by_layer(pooled_line.distance),
            pooled_coefficient=by_layer(pooled_line.coefficient),
            pooled_baseline=pooled(of_ends).distance,
            num_undefined=by_layer(n - distance.count),
            informative=informative & ~holds_always,
            accuracy_a=of_a.get("accuracy", np.asarray(np.nan)),
            accuracy_b=of_b.get("accuracy", np.asarray(np.nan)),
            samples=n,
            renormalise=totals.renormalise,
        )

    def is_informative(
        self, task: Task, ends: Sequence[Any], trivial: Mapping[str, float], count: float
    ) -> bool:
        """Returns whether the ends are good enough for linear features to mean something."""
        return task.is_informative(ends, trivial, count)

    def summary_metrics(self, result: LLFCResult) -> dict[str, Any]:
        """Returns distances at α = ½ over the informative layers, and whether there are any.

        Where there is none, the numbers are those of all layers, beside the word that they say
        nothing.
        """
        distance = np.asarray(result.distance)[:, result.alphas.index(MIDDLE)]
        defined = np.isfinite(distance)
        counted = defined & np.asarray(result.informative)
        informative = bool(counted.any())
        counted = counted if informative else defined
        if not counted.any():
            nothing = dict.fromkeys(self.columns, float("nan"))
            return {**nothing, "informative": False}
        return {
            "llfc_worst": float(distance[counted].max()),
            "llfc_median": float(np.median(distance[counted])),
            "llfc_ratio": float(np.median(result.ratio()[counted])),
            "informative": informative,
        }


class FeatureReader:
    """Features of a batch at several sites, in stacks of sites of one shape.

    Args:
        batch: the batch.
        plan: names of the sites.
    """

    def __init__(self, batch: PairBatch, plan: Sequence[str]) -> None:
        self._layout = batch.layout
        self._sites = [batch.graph[name] for name in plan]
        self._groups = SiteGroups([self._layout.features(batch.a.all, s) for s in self._sites])

    def read(self, run: Values) -> list[Float[Array, "sites n d"]]:
        """Returns the features of a run, a stack for each shape."""
        return self._groups.stack(
            [wide(self._layout.features(run.all, site)) for site in self._sites]
        )

    def compare(
        self, us: Sequence[jax.Array], vs: Sequence[jax.Array], scales: Sequence[jax.Array]
    ) -> Sums:
        """Returns the squares that features are compared by, of all sites [sites, n]."""
        both = zip(us, vs, scales, strict=True)
        return self._groups.join([sums(u, v, scale) for u, v, scale in both])


def summarise(squares: Sums, mask: jax.Array) -> Any:
    """Returns moments over samples of distance, coefficient and |distance|, and pooled sums."""
    rows = from_sums(squares)
    mask = mask.reshape(*(1,) * (squares.uu.ndim - 1), -1)
    many = (rows.distance, rows.coefficient, absolute(rows.distance))
    return moments_of_each(many, mask), pool(squares, mask)


def _against_itself(square: jax.Array, scale: jax.Array) -> Sums:
    """Returns the sums of an end against the mixture that is that end."""
    return Sums(square, square, square, jnp.zeros_like(square), scale)


def llfc(
    network: Model,
    a: Model,
    b: Model,
    batches: Batches,
    options: EvalOptions | None = None,
    *,
    train_batches: Batches | None = None,
    progress: ProgressFn | None = None,
    **changes: object,
) -> LLFCResult:
    """Measures LLFC at every site and every α in one pass over the data.

    Per sample x, with m = α f_l(a; x) + (1 - α) f_l(b; x):

        cos_α(x) = <f_l(θ_α; x), m> / (|f_l(θ_α; x)| |m|),   c_α(x) = <f_l(θ_α; x), m> / <m, m>.

    `a` and `b` run once a batch, every θ_α between them once after them; features never leave the
    device, and memory does not grow with the number of samples.

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
        GraphError: a pattern of `sites` matches no site.
        DataError: the data do not fit the network.

    Source: the LLFC paper, definition 2.
    """
    return measure_pair("llfc", network, a, b, batches, options, train_batches, progress, changes)
