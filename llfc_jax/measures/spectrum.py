"""Spectra of weights and features, and the angles between the two networks' leading subspaces."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from llfc_jax.errors import ConfigError
from llfc_jax.graph import Graph, Site
from llfc_jax.graph.queries import linear_sites, operands
from llfc_jax.measures.accumulate import Squares
from llfc_jax.measures.batch import PairBatch, Reading
from llfc_jax.measures.evaluator import measure_pair
from llfc_jax.measures.measure import Measure, Totals
from llfc_jax.measures.options import EvalOptions
from llfc_jax.measures.registry import measure
from llfc_jax.measures.similarity import scale_of
from llfc_jax.report.charts import Chart, Section
from llfc_jax.results import Result, axes, labels, result, setting
from llfc_jax.types import Batches, Model, ProgressFn

# Share of the largest second moment below which the others are single precision's rounding.
ROUNDING = float(np.finfo(np.float32).eps)

# Left vectors (columns), singular values, right vectors (columns).
Decomposition = tuple[
    Float[np.ndarray, "left k"], Float[np.ndarray, " k"], Float[np.ndarray, "right k"]
]


@result
class SpectrumResult(Result):
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
        renormalise: the kind of renormalisation.
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
    top: int = setting(5)
    renormalise: str = setting("none")


@measure("spectrum")
@dataclasses.dataclass(frozen=True)
class Spectrum(Measure):
    """Singular values and subspace angles of every linear layer.

    It visits no α and reads every linear layer, so neither the grid nor `sites` bears on it.

    Attributes:
        top: k of the paper: dimension of the leading subspaces that are compared.
        ranks: singular values kept per layer.
    """

    top: int = 5
    ranks: int = 256

    uses: ClassVar[frozenset[str]] = frozenset({"renormalise", "precision", "per"})
    columns: ClassVar[Mapping[str, str]] = {"angle": "angle between subspaces, median (°)"}
    section: ClassVar[Section] = Section(
        name="spectrum",
        title="Spectra and subspaces",
        text=(
            "Wide trained networks use few of their dimensions: the singular values of "
            "their weights and features fall fast. So two networks may agree because they "
            "agree on a few leading directions. The angles measure that: principal angles "
            "between the spaces spanned by the top five singular vectors of the two "
            "networks, 0 degrees where the spaces are the same, 90 for a direction that "
            "the other network does not use."
        ),
        charts=(
            Chart(
                name="spectrum_weights",
                title="Singular values of the weights",
                caption=(
                    "Of each layer's weights as a matrix; network a solid, network b dashed. A "
                    "fast decline means a low effective rank."
                ),
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
                caption="Of every layer's outputs before the activation, a row per sample, divided "
                "by the square root of the number of samples.",
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
                caption="Principal angles between the spaces that the leading singular vectors of "
                "a and of b span, largest first: 0 where they are the same, 90 where orthogonal.",
                x="rank",
                y={"angle_left": "left vectors (outputs)", "angle_right": "right vectors (inputs)"},
                x_label="number of the angle",
                y_label="angle, degrees",
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
    )

    def __post_init__(self) -> None:
        """Checks the fields."""
        super().__post_init__()
        for name in ("top", "ranks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"spectrum: {name} must be 1 or more, not {getattr(self, name)}")

    def plan(self, graph: Graph, options: EvalOptions) -> tuple[str, ...]:
        """Returns the names of the linear sites."""
        return tuple(site.name for site in linear_sites(graph))

    def read(self, batch: PairBatch, plan: tuple[str, ...]) -> Reading:
        """Returns the features' second moments [units, units] at both ends."""
        found: dict[str, Any] = {}
        for name in plan:
            site = batch.graph[name]
            both = [batch.layout.units(v.all, site)[0] for v in (batch.a, batch.b)]
            scales = [scale_of(h.reshape(1, -1))[0] for h in both]
            found[name] = tuple(
                Squares(jnp.matmul(h / s, (h / s).T, precision="highest"), s)
                for h, s in zip(both, scales, strict=True)
            )
        return Reading(found)

    def finish(self, totals: Totals) -> SpectrumResult:
        """Returns singular values and angles; decompositions are in float64."""
        names, n, graph = totals.plan, totals.samples, totals.graph
        of_weights = _map_pairs(_decompose, [
            [_as_matrix(graph, graph[name], weight) for weight in pair]
            for name, pair in zip(names, totals.weights(names), strict=True)
        ])  # fmt: skip
        moments = [[m / n for m in totals.sums[name]] for name in names]
        of_features = _map_pairs(_from_moments, moments)
        longest = max(len(s) for pair in (*of_weights, *of_features) for _, s, _ in pair)
        length = min(self.ranks, longest)
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
            table[name] = _pad([_angles(p[side], q[side], self.top) for p, q in kind], length)
        return SpectrumResult(
            layers=names,
            ranks=tuple(range(1, length + 1)),
            **table,
            samples=n,
            top=self.top,
            renormalise=totals.renormalise,
        )

    def summary_metrics(self, result: SpectrumResult) -> dict[str, float]:
        """Returns the median of the weights' left angles."""
        angles = np.asarray(result.angle_left)[:, : result.top]
        return {"angle": float(np.nanmedian(angles)) if np.isfinite(angles).any() else np.nan}


