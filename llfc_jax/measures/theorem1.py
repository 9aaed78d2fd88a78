"""Theorem 1 as a measurement: where along the depth the error of LLFC comes from."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.graph import Graph, Site, Values, in_layout
from llfc_jax.graph.queries import exchange_defect
from llfc_jax.measures.accumulate import Squares
from llfc_jax.measures.batch import PairBatch, Reading
from llfc_jax.measures.evaluator import measure_pair
from llfc_jax.measures.measure import MIDDLE, Measure, Totals, by_layer
from llfc_jax.measures.options import EvalOptions
from llfc_jax.measures.precision import wide
from llfc_jax.measures.registry import measure
from llfc_jax.measures.similarity import scale_of
from llfc_jax.measures.site_groups import SiteGroups
from llfc_jax.measures.weak_additivity import activate, activation_inputs, mix
from llfc_jax.report.charts import Chart, Section
from llfc_jax.results import Result, axes, labels, result, setting
from llfc_jax.types import Batches, Model, ProgressFn


@result
class Theorem1Result(Result):
    """Each layer's departure from LLFC, split into what it adds itself and what it inherits.

    All are lengths over the whole data set, relative to the length of the mixture M of the two
    ends' features there.

    Attributes:
        layers: linear and activation sites.
        alphas: points on the line.
        error: |f_l(θ_α) - M| / |M| [layers, alphas].
        added: |D| / |M| of the layer's own defect D: of commutativity at a linear site, of weak
            additivity at an activation [layers, alphas].
        inherited: |f_l(θ_α) - M - D| / |M|: the error of what goes into the layer, passed
            through it. That is the earlier layers' error, and whatever stands in between and is
            neither linear nor an activation adds: max-pools, normalisations, softmax, products
            of features. None of these is a condition of the theorem, and none is measured here
            by itself [layers, alphas].
        accumulated: √(Σ added²) over the layers so far: what the conditions' defects would come
            to if each were passed on unchanged and they were at right angles [layers, alphas].
        samples: number of samples.
        renormalise: the kind of renormalisation.
    """

    layers: tuple[str, ...] = labels("layer")
    alphas: tuple[float, ...] = labels("alpha")
    error: Any = axes("layers", "alphas")
    added: Any = axes("layers", "alphas")
    inherited: Any = axes("layers", "alphas")
    accumulated: Any = axes("layers", "alphas")
    samples: int = setting()
    renormalise: str = setting("none")


@measure("theorem1")
@dataclasses.dataclass(frozen=True)
class Theorem1(Measure):
    """LLFC's error at each layer, split into the layer's own defect and the rest.

    It reads every linear layer and every activation, so `sites` does not bear on it; ½ is always
    on the grid.
    """

    always: ClassVar[tuple[float, ...]] = (MIDDLE,)
    uses: ClassVar[frozenset[str]] = frozenset(
        {"alphas", "extrapolate", "alpha_loop", "renormalise", "precision", "per"}
    )
    columns: ClassVar[Mapping[str, str]] = {"output_error": "relative error of the logits"}
    section: ClassVar[Section] = Section(
        name="theorem1",
        title="Theorem 1: where the error of LLFC comes from",
        text=(
            "In a network of linear layers, activations and sums, all features are "
            "exactly the mixture if both conditions hold exactly at every layer. They "
            "hold only nearly, so each layer adds an error of its own: a linear layer "
            "because it does not quite commute, an activation because it does not quite "
            "add up. Errors of earlier layers arrive with the input, amplified or damped.\n\n"
            "The figure splits the error at each layer into these two parts, relative to "
            "the norm of the mixture. The theorem covers such networks only. Max-pooling, "
            "normalisation (BatchNorm in evaluation included, since it multiplies by its "
            "own scale), softmax and products of features are outside of it: what they "
            "add is not measured separately, but counts as inherited by the next layer."
        ),
        charts=(
            Chart(
                name="theorem1",
                title="Where do the features stop adding up?",
                caption=(
                    "Distance of the features of (a + b) / 2 from the mean of those of a and b, "
                    "split into what each layer adds and what it inherits from earlier layers. "
                    "Accumulated: the sum of what the layers have added so far."
                ),
                x="layer",
                y={
                    "error": "whole error",
                    "added": "added by this layer",
                    "inherited": "inherited",
                    "accumulated": "added so far, accumulated",
                },
                x_label="layer, input to output",
                y_label="share of the mixture's length",
                where={"alpha": 0.5},
            ),
        ),
        columns={
            "layer": "layer",
            "alpha": "α",
            "error": "error",
            "added": "added",
            "inherited": "inherited",
            "accumulated": "accumulated",
        },
    )

    def plan(self, graph: Graph, options: EvalOptions) -> tuple[str, ...]:
        """Returns the names of the linear and activation sites, in order.

        Raises:
            GraphError: there is none.
        """
        active = {site.name for site in graph.activation_sites}
        chosen = [s for s in graph.sites if s.kind == "linear" or s.name in active]
        found = tuple(site.name for site in chosen if site.sample_axis is not None)
        return found or tuple(site.name for site in graph.select("linear"))

    def read(self, batch: PairBatch, plan: tuple[str, ...]) -> Reading:
        """Returns squared lengths of the error, its two parts and the mixture, site by site."""
        sites = [batch.graph[name] for name in plan]
        own = [_own_defect(batch, site) for site in sites]
        groups = SiteGroups([_rows(batch, batch.a, site) for site in sites])

        def read(run: Values) -> list[jax.Array]:
            return groups.stack([_rows(batch, run, site) for site in sites])

        of_a, of_b = read(batch.a), read(batch.b)
        scales = [scale_of(p, q).max(-1) for p, q in zip(of_a, of_b, strict=True)]

        def squares(part: jax.Array, scale: jax.Array) -> jax.Array:
            scaled = part / scale[:, None, None]
            return ((scaled * scaled).sum(-1) * batch.mask[None]).sum(-1)

        def at(alpha: jax.Array, values: Values) -> Squares:
            found = []
            defects = groups.stack([added_at(alpha) for added_at in own])
            for u, p, q, added, scale in zip(read(values), of_a, of_b, defects, scales,
                                             strict=True):  # fmt: skip
                mixture = alpha * p + (1 - alpha) * q
                parts = u - mixture, added, u - mixture - added, mixture
                found.append(jnp.stack([squares(part, scale) for part in parts], -1))
            return Squares(groups.join(found), groups.join(scales)[:, None])

        def end(of_end: Sequence[jax.Array]) -> Squares:
            length = groups.join([squares(m, s) for m, s in zip(of_end, scales, strict=True)])
            zero = jnp.zeros_like(length)
            return Squares(jnp.stack([zero, zero, zero, length], -1), groups.join(scales)[:, None])

        return Reading(on_line=at, at_ends=(end(of_b), end(of_a)))

    def finish(self, totals: Totals) -> Theorem1Result:
        """Returns the parts as shares of the mixture's length."""
        squares = np.moveaxis(totals.on_line, -1, 0)  # [parts, alphas, layers]
        error, added, inherited, length = (by_layer(np.sqrt(part)) for part in squares)
        with np.errstate(divide="ignore", invalid="ignore"):
            error, added, inherited = (part / length for part in (error, added, inherited))
        return Theorem1Result(
            layers=totals.plan,
            alphas=totals.alphas,
            error=error,
            added=added,
            inherited=inherited,
            accumulated=np.sqrt(np.nancumsum(added**2, axis=0)),
            samples=totals.samples,
            renormalise=totals.renormalise,
        )

    def summary_metrics(self, result: Theorem1Result) -> dict[str, float]:
        """Returns the relative error of the last site at α = ½."""
        return {"output_error": float(np.asarray(result.error)[-1, result.alphas.index(MIDDLE)])}


