"""Weak additivity of ReLU: does rectifying the mixture give the mixture of the rectified?"""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.errors import GraphError, ModeError
from llfc_jax.graph import Graph, Site, rows, trace
from llfc_jax.measures.accumulate import Batches, Progress, moments, padded
from llfc_jax.measures.evaluator import ALPHAS, Step, by_layer, line, stack
from llfc_jax.measures.measure import Measure
from llfc_jax.measures.similarity import compare, from_sums, pool, pooled, scale_of, sums
from llfc_jax.parallel.loops import AlphaLoop
from llfc_jax.results import Chart, Result, Section, axes, labels, result, setting

Form = Literal["mixture", "sum"]


@result
class WeakAdditivity(Result):
    """σ(α Z_a + (1 - α) Z_b) against α σ(Z_a) + (1 - α) σ(Z_b), ReLU by ReLU.

    Attributes:
        layers: names of the ReLU sites.
        alphas: points on the line; (1,) where `form` is "sum".
        distance: mean over samples of 1 - cosine of the two sides [layers, alphas].
        distance_std: its standard deviation [layers, alphas].
        coefficient: mean of c in (mixture of the rectified) ≈ c (rectified mixture).
        coefficient_std: its standard deviation [layers, alphas].
        relative: mean of dist(u, v) = |u - v|² / (|u| |v|) of the two sides [layers, alphas].
        relative_std: its standard deviation [layers, alphas].
        pooled_distance: 1 - cosine over the whole data set as one vector [layers, alphas].
        pooled_coefficient: coefficient of the same [layers, alphas].
        pooled_relative: dist of the same [layers, alphas].
        baseline: mean of dist(σ(Z_a), σ(Z_b)) [layers].
        baseline_distance: mean of 1 - cosine of σ(Z_a) and σ(Z_b) [layers].
        sign_agreement: share of units, over all samples, whose pre-activations have one sign in
            both networks (or are 0 in either): there the two sides agree exactly [layers].
        left_out: samples without a cosine, one side being zero [layers, alphas].
        samples: number of samples.
        form: "mixture", or "sum" for the authors' σ(Z_a + Z_b) against σ(Z_a) + σ(Z_b).
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
    left_out: Any = axes("layers", "alphas")
    samples: int = setting()
    form: str = setting("mixture")


def weak_additivity(
    apply: Any,
    a: Any,
    b: Any,
    batches: Batches,
    *,
    alphas: Sequence[float] = ALPHAS,
    form: Form = "mixture",
    outside: bool = False,
    over: AlphaLoop | None = None,
    progress: Progress | None = None,
) -> WeakAdditivity:
    """Measure weak additivity at every ReLU in one pass, wherever the ReLU was called.

    Per sample, with Z what goes into the ReLU, u = α σ(Z_a) + (1 - α) σ(Z_b) and
    v = σ(α Z_a + (1 - α) Z_b): 1 - cos(u, v), c = <u, v> / <v, v>, |u - v|² / (|u| |v|).

    Args:
        apply: `apply(variables, x) -> logits [n, classes]`.
        a: variables of the mode that α multiplies.
        b: variables of the other mode.
        batches: re-iterable pairs (x, labels).
        alphas: points on the line.
        form: "mixture" as above; "sum" puts 1 in the place of both α and 1 - α, as the authors'
            code does: the same cosine, coefficient and dist as α = ½.
        outside: allows α outside [0, 1].
        over: how the loop over α runs; chosen by network and backend if None.
        progress: called as (done, total, words).

    Raises:
        GraphError: the network has no ReLU.
        ModeError: the modes are no pair, or the grid is none.

    Source: the LLFC paper, definition 3.
    """
    if form not in ("mixture", "sum"):
        raise ModeError(f"form must be 'mixture' or 'sum', not {form!r}")
    grid = alphas if form == "mixture" else (1,)
    path = line(apply, a, b, batches, alphas=grid, outside=outside, over=over)
    names = tuple(site.name for site in relus(trace(apply, a, next(padded(batches))[0])))
    found = path.fold(_kernel, batches, progress, "ReLUs", sites=names, form=form)
    n, (distance, coefficient, relative) = found["samples"], found["line"]
    of_all = pooled(found["pooled"])
    return WeakAdditivity(
        layers=names,
        alphas=path.alphas,
        distance=by_layer(distance.average),
        distance_std=by_layer(distance.std),
        coefficient=by_layer(coefficient.average),
        coefficient_std=by_layer(coefficient.std),
        relative=by_layer(relative.average),
        relative_std=by_layer(relative.std),
        pooled_distance=by_layer(of_all.distance),
        pooled_coefficient=by_layer(of_all.coefficient),
        pooled_relative=by_layer(of_all.relative),
        baseline=found["ends"][2].average,
        baseline_distance=found["ends"][0].average,
        sign_agreement=found["agreeing"] / n,
        left_out=by_layer(n - distance.count),
        samples=int(n),
        form=form,
    )


def relus(graph: Graph) -> tuple[Site, ...]:
    """The ReLU sites that act on features.

    Raises:
        GraphError: there is none.
    """
    sites = tuple(s for s in graph.sites if s.function == "relu" and s.sample_axis is not None)
    if not sites:
        raise GraphError("the network has no ReLU, so weak additivity cannot be measured")
    return sites


def before(site: Site) -> int:
    """Number of the value that goes into a ReLU."""
    return site.inputs[0]


def _agree(za: jax.Array, zb: jax.Array) -> jax.Array:
    """Whether signs agree, zero with both; a product of the two could vanish in rounding."""
    return ((za >= 0) & (zb >= 0)) | ((za <= 0) & (zb <= 0))


def _kernel(step: Step, sites: tuple[str, ...], form: Form) -> dict[str, Any]:
    w = step.weight
    numbers = [before(step.graph[name]) for name in sites]
    inputs = [
        tuple(rows(step.graph, i, values.all[i]) for values in (step.a, step.b)) for i in numbers
    ]

    scales = [scale_of(za, zb) for za, zb in inputs]

    def sides(za: jax.Array, zb: jax.Array, of_a: Any, of_b: Any) -> tuple[jax.Array, jax.Array]:
        mixture = of_a * jax.nn.relu(za) + of_b * jax.nn.relu(zb)
        return mixture, jax.nn.relu(of_a * za + of_b * zb)

    def at(alpha: jax.Array) -> Any:
        shares = (alpha, 1 - alpha) if form == "mixture" else (1.0, 1.0)
        squares = stack([
            sums(*sides(za, zb, *shares), scale)
            for (za, zb), scale in zip(inputs, scales, strict=True)
        ])  # fmt: skip
        return tuple(moments(x, w[None]) for x in from_sums(squares)), pool(squares, w[None])

    on_line, together = step.grid(at)
    ends = [compare(jax.nn.relu(za), jax.nn.relu(zb)) for za, zb in inputs]
    return {
        "line": on_line,
        "pooled": together,
        "ends": tuple(moments(x, w[None]) for x in stack(ends)),
        "agreeing": jnp.stack([(_agree(za, zb).mean(-1) * w).sum() for za, zb in inputs]),
        "samples": w.sum(),
    }


def _headline(of: WeakAdditivity) -> dict[str, Any]:
    middle = int(np.argmin(np.abs(np.asarray(of.alphas) - 0.5)))
    relative = np.asarray(of.relative)[:, middle]
    return {"weak_median": float(np.nanmedian(relative)) if np.isfinite(relative).any() else np.nan}


MEASURE = Measure(
    run=lambda s: weak_additivity(
        s.apply,
        s.a,
        s.b,
        s.batches,
        alphas=s.alphas,
        outside=s.outside,
        over=s.over,
        progress=s.progress,
    ),
    section=Section(
        name="weak_additivity",
        title="First condition: weak additivity of ReLU",
        text=(
            "Features can only add up along the line if the ReLUs let them: rectifying a mixture "
            "of the two networks' pre-activations must give the same as mixing what they rectify "
            "to. Where the two pre-activations of a unit have one sign, it does exactly; where "
            "they differ in sign, it does not.\n\n"
            "`dist` is the squared distance between the two sides over the product of their "
            "lengths. It is shown beside the same distance between the two networks' own "
            "outputs of that ReLU: the condition holds where the first is far below the second."
        ),
        charts=(
            Chart(
                name="weak_layers",
                title="Rectified mixture against mixture of the rectified, ReLU by ReLU",
                caption="At α = ½. The condition holds where the solid line is far below the "
                "baseline.",
                x="layer",
                y={"relative": "dist of the two sides", "baseline": "dist of a's and b's features"},
                x_label="ReLU, input to output",
                y_label="dist",
                where={"alpha": 0.5},
                log=True,
            ),
            Chart(
                name="weak_signs",
                title="Units whose sign agrees",
                caption="Share of units, over all samples, that are on in both networks or off "
                "in both: for these the condition holds exactly.",
                x="layer",
                y={"sign_agreement": "sign agrees"},
                x_label="ReLU, input to output",
                y_label="share of units",
                where={"alpha": 0.5},
            ),
        ),
        columns={
            "layer": "ReLU",
            "alpha": "α",
            "relative": "dist",
            "distance": "1 - cos",
            "coefficient": "coefficient",
            "baseline": "dist of a and b",
            "sign_agreement": "sign agrees",
        },
    ),
    headline=_headline,
    columns={"weak_median": "ReLU defect, median"},
)
