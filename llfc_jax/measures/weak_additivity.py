"""Weak additivity: does activating the mixture give the mixture of the activated?"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.graph import Graph, Site, Values
from llfc_jax.graph.queries import activation_sites
from llfc_jax.graph.row_layout import RowLayout
from llfc_jax.measures.accumulate import moments_of_each
from llfc_jax.measures.batch import PairBatch, Reading
from llfc_jax.measures.evaluator import measure_pair
from llfc_jax.measures.measure import MIDDLE, Measure, Totals, by_layer
from llfc_jax.measures.options import EvalOptions
from llfc_jax.measures.precision import wide
from llfc_jax.measures.registry import measure
from llfc_jax.measures.similarity import (
    compare,
    from_sums,
    pool,
    pooled,
    scale_of,
    sums,
)
from llfc_jax.measures.site_groups import SiteGroups
from llfc_jax.report.charts import Chart, Section
from llfc_jax.results import Result, axes, labels, result, setting
from llfc_jax.types import Batches, Model, ProgressFn, Scalar


@result
class WeakAdditivityResult(Result):
    """σ(α Z_a + (1 - α) Z_b) against α σ(Z_a) + (1 - α) σ(Z_b), activation by activation.

    Attributes:
        layers: names of the activation sites.
        alphas: points on the line; (1,) where `form` is "sum".
        distance: mean over samples of 1 - cosine of the two sides [layers, alphas].
        distance_std: its standard deviation [layers, alphas].
        coefficient: mean of c in (mixture of the activated) ≈ c (activated mixture).
        coefficient_std: its standard deviation [layers, alphas].
        relative: mean of dist(u, v) = |u - v|² / (|u| |v|) of the two sides [layers, alphas].
        relative_std: its standard deviation [layers, alphas].
        pooled_distance: 1 - cosine over the whole data set as one vector [layers, alphas].
        pooled_coefficient: coefficient of the same [layers, alphas].
        pooled_relative: dist of the same [layers, alphas].
        baseline: mean of dist(σ(Z_a), σ(Z_b)) [layers].
        baseline_distance: mean of 1 - cosine of σ(Z_a) and σ(Z_b) [layers].
        sign_agreement: share of units, over all samples, whose pre-activations have one sign in
            both networks (or are 0 in either): there a ReLU's two sides agree exactly [layers].
        num_undefined: samples without a cosine, one side being zero [layers, alphas].
        samples: number of samples.
        form: "mixture", or "sum" for the authors' σ(Z_a + Z_b) against σ(Z_a) + σ(Z_b).
        renormalise: the kind of renormalisation.
    """

    layers: tuple[str, ...] = labels("layer")
    alphas: tuple[float, ...] = labels("alpha")
    distance: Any = axes("layers", "alphas")
    distance_std: Any = axes("layers", "alphas")
    coefficient: Any = axes("layers", "alphas")
    coefficient_std: Any = axes("layers", "alphas")
    relative: Any = axes("layers", "alphas")
    relative_std: Any = axes("layers", "alphas")
    pooled_distance: Any = axes("layers", "alphas")
    pooled_coefficient: Any = axes("layers", "alphas")
    pooled_relative: Any = axes("layers", "alphas")
    baseline: Any = axes("layers")
    baseline_distance: Any = axes("layers")
    sign_agreement: Any = axes("layers")
    num_undefined: Any = axes("layers", "alphas")
    samples: int = setting()
    form: str = setting("mixture")
    renormalise: str = setting("none")


@measure("weak_additivity")
@dataclasses.dataclass(frozen=True)
class WeakAdditivity(Measure):
    """Weak additivity of every activation site; ½ is always on the grid.

    It reads every elementwise activation of the network, so `sites` does not bear on it.

    Attributes:
        form: "mixture" for weights α and 1 - α; "sum" puts 1 in the place of both, as the
            authors' code does: the same cosine, coefficient and dist as α = ½.
    """

    form: Literal["mixture", "sum"] = "mixture"

    always: ClassVar[tuple[float, ...]] = (MIDDLE,)
    uses: ClassVar[frozenset[str]] = frozenset(
        {"alphas", "extrapolate", "alpha_loop", "renormalise", "precision", "per"}
    )
    columns: ClassVar[Mapping[str, str]] = {"weak_median": "weak additivity, median distance"}
    section: ClassVar[Section] = Section(
        name="weak_additivity",
        title="First condition: weak additivity of the activations",
        text=(
            "Features can add up along the line only if the activation functions (ReLU, "
            "GELU, ...) allow it: the activation of a mixture of the two networks' "
            "pre-activations must equal the mixture of their activations. A ReLU "
            "satisfies this exactly for every unit whose pre-activations have the same "
            "sign in both networks, and fails where the signs differ.\n\n"
            "`dist` is the squared distance between the two sides, divided by the product "
            "of their norms. It is shown beside the same distance between the two "
            "networks' own activations: the condition holds where the first is far below "
            "the second."
        ),
        charts=(
            Chart(
                name="weak_layers",
                title="Do the activation functions act as if they were linear?",
                caption=(
                    "Normalised distance between the activation of the mean of both networks' "
                    "pre-activations and the mean of their activations. The condition holds where "
                    "it is far below the baseline, the distance between the activations of a and "
                    "of b."
                ),
                x="layer",
                y={
                    "relative": "activation of the mean against mean of the activations",
                    "baseline": "features of a against features of b",
                },
                x_label="activation, input to output",
                y_label="normalised distance",
                where={"alpha": 0.5},
                log=True,
            ),
            Chart(
                name="weak_signs",
                title="How many units are on, or off, in both networks?",
                caption="Share of units, over all samples, that are on in both networks or off "
                "in both: for these a ReLU adds up exactly.",
                x="layer",
                y={"sign_agreement": "sign agrees"},
                x_label="activation, input to output",
                y_label="share of units",
                where={"alpha": 0.5},
            ),
        ),
        columns={
            "layer": "activation",
            "alpha": "α",
            "relative": "dist",
            "distance": "1 - cos",
            "coefficient": "coefficient",
            "baseline": "dist of a and b",
            "sign_agreement": "sign agrees",
        },
    )

    def grid(self, alphas: Sequence[float]) -> tuple[float, ...]:
        """Returns the grid; (1,) for the sum, which has no α."""
        return super().grid(alphas) if self.form == "mixture" else (1.0,)

    def plan(self, graph: Graph, options: EvalOptions) -> tuple[str, ...]:
        """Returns the names of the activation sites."""
        return tuple(site.name for site in activation_sites(graph))

    def read(self, batch: PairBatch, plan: tuple[str, ...]) -> Reading:
        """Returns moments of the comparisons of both sides, along the grid and of the ends."""
        graph, mask = batch.graph, batch.mask[None]
        sites = [graph[name] for name in plan]
        inputs = [[activation_inputs(run, s) for run in (batch.a, batch.b)] for s in sites]
        as_rows = [[_input_rows(batch.layout, s, z) for z in pair]
                   for s, pair in zip(sites, inputs, strict=True)]  # fmt: skip
        ends = [[_activated(batch.layout, s, z) for z in pair]
                for s, pair in zip(sites, inputs, strict=True)]  # fmt: skip
        groups = SiteGroups([h for h, _ in ends])
        h_a, h_b = (groups.stack(of_end) for of_end in zip(*ends, strict=True))
        scale = jnp.stack([scale_of(*pair) for pair in as_rows])
        scales = groups.stack(list(scale))

        def at(of_a: Scalar, of_b: Scalar) -> Any:
            activated = groups.stack([
                _activated(batch.layout, site, mix(of_a, za, of_b, zb))
                for site, (za, zb) in zip(sites, inputs, strict=True)
            ])  # fmt: skip
            squares = groups.join([
                sums(of_a * p + of_b * q, v, scale)
                for p, q, v, scale in zip(h_a, h_b, activated, scales, strict=True)
            ])  # fmt: skip
            return moments_of_each(from_sums(squares), mask), pool(squares, mask)

        compared = groups.join([compare(p, q) for p, q in zip(h_a, h_b, strict=True)])
        agreeing = jnp.stack([(_agreement(batch.layout, *z) * batch.mask).sum() for z in as_rows])
        once = moments_of_each(compared, mask), agreeing
        if self.form == "sum":
            return Reading((*once, jax.tree.map(lambda leaf: leaf[None], at(1.0, 1.0))))
        return Reading(once, on_grid=lambda alpha: at(alpha, 1 - alpha))

    def finish(self, totals: Totals) -> WeakAdditivityResult:
        """Returns the comparisons of both sides, beside those of the ends."""
        n = totals.samples
        ends, agreeing, *of_sum = totals.sums
        on_line, together = of_sum[0] if of_sum else totals.on_grid
        distance, coefficient, relative = on_line
        of_all = pooled(together)
        return WeakAdditivityResult(
            layers=totals.plan,
            alphas=totals.alphas,
            distance=by_layer(distance.average),
            distance_std=by_layer(distance.std),
            coefficient=by_layer(coefficient.average),
            coefficient_std=by_layer(coefficient.std),
            relative=by_layer(relative.average),
            relative_std=by_layer(relative.std),
            pooled_distance=by_layer(of_all.distance),
            pooled_coefficient=by_layer(of_all.coefficient),
            pooled_relative=by_layer(of_all.relative),
            baseline=ends[2].average,
            baseline_distance=ends[0].average,
            sign_agreement=agreeing / n,
            num_undefined=by_layer(n - distance.count),
            samples=n,
            form=self.form,
            renormalise=totals.renormalise,
        )

    def summary_metrics(self, result: WeakAdditivityResult) -> dict[str, float]:
        """Returns the median over the activations of dist at α = ½."""
        column = result.alphas.index(MIDDLE) if self.form == "mixture" else 0
        relative = np.asarray(result.relative)[:, column]
        some = bool(np.isfinite(relative).any())
        return {"weak_median": float(np.nanmedian(relative)) if some else np.nan}


def activation_inputs(run: Values, site: Site) -> tuple[jax.Array, ...]:
    """Returns what goes into an activation in a run, in the network's layout.

    That is one value, but for a maxout of several.
    """
    return tuple(wide(run.all[number]) for number in site.inputs)


def activate(graph: Graph, site: Site, z: tuple[jax.Array, ...]) -> jax.Array:
    """Returns σ(z), in the network's layout."""
    return wide(graph.activate(site, *z))