def _rows(batch: PairBatch, run: Values, site: Site) -> jax.Array:
    return wide(batch.layout.features(run.all, site))


def _own_defect(batch: PairBatch, site: Site) -> Callable[[jax.Array], jax.Array]:
    """Returns α -> the site's own defect, a row per sample."""
    graph = batch.graph
    if site.kind == "linear":
        crossed = wide(in_layout(graph, site, exchange_defect(site, batch.a, batch.b)))
        exchanged = batch.layout.rows(site.value, crossed)
        return lambda alpha: -alpha * (1 - alpha) * exchanged
    za, zb = (activation_inputs(run, site) for run in (batch.a, batch.b))
    ha, hb = (activate(graph, site, z) for z in (za, zb))

    def of_activation(alpha: jax.Array) -> jax.Array:
        activated = activate(graph, site, mix(alpha, za, 1 - alpha, zb))
        return batch.layout.rows(site.value, activated - (alpha * ha + (1 - alpha) * hb))

    return of_activation


def theorem1(
    network: Model,
    a: Model,
    b: Model,
    batches: Batches,
    options: EvalOptions | None = None,
    *,
    train_batches: Batches | None = None,
    progress: ProgressFn | None = None,
    **changes: object,
) -> Theorem1Result:
    """Splits the error of LLFC at each layer into the two conditions' defects and the rest.

    With M = α f(a) + (1 - α) f(b) at each site, two identities hold exactly:

        linear:      W_α H_α + b_α - M = -α (1 - α) (W_a - W_b)(H_a - H_b) + W_α (H_α - M_H)
        activation:  σ(Z_α) - M = [σ(M_Z) - α σ(Z_a) - (1 - α) σ(Z_b)] + [σ(Z_α) - σ(M_Z)]

    The first term on the right is the layer's own defect, of commutativity or of weak
    additivity; the second is inherited. In a network of linear layers, activations and sums
    nothing is inherited where all defects vanish, which is Theorem 1. Max-pools, normalisations,
    softmax and products of features are no condition of the theorem: what they add counts as
    inherited by the next layer, and can be there though every defect is 0.

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
        DataError: the data do not fit the network.

    Source: the LLFC paper, theorem 1.
    """
    return measure_pair(
        "theorem1", network, a, b, batches, options, train_batches, progress, changes
    )
