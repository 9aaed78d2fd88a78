"""Spectra of weights and features, and the angles between the two networks' leading subspaces."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from llfc_jax.errors import ModeError
from llfc_jax.graph import Graph, Site, Values, trace
from llfc_jax.graph.queries import linear_sites, operands, unit_axes
from llfc_jax.measures.accumulate import Batches, Progress, Squares, padded
from llfc_jax.measures.evaluator import Step, line
from llfc_jax.measures.measure import Measure
from llfc_jax.measures.similarity import scale_of, wide
from llfc_jax.results import Chart, Result, Section, axes, labels, result, setting

TOP = 5  # k of the paper: dimension of the leading subspaces
RANKS = 256  # singular values kept per layer
# Share of the largest second moment below which the others are single precision's rounding.
ROUNDING = float(np.finfo(np.float32).eps)


@result
class Spectrum(Result):
    """Singular values and subspace angles, layer by layer; NaN beyond a layer's rank.

    A weight is the matrix [units out, units in] (a convolution [out, in * height * width]). The
    features of a layer are its pre-activations, a row per unit and a column per sample (and
    position, for a convolution).

    Attributes:
        layers: linear sites.
        ranks: 1, 2, ...: number of the singular value, or of the angle.
        weight_a: singular values of a's weight, falling [layers, ranks].
        weight_b: of b's [layers, ranks].
        feature_a: singular values of a's features, over √samples; those below 3.5e-4 of the
            largest are rounding, and left out as beyond the rank [layers, ranks].
        feature_b: of b's [layers, ranks].
        angle_left: principal angles, falling, between the spans of the top k left singular
            vectors of the two weights, in degrees [layers, ranks].
        angle_right: the same of the right ones [layers, ranks].
        angle_feature: the same of the left ones of the features [layers, ranks].
        effective_weight_a: effective rank exp(H(s / Σ s)) of a's weight [layers].
        effective_weight_b: of b's [layers].
        effective_feature_a: of a's features [layers].
        effective_feature_b: of b's [layers].
        samples: number of samples.
        top: k.
    """

    layers: tuple[str, ...] = labels("layer")
    ranks: tuple[int, ...] = labels("rank")
    weight_a: Any = axes("layers", "ranks")
    weight_b: Any = axes("layers", "ranks")
    feature_a: Any = axes("layers", "ranks")
    feature_b: Any = axes("layers", "ranks")
    angle_left: Any = axes("layers", "ranks")
    angle_right: Any = axes("layers", "ranks")
    angle_feature: Any = axes("layers", "ranks")
    effective_weight_a: Any = axes("layers")
    effective_weight_b: Any = axes("layers")
    effective_feature_a: Any = axes("layers")
    effective_feature_b: Any = axes("layers")
    samples: int = setting()
    top: int = setting(TOP)


def spectrum(
    apply: Any,
    a: Any,
    b: Any,
    batches: Batches,
    *,
    top: int = TOP,
    ranks: int = RANKS,
    progress: Progress | None = None,
) -> Spectrum:
    """Measure spectra and subspace angles of every linear layer, in one pass over the data.

    Features enter through their second moments [units, units], which are summed over batches;
    decompositions are in float64 on the host.

    Args:
        apply: `apply(variables, x) -> logits [n, classes]`.
        a: variables of one mode.
        b: variables of the other.
        batches: re-iterable pairs (x, labels).
        top: k, dimension of the compared subspaces.
        ranks: singular values kept per layer.
        progress: called as (done, total, words).

    Raises:
        ModeError: the modes are no pair, or top or ranks is below 1.

    Source: the LLFC paper, appendix B.5; Roy and Vetterli 2007 (effective rank).
    """
    if top < 1 or ranks < 1:
        raise ModeError(f"top and ranks must be 1 or more, not {top} and {ranks}")
    path = line(apply, a, b, batches, alphas=(0.5,))
    x, _, _ = next(padded(batches))
    names = tuple(site.name for site in linear_sites(trace(apply, a, x)))
    found = path.fold(_kernel, batches, progress, "spectra", sites=names)
    n = found["samples"]
    of_weights = [[_decompose(w) for w in pair] for pair in _matrices(apply, a, b, x, names)]
    of_features = [[_from_moments(m / n) for m in found["moments"][name]] for name in names]
    length = min(ranks, max(len(s) for pair in (*of_weights, *of_features) for _, s, _ in pair))
    table: dict[str, Any] = {}
    for i, end in enumerate("ab"):
        for what, kind in (("weight", of_weights), ("feature", of_features)):
            spectra = [pair[i][1] for pair in kind]
            table[f"{what}_{end}"] = _pad(spectra, length)
            table[f"effective_{what}_{end}"] = np.array([effective_rank(s) for s in spectra])
    for name, kind, side in (
        ("angle_left", of_weights, 0),
        ("angle_right", of_weights, 2),
        ("angle_feature", of_features, 0),
    ):
        table[name] = _pad([_angles(p[side], q[side], top) for p, q in kind], length)
    return Spectrum(
        layers=names, ranks=tuple(range(1, length + 1)), **table, samples=int(n), top=top
    )


def effective_rank(singular_values: np.ndarray) -> float:
    """Exp of the entropy of the singular values as shares of their sum: 1 to their number."""
    total = singular_values.sum()
    if not total > 0:
        return float("nan")
    share = singular_values[singular_values > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))


def _decompose(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left vectors, singular values, right vectors (as columns)."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return u, s, vt.T


def _from_moments(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left vectors and singular values of H from H Hᵀ; there are no right ones."""
    if not np.isfinite(moments).all():  # the features overflowed
        return moments[:, :0], np.zeros(0), moments[:, :0]
    values, vectors = np.linalg.eigh(moments)
    values, vectors = values[::-1], vectors[:, ::-1]
    held = values > ROUNDING * values[0]
    return vectors[:, held], np.sqrt(values[held]), vectors[:, :0]