def effective_rank(singular_values: Float[np.ndarray, " k"]) -> float:
    """Returns exp of the entropy of the singular values as shares of their sum: at least 1."""
    total = singular_values.sum()
    if not total > 0:
        return float("nan")
    share = singular_values[singular_values > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))


def _map_pairs(
    decompose: Callable[[Float[np.ndarray, "m n"]], Decomposition],
    pairs: Sequence[Sequence[Float[np.ndarray, "m n"]]],
) -> list[list[Decomposition]]:
    """Returns the decompositions of both ends' matrices, of all layers.

    They run side by side, each on one BLAS thread: more threads for one matrix of this size double
    the CPU's time and bring nothing.
    """
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(decompose, [matrix for pair in pairs for matrix in pair]))
    return [[p, q] for p, q in zip(found[::2], found[1::2], strict=True)]


def _decompose(matrix: Float[np.ndarray, "m n"]) -> Decomposition:
    """Returns left vectors, singular values, right vectors (as columns)."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return u, s, vt.T


def _from_moments(moments: Float[np.ndarray, "units units"]) -> Decomposition:
    """Returns left vectors and singular values of H from H Hᵀ; there are no right ones."""
    if not np.isfinite(moments).all():  # the features overflowed
        return moments[:, :0], np.zeros(0), moments[:, :0]
    values, vectors = np.linalg.eigh(moments)
    values, vectors = values[::-1], vectors[:, ::-1]
    held = values > ROUNDING * values[0]
    return vectors[:, held], np.sqrt(values[held]), vectors[:, :0]


def _angles(
    p: Float[np.ndarray, "d k"], q: Float[np.ndarray, "d m"], top: int
) -> Float[np.ndarray, " angles"]:
    k = min(top, p.shape[1], q.shape[1])
    if not k:  # features that vanish span nothing
        return np.zeros(0)
    from scipy.linalg import subspace_angles

    return np.degrees(subspace_angles(p[:, :k], q[:, :k]))


def _pad(
    rows: Sequence[Float[np.ndarray, " k"]], length: int
) -> Float[np.ndarray, "rows {length}"]:
    out = np.full((len(rows), length), np.nan)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row[:length]
    return out


def _as_matrix(
    graph: Graph, site: Site, weight: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "outputs inputs"]:
    """Returns a weight as [units out, units in]."""
    eq, _, _ = operands(graph, site)
    if eq.name == "conv_general_dilated":
        out = (eq.params["dimension_numbers"].rhs_spec[0],)
    else:
        contract, batch = eq.params["dimension_numbers"]
        side = site.weight or 0
        out = tuple(i for i in range(weight.ndim) if i not in (*contract[side], *batch[side]))
    weight = np.moveaxis(weight, out, range(len(out)))
    return weight.reshape(int(np.prod(weight.shape[: len(out)])), -1)


def spectrum(
    network: Model,
    a: Model,
    b: Model,
    batches: Batches,
    options: EvalOptions | None = None,
    *,
    train_batches: Batches | None = None,
    progress: ProgressFn | None = None,
    **changes: object,
) -> SpectrumResult:
    """Measures spectra and subspace angles of every linear layer, in one pass over the data.

    Features enter through their second moments [units, units], which are summed over batches;
    decompositions are in float64 on the host.

    Args:
        network: a module of any framework, or `apply(variables, x) -> logits [n, classes]`.
        a: the mode that α multiplies.
        b: the other mode.
        batches: re-iterable pairs (x [n, ...], labels [n]).
        options: how the pair is measured; the defaults if None.
        train_batches: data for renormalising.
        progress: called as (batches done, batches in all or 0, words).
        **changes: fields of the options or of `Spectrum` that are to be other than said.

    Raises:
        ConfigError: an option that there is not, or that the measure cannot honour.
        ModeError: the modes are no pair.
        GraphError: the network has no linear layer.
        DataError: the data do not fit the network.

    Source: the LLFC paper, appendix B.5; Roy and Vetterli 2007 (effective rank).
    """
    return measure_pair(
        "spectrum", network, a, b, batches, options, train_batches, progress, changes
    )