def mix(
    of_a: Scalar, za: tuple[jax.Array, ...], of_b: Scalar, zb: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    """Returns the mixture of two pre-activations, with these shares of a and b."""
    return tuple(of_a * p + of_b * q for p, q in zip(za, zb, strict=True))


def _agreement(layout: RowLayout, za: jax.Array, zb: jax.Array) -> jax.Array:
    """Returns the share of each row on which the signs agree; padding does not count."""
    agree, kept = _agree(za, zb), layout.kept_share
    if kept is None:
        return agree.mean(-1)
    return 1 - (1 - agree).mean(-1) / jnp.where(kept > 0, kept, 1)  # where padding is, both are 0


def _input_rows(layout: RowLayout, site: Site, z: tuple[jax.Array, ...]) -> jax.Array:
    """Returns a pre-activation as rows."""
    parts = [layout.rows(n, value) for n, value in zip(site.inputs, z, strict=True)]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, -1)


def _activated(layout: RowLayout, site: Site, z: tuple[jax.Array, ...]) -> jax.Array:
    return layout.rows(site.value, activate(layout.graph, site, z))


def _agree(za: jax.Array, zb: jax.Array) -> jax.Array:
    """Returns whether signs agree, zero with both; a product could vanish in rounding."""
    return ((za >= 0) & (zb >= 0)) | ((za <= 0) & (zb <= 0))