def _angles(p: np.ndarray, q: np.ndarray, top: int) -> np.ndarray:
    k = min(top, p.shape[1], q.shape[1])
    if not k:  # features that vanish span nothing
        return np.zeros(0)
    return np.degrees(scipy.linalg.subspace_angles(p[:, :k], q[:, :k]))


def _pad(rows: Sequence[np.ndarray], length: int) -> np.ndarray:
    out = np.full((len(rows), length), np.nan)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row[:length]
    return out


def _unit_rows(graph: Graph, site: Site, values: Values, weight: jax.Array) -> jax.Array:
    """Pre-activations without bias as [units, samples * positions], padding zeroed."""
    product, units = unit_axes(graph, site)
    value = wide(values.all[product])
    samples = graph.sample_axes[product]
    value = value * weight.reshape([-1 if i == samples else 1 for i in range(value.ndim)])
    value = jnp.moveaxis(value, units, range(len(units)))
    return value.reshape(int(np.prod(value.shape[: len(units)])), -1)


def _kernel(step: Step, sites: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in sites:
        both = [_unit_rows(step.graph, step.graph[name], v, step.weight) for v in (step.a, step.b)]
        scales = [scale_of(h.reshape(1, -1))[0] for h in both]
        found[name] = tuple(
            Squares(jnp.matmul(h / s, (h / s).T, precision="highest"), s)
            for h, s in zip(both, scales, strict=True)
        )
    return {"moments": found, "samples": step.weight.sum()}


def _matrices(
    apply: Any, a: Any, b: Any, x: Any, names: tuple[str, ...]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two weights of every site as [units out, units in]."""

    @jax.jit
    def read(variables: Any) -> list[jax.Array]:
        graph = trace(apply, variables, x)
        values = graph.evaluate(variables, np.zeros(x.shape, x.dtype))
        return [_as_matrix(graph, graph[name], values) for name in names]

    pairs = zip(read(a), read(b), strict=True)
    return [(np.asarray(p, np.float64), np.asarray(q, np.float64)) for p, q in pairs]


def _as_matrix(graph: Graph, site: Site, values: Values) -> jax.Array:
    eq, _, number = operands(graph, site)
    weight = values.all[number]
    if eq.name == "conv_general_dilated":
        out = (eq.params["dimension_numbers"].rhs_spec[0],)
    else:
        contract, batch = eq.params["dimension_numbers"]
        side = site.weight or 0
        out = tuple(i for i in range(weight.ndim) if i not in (*contract[side], *batch[side]))
    weight = jnp.moveaxis(weight, out, range(len(out)))
    return weight.reshape(int(np.prod(weight.shape[: len(out)])), -1)


def _headline(of: Spectrum) -> dict[str, Any]:
    return {"angle": float(np.nanmedian(np.asarray(of.angle_left)[:, : of.top]))}


MEASURE = Measure(
    run=lambda s: spectrum(s.apply, s.a, s.b, s.batches, progress=s.progress),
    section=Section(
        name="spectrum",
        title="Spectra and subspaces",
        text=(
            "Wide trained networks use few of their dimensions: the singular values of their "
            "weights and features fall fast. So two networks can agree by agreeing on a few "
            "leading directions. The angles tell whether they do: principal angles between the "
            "spaces spanned by the top five singular vectors of the two networks, 0 degrees for "
            "the same space, 90 for a direction that the other lacks."
        ),
        charts=(
            Chart(
                name="spectrum_weights",
                title="Singular values of the weights",
                caption="Network a solid, network b dashed.",
                x="rank",
                y={"weight_a": "network a", "weight_b": "network b"},
                x_label="number of the singular value",
                y_label="singular value",
                lines="layer",
                log=True,
            ),
            Chart(
                name="spectrum_features",
                title="Singular values of the features",
                caption="Of the pre-activations, over the square root of the number of samples.",
                x="rank",
                y={"feature_a": "network a", "feature_b": "network b"},
                x_label="number of the singular value",
                y_label="singular value",
                lines="layer",
                log=True,
            ),
            Chart(
                name="spectrum_angles",
                title="Angles between the leading subspaces of the weights",
                caption="The five principal angles, largest first.",
                x="rank",
                y={"angle_left": "left vectors (outputs)", "angle_right": "right vectors (inputs)"},
                x_label="number of the angle",
                y_label="degrees",
                lines="layer",
                mark="dots",
            ),
        ),
        columns={
            "layer": "layer",
            "rank": "number",
            "weight_a": "weight a",
            "weight_b": "weight b",
            "feature_a": "feature a",
            "feature_b": "feature b",
            "angle_left": "angle left",
            "angle_right": "angle right",
        },
    ),
    headline=_headline,
    columns={"angle": "angle of subspaces, median"},
)
