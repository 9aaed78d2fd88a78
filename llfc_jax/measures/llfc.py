"""Layerwise linear feature connectivity: are the features of θ_α the interpolated features?"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from llfc_jax.graph import Values, features, trace
from llfc_jax.measures.accumulate import Batches, moments, padded
from llfc_jax.measures.evaluator import ALPHAS, Step, by_layer, line, stack
from llfc_jax.measures.lmc import loss_and_right
from llfc_jax.measures.measure import Measure
from llfc_jax.measures.similarity import Sums, absolute, from_sums, pool, pooled, scale_of, sums
from llfc_jax.results import Chart, Result, Section, axes, labels, result, setting

# Below this baseline the two ends have the same features, and LLFC holds whatever the networks do.
SAME = 1e-4
# An end within this many standard errors of always guessing the most frequent class is at chance.
CHANCE = 3.0


@result
class LLFC(Result):
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
        left_out: samples without a cosine, one of their vectors being zero [layers, alphas].
        telling: False where LLFC says nothing: an end is at chance, the baseline is below 1e-4,
            or the layer is affine in the parameters, as the first one is, so that it holds for
            any two networks [layers].
        accuracy_a: accuracy of the end a [].
        accuracy_b: accuracy of the end b [].
        samples: number of samples.
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
    left_out: Any = axes("layers", "alphas")
    telling: Any = axes("layers")
    accuracy_a: Any = axes()
    accuracy_b: Any = axes()
    samples: int = setting()
    renormalise: str = setting("none")

    def ratio(self) -> np.ndarray:
        """Baseline over distance at the α nearest ½, per layer: far above 1 where LLFC holds."""
        middle = int(np.argmin(np.abs(np.asarray(self.alphas) - 0.5)))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.baseline) / np.asarray(self.distance)[:, middle]


def llfc(
    apply: Any,
    a: Any,
    b: Any,
    batches: Batches,
    *,
    alphas: Sequence[float] = ALPHAS,
    sites: str | Sequence[str] = ("linear", "relu"),
    **options: Any,
) -> LLFC:
    """Measure LLFC at every site and every α in one pass over the data.

    Per sample x, with m = α f_l(a; x) + (1 - α) f_l(b; x):

        cos_α(x) = <f_l(θ_α; x), m> / (|f_l(θ_α; x)| |m|),   c_α(x) = <f_l(θ_α; x), m> / <m, m>.

    `a` and `b` run once a batch, every θ_α between them once after them; features never leave the
    device, and memory does not grow with the number of samples.

    Args:
        apply: `apply(variables, x) -> logits [n, classes]`.
        a: variables of the mode that α multiplies.
        b: variables of the other mode.
        batches: re-iterable pairs (x [n, ...], labels [n]).
        alphas: points on the line.
        sites: kinds ("linear", "relu", "module", "all") or name patterns.
        **options: of `line`: `outside`, `over`, `renormalise`, `train_batches`, `progress`.

    Raises:
        ModeError: the modes are no pair, or the grid is none.
        GraphError: a pattern matches no site.
        DataError: the data do not fit the network.

    Source: the LLFC paper, definition 2.
    """
    path = line(apply, a, b, batches, alphas=alphas, **options)
    graph = trace(apply, a, next(padded(batches))[0])
    names = tuple(site.name for site in graph.select(sites))
    holds_always = np.array([graph[name].value in graph.affine for name in names])
    found = path.fold(_kernel, batches, options.get("progress"), "features", sites=names)
    n = found["samples"]
    distance, coefficient, distance_abs = found["line"]
    baseline, _, baseline_abs = found["ends"]
    of_line, of_ends = pooled(found["pooled_line"]), pooled(found["pooled_ends"])
    accuracies = [float(right / n) for right in found["right"]]
    return LLFC(
        layers=names,
        alphas=path.alphas,
        distance=by_layer(distance.average),
        distance_std=by_layer(distance.std),
        distance_abs=by_layer(distance_abs.average),
        distance_abs_std=by_layer(distance_abs.std),
        baseline=baseline.average,
        baseline_std=baseline.std,
        baseline_abs=baseline_abs.average,
        coefficient=by_layer(coefficient.average),
        coefficient_std=by_layer(coefficient.std),
        pooled_distance=by_layer(of_line.distance),
        pooled_coefficient=by_layer(of_line.coefficient),
        pooled_baseline=of_ends.distance,
        left_out=by_layer(n - distance.count),
        telling=better_than_chance(accuracies, found["classes"], n)
        & (baseline.average >= SAME)
        & ~holds_always,
        accuracy_a=np.asarray(accuracies[0]),
        accuracy_b=np.asarray(accuracies[1]),
        samples=int(n),
        renormalise=path.renormalise,
    )


def better_than_chance(accuracies: Sequence[float], classes: np.ndarray, n: float) -> bool:
    """Whether both ends do better than always naming the most frequent class."""
    chance = float(classes.max() / n)
    margin = CHANCE * np.sqrt(chance * (1 - chance) / n)
    return all(accuracy > chance + margin for accuracy in accuracies)


def _kernel(step: Step, sites: tuple[str, ...]) -> dict[str, Any]:
    chosen = [step.graph[name] for name in sites]
    of_a = [features(step.a, site) for site in chosen]
    of_b = [features(step.b, site) for site in chosen]
    scales = [scale_of(p, q) for p, q in zip(of_a, of_b, strict=True)]
    w = step.weight

    def against(squares: Sums) -> Any:
        rows = from_sums(squares)
        many = (rows.distance, rows.coefficient, absolute(rows.distance))
        weight = w.reshape(*(1,) * (squares.uu.ndim - 1), -1)
        return tuple(moments(x, weight) for x in many), pool(squares, weight)

    def at(alpha: jax.Array, values: Values) -> Any:
        return against(stack([  # all layers at once: many small operations become few
            sums(features(values, site), alpha * p + (1 - alpha) * q, scale)
            for site, p, q, scale in zip(chosen, of_a, of_b, scales, strict=True)
        ]))  # fmt: skip

    def itself(square: jax.Array) -> Sums:
        """An end against the mixture that is that end."""
        return Sums(square, square, square, jax.numpy.zeros_like(square), both.scale)

    both = stack([sums(*of) for of in zip(of_a, of_b, scales, strict=True)])
    of_ends = against(stack([both, itself(both.vv), itself(both.uu)]))
    (ends, pooled_ends), *known = (jax.tree.map(lambda x, i=i: x[i], of_ends) for i in range(3))
    on_line, pooled_line = step.walk(at, known)
    logits = step.a.output, step.b.output
    return {
        "line": on_line,
        "pooled_line": pooled_line,
        "ends": ends,
        "pooled_ends": pooled_ends,
        "right": jax.numpy.stack([loss_and_right(out, step.y, w)[1] for out in logits]),
        "classes": jax.numpy.zeros(logits[0].shape[1]).at[step.y].add(w),
        "samples": w.sum(),
    }


def _headline(of: LLFC) -> dict[str, Any]:
    middle = int(np.argmin(np.abs(np.asarray(of.alphas) - 0.5)))
    distance = np.asarray(of.distance)[:, middle]
    some = np.isfinite(distance) & np.asarray(of.telling)
    said = bool(some.any())
    if not said:  # the numbers still stand in the table, beside the word that they say nothing
        some = np.isfinite(distance)
    nothing = not some.any()
    return {
        "llfc_worst": np.nan if nothing else float(distance[some].max()),
        "llfc_median": np.nan if nothing else float(np.median(distance[some])),
        "llfc_ratio": np.nan if nothing else float(np.median(of.ratio()[some])),
        "telling": said,
    }


_WORDS = {"distance": "1 - cosine α (θ_α against the interpolated features)",
          "baseline": "1 - cosine AB (a against b)"}  # fmt: skip

MEASURE = Measure(
    run=lambda s: llfc(
        s.apply, s.a, s.b, s.batches, alphas=s.alphas, sites=s.sites, **s.line_options
    ),
    section=Section(
        name="llfc",
        title="Layerwise linear feature connectivity",
        text=(
            "Linear feature connectivity asks more than a low loss: at every layer, the features "
            "of the network at `α a + (1 - α) b` should be, up to a scale, the same mixture of "
            "the features of a and of b. `1 - cosine α` measures by how much they are not: 0 "
            "means that they point the same way.\n\n"
            "It says something only beside `1 - cosine AB`, how far apart the features of a and b "
            "themselves are. Where the first is far below the second, two different networks "
            "have features that add up; where both are alike, they do not; where the second is "
            "near 0, or an end is no better than chance, the figure says nothing, and the table "
            "says so. The coefficient is the scale: near 1, the features are not only parallel "
            "to the mixture but equal to it."
        ),
        charts=(
            Chart(
                name="llfc_layers",
                title="Features of the middle against the mixture, layer by layer",
                caption="At α = ½, mean over samples; bands: one standard deviation. LLFC holds "
                "where the solid line is far below the baseline.",
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
                title="Every α",
                caption="Distance to the mixture along the line, one line per layer.",
                x="alpha",
                y={"distance": "1 - cosine α"},
                x_label="α (0: network b, 1: network a)",
                y_label="1 - cosine",
                lines="layer",
            ),
            Chart(
                name="llfc_coefficient",
                title="Coefficient",
                caption="The scale c between the features of the middle and the mixture: 1 where "
                "they agree in length too. Band: one standard deviation.",
                x="layer",
                y={"coefficient": "coefficient at α = ½"},
                x_label="layer, input to output",
                y_label="c",
                band={"coefficient": "coefficient_std"},
                where={"alpha": 0.5},
            ),
        ),
        columns={
            "layer": "layer",
            "alpha": "α",
            "distance": "1 - cos α",
            "distance_std": "deviation",
            "baseline": "1 - cos AB",
            "coefficient": "coefficient",
            "telling": "tells something",
        },
    ),
    headline=_headline,
    columns={
        "llfc_worst": "1 - cos, worst layer",
        "llfc_median": "median layer",
        "llfc_ratio": "baseline / distance",
    },
)