def weak_additivity(
    network: Model,
    a: Model,
    b: Model,
    batches: Batches,
    options: EvalOptions | None = None,
    *,
    train_batches: Batches | None = None,
    progress: ProgressFn | None = None,
    **changes: object,
) -> WeakAdditivityResult:
    """Measures weak additivity at every activation in one pass, wherever it was called.

    Per sample, with σ the activation, Z what goes into it, u = α σ(Z_a) + (1 - α) σ(Z_b) and
    v = σ(α Z_a + (1 - α) Z_b): 1 - cos(u, v), c = <u, v> / <v, v>, |u - v|² / (|u| |v|).

    Args:
        network: a module of any framework, or `apply(variables, x) -> logits [n, classes]`.
        a: the mode that α multiplies.
        b: the other mode.
        batches: re-iterable pairs (x [n, ...], labels [n]).
        options: how the pair is measured; the defaults if None.
        train_batches: data for renormalising.
        progress: called as (batches done, batches in all or 0, words).
        **changes: fields of the options or of `WeakAdditivity` that are to be other than said.

    Raises:
        ConfigError: an option that there is not, or that the measure cannot honour.
        ModeError: the modes are no pair.
        GraphError: the network has no activation.
        DataError: the data do not fit the network.

    Source: the LLFC paper, definition 3.
    """
    return measure_pair(
        "weak_additivity", network, a, b, batches, options, train_batches, progress, changes
    )
