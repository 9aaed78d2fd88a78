"""Linear CKA and Procrustes distance: how alike are features up to a rotation of their units?"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from llfc_jax.graph import Graph
from llfc_jax.graph.queries import linear_sites
from llfc_jax.measures.accumulate import Covariance, covariance
from llfc_jax.measures.batch import PairBatch, Reading
from llfc_jax.measures.evaluator import measure_pair
from llfc_jax.measures.measure import MIDDLE, Measure, Totals
from llfc_jax.measures.options import EvalOptions
from llfc_jax.measures.registry import measure
from llfc_jax.measures.similarity import scale_of
from llfc_jax.report.charts import Chart, Section
from llfc_jax.results import Result, axes, labels, result, setting
from llfc_jax.types import Batches, Model, ProgressFn

# What is compared, as mixtures of the features of a, of b and of the middle.
A, B, MIXTURE, HALF = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.5, 0.5, 0.0), (0.0, 0.0, 1.0)
COMPARED = {"a, b": (A, B), "middle, a": (HALF, A), "middle, b": (HALF, B),
            "middle, mixture": (HALF, MIXTURE)}  # fmt: skip


@result
class CKAResult(Result):
    """Features of the ends, of the middle (a + b) / 2 and their mixture, up to rotations.

    Features are those of the linear layers, centred, a row per unit and a column per sample (and
    position). No permutation, rotation or common scale of the units changes these numbers.

    Attributes:
        layers: names of the linear sites.
        compared: what is compared.
        cka: linear CKA, 1 where features agree up to a rotation and a scale [layers, compared].
        procrustes: 2 - 2 |X Yᵀ|_* of features of length 1: 0 where a rotation takes one to the
            other, at most 2 [layers, compared].
        samples: number of rows.
    """

    layers: tuple[str, ...] = labels("layer")
    compared: tuple[str, ...] = labels("compared")
    cka: Any = axes("layers", "compared")
    procrustes: Any = axes("layers", "compared")
    samples: int = setting()


@measure("cka")
@dataclasses.dataclass(frozen=True)
class CKA(Measure):
    """Linear CKA and Procrustes distance of every linear layer, at the ends and the middle.

    It visits no other α and reads every linear layer, so neither the grid nor `sites` bears on it.
    It is taken where it is named: `measures=["cka"]`.
    """

    by_default: ClassVar[bool] = False
    uses: ClassVar[frozenset[str]] = frozenset({"precision", "per"})
    refuses: ClassVar[Mapping[str, str]] = {
        "renormalise": "it runs the middle of its own, which is not renormalised"
    }
    columns: ClassVar[Mapping[str, str]] = {
        "cka_ends": "CKA of a and b",
        "cka_middle": "CKA of middle and mixture",
    }
    section: ClassVar[Section] = Section(
        name="cka",
        title="Features up to a rotation",
        text=(
            "A cosine between features knows which unit is which. Linear CKA and the Procrustes "
            "distance do not: they ask whether the features of one network can be rotated (or "
            "permuted) into those of another. Where a and b have a CKA near 1 and a cosine far "
            "from 1, they have learnt alike, in other units, and a permutation or a rotation may "
            "align them."
        ),
        charts=(
            Chart(
                name="cka_layers",
                title="Do the networks have the same features, up to a rotation?",
                caption="Linear CKA of every linear layer: 1 where features agree up to a rotation "
                "and a scale.",
                x="layer",
                y={"cka": "linear CKA"},
                x_label="layer, input to output",
                y_label="linear CKA",
                lines="compared",
            ),
            Chart(
                name="procrustes_layers",
                title="How far apart does the best rotation leave them?",
                caption="Procrustes distance of every linear layer's features, centred and of "
                "length 1: 0 where a rotation takes one to the other.",
                x="layer",
                y={"procrustes": "Procrustes distance"},
                x_label="layer, input to output",
                y_label="distance",
                lines="compared",
            ),
        ),
        columns={
            "layer": "layer",
            "compared": "compared",
            "cka": "linear CKA",
            "procrustes": "Procrustes distance",
        },
    )

    def plan(self, graph: Graph, options: EvalOptions) -> tuple[str, ...]:
        """Returns the names of the linear sites."""
        return tuple(site.name for site in linear_sites(graph))

    def read(self, batch: PairBatch, plan: tuple[str, ...]) -> Reading:
        """Returns the covariance of all units of a, b and the middle, of every layer."""
        middle = batch.graph.evaluate(batch.curve.at(MIDDLE), batch.x)
        found = {}
        for name in plan:
            site = batch.graph[name]
            units = [batch.layout.units(run.all, site) for run in (batch.a, batch.b, middle)]
            rows = jnp.concatenate([rows for rows, _ in units])
            found[name] = covariance(rows, units[0][1], scale_of(rows.reshape(1, -1))[0])
        return Reading(found)

    def finish(self, totals: Totals) -> CKAResult:
        """Returns both numbers of every layer, from covariances, in float64."""
        found = np.array([
            [compare_covariances(totals.sums[name], *pair) for pair in COMPARED.values()]
            for name in totals.plan
        ])  # fmt: skip
        return CKAResult(
            layers=totals.plan,
            compared=tuple(COMPARED),
            cka=found[..., 0],
            procrustes=found[..., 1],
            samples=totals.samples,
        )

    def summary_metrics(self, result: CKAResult) -> dict[str, float]:
        """Returns the CKA of the ends, and of middle and mixture, in the median layer."""
        cka = np.asarray(result.cka)
        columns = {"cka_ends": "a, b", "cka_middle": "middle, mixture"}
        return {
            column: float(np.nanmedian(cka[:, result.compared.index(pair)]))
            if np.isfinite(cka[:, result.compared.index(pair)]).any()
            else float("nan")
            for column, pair in columns.items()
        }


def compare_covariances(
    joint: Covariance, p: tuple[float, ...], q: tuple[float, ...]
) -> tuple[float, float]:
    """Returns linear CKA and Procrustes distance of two mixtures of stacked features.

    With C_pq the covariance of p's units with q's,

        CKA = |C_pq|² / (|C_pp| |C_qq|),   procrustes = 2 - 2 |C_pq|_* / √(tr C_pp tr C_qq),

    in Frobenius and nuclear norms. NaN where features do not vary.

    Args:
        joint: covariance of the units of all features, stacked.
        p: how much of each of them enters into one.
        q: the same of the other.
    """
    parts = len(p)
    units = len(joint.mean) // parts
    blocks = np.asarray(joint.products).reshape(parts, units, parts, units)

    def between(u: tuple[float, ...], v: tuple[float, ...]) -> Float[np.ndarray, "units units"]:
        return np.einsum("i,iujv,j->uv", u, blocks, v)

    pp, qq, pq = between(p, p), between(q, q), between(p, q)
    sizes = np.linalg.norm(pp) * np.linalg.norm(qq), np.trace(pp) * np.trace(qq)
    if not all(np.isfinite(size) and size > 0 for size in sizes):
        return float("nan"), float("nan")
    nuclear = np.linalg.svd(pq, compute_uv=False).sum()
    return float((pq**2).sum() / sizes[0]), float(max(0.0, 2 - 2 * nuclear / np.sqrt(sizes[1])))


def cka(
    network: Model,
    a: Model,
    b: Model,
    batches: Batches,
    options: EvalOptions | None = None,
    *,
    train_batches: Batches | None = None,
    progress: ProgressFn | None = None,
    **changes: object,
) -> CKAResult:
    """Measures linear CKA and Procrustes distance of every linear layer, in one pass.

    Args:
        network: a module of any framework, or a function `apply(variables, x)`.
        a: the mode that α multiplies.
        b: the other mode.
        batches: re-iterable batches (x, targets).
        options: how the pair is measured; the defaults if None.
        train_batches: not used.
        progress: called as (batches done, batches in all or 0, words).
        **changes: fields of the options that are to be other than said.

    Raises:
        ConfigError: an option that there is not, or that the measure cannot honour.
        ModeError: the modes are no pair.
        GraphError: the network has no linear layer.
        DataError: the data do not fit the network.

    Source: Kornblith et al. 2019, "Similarity of neural network representations revisited"; Ding,
    Denain, Steinhardt 2021, "Grounding representation similarity through statistical testing".
    """
    return measure_pair("cka", network, a, b, batches, options, train_batches, progress, changes)
