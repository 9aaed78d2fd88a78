"""Theorem 1 as a measurement: where along the depth the error of LLFC comes from."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.graph import Site, Values, in_layout, rows, trace
from llfc_jax.graph.queries import exchange_defect
from llfc_jax.measures.accumulate import Batches, Squares, padded
from llfc_jax.measures.evaluator import ALPHAS, Step, by_layer, line
from llfc_jax.measures.measure import Measure
from llfc_jax.measures.similarity import scale_of, wide
from llfc_jax.measures.weak_additivity import before
from llfc_jax.results import Chart, Result, Section, axes, labels, result, setting


@result
class Theorem1(Result):
    """Each layer's departure from LLFC, split into what it adds itself and what it inherits.

    All are lengths over the whole data set, relative to the length of the mixture M of the two
    ends' features there.

    Attributes:
        layers: linear and ReLU sites.
        alphas: points on the line.
        error: |f_l(θ_α) - M| / |M| [layers, alphas].
        added: |D| / |M| of the layer's own defect D: of commutativity at a linear site, of weak
            additivity at a ReLU [layers, alphas].
        inherited: |f_l(θ_α) - M - D| / |M|: the error of what goes into the layer, passed
            through it (by a max-pool or a norm in between as well) [layers, alphas].
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


def theorem1(
    apply: Any,
    a: Any,
    b: Any,
    batches: Batches,
    *,
    alphas: Sequence[float] = ALPHAS,
    **options: Any,
) -> Theorem1:
    """Split the error of LLFC at each layer into the two conditions' defects and the rest.

    With M = α f(a) + (1 - α) f(b) at each site, two identities hold exactly:

        linear:  W_α H_α + b_α - M = -α (1 - α) (W_a - W_b)(H_a - H_b) + W_α (H_α - M_H)
        ReLU:    σ(Z_α) - M = [σ(M_Z) - α σ(Z_a) - (1 - α) σ(Z_b)] + [σ(Z_α) - σ(M_Z)]

    The first term on the right is the layer's own defect, of commutativity or of weak
    additivity; the second is inherited. Where all defects vanish nothing is ever inherited, which
    is Theorem 1.

    Args:
        apply: `apply(variables, x) -> logits [n, classes]`.
        a: variables of the mode that α multiplies.
        b: variables of the other mode.
        batches: re-iterable pairs (x, labels).
        alphas: points on the line.
        **options: of `line`.

    Raises:
        ModeError: the modes are no pair, or the grid is none.
    """
    path = line(apply, a, b, batches, alphas=alphas, **options)
    graph = trace(apply, a, next(padded(batches))[0])
    names = tuple(site.name for site in graph.select(("linear", "relu")))
    found = path.fold(_kernel, batches, options.get("progress"), "Theorem 1", sites=names)
    error, added, inherited, length = (by_layer(np.sqrt(x)) for x in found["squares"])
    with np.errstate(divide="ignore", invalid="ignore"):
        error, added, inherited = (x / length for x in (error, added, inherited))
    return Theorem1(
        layers=names,
        alphas=path.alphas,
        error=error,
        added=added,
        inherited=inherited,
        accumulated=np.sqrt(np.nancumsum(added**2, axis=0)),
        samples=int(found["samples"]),
        renormalise=path.renormalise,
    )


def _kernel(step: Step, sites: tuple[str, ...]) -> dict[str, Any]:
    chosen = [step.graph[name] for name in sites]
    crossed = {
        s.name: in_layout(step.graph, s, exchange_defect(s, step.a, step.b))
        for s in chosen
        if s.kind == "linear"
    }

    scales = {
        s.name: scale_of(*(v.all[s.value].reshape(1, -1) for v in (step.a, step.b)))[0]
        for s in chosen
    }

    def own(site: Site, alpha: jax.Array) -> jax.Array:
        """The layer's own defect, a row per sample."""
        if site.kind == "linear":
            return -alpha * (1 - alpha) * wide(rows(step.graph, site.value, crossed[site.name]))
        number = before(site)
        za, zb = (wide(rows(step.graph, number, v.all[number])) for v in (step.a, step.b))
        mixed = alpha * za + (1 - alpha) * zb
        rectified = alpha * jax.nn.relu(za) + (1 - alpha) * jax.nn.relu(zb)
        return jax.nn.relu(mixed) - rectified

    def at(alpha: jax.Array, values: Values) -> jax.Array:
        found = []
        for site in chosen:
            of_a, of_b, here = (
                wide(rows(step.graph, site.value, v.all[site.value]))
                for v in (step.a, step.b, values)
            )
            mixture = alpha * of_a + (1 - alpha) * of_b
            gap, added = here - mixture, own(site, alpha)
            parts = [p / scales[site.name] for p in (gap, added, gap - added, mixture)]
            found.append(jnp.stack([((p * p).sum(-1) * step.weight).sum() for p in parts]))
        return jnp.stack(found)

    sums = jnp.moveaxis(step.walk(at), -1, 0)  # [parts, alphas, layers]
    return {
        "squares": Squares(sums, jnp.stack(list(scales.values()))),
        "samples": step.weight.sum(),
    }


def _headline(of: Theorem1) -> dict[str, Any]:
    middle = int(np.argmin(np.abs(np.asarray(of.alphas) - 0.5)))
    return {"output_error": float(np.asarray(of.error)[-1, middle])}


MEASURE = Measure(
    run=lambda s: theorem1(s.apply, s.a, s.b, s.batches, alphas=s.alphas, **s.line_options),
    section=Section(
        name="theorem1",
        title="Theorem 1: where the error of LLFC comes from",
        text=(
            "If both conditions held exactly at every layer, the features of the network in "
            "between would be exactly the mixture. They hold nearly, so each layer adds an error "
            "of its own: a linear layer by failing to commute, a ReLU by failing to add up. What "
            "the layers before have added arrives with its input, larger or smaller.\n\n"
            "The figure splits the error at each layer into these two parts, as shares of the "
            "mixture's length. Where the added parts are small everywhere the whole error is "
            "small: that is the theorem, measured."
        ),
        charts=(
            Chart(
                name="theorem1",
                title="Error at each layer: added there, and inherited",
                caption="At α = ½. Accumulated: what the added parts alone would come to.",
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
    ),
    headline=_headline,
    columns={"output_error": "relative error of the logits"},
)
