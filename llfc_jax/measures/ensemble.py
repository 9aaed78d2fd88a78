"""The output layer: Lemma 1 and the feature-space ensemble.

If LLFC holds at the logits, θ_α decides as the mixture of the ends' logits does, and that can err
only where one of the ends errs.
"""

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from llfc_jax.graph import Values
from llfc_jax.measures.batch import PairBatch, Reading
from llfc_jax.measures.evaluator import measure_pair
from llfc_jax.measures.measure import MIDDLE, Measure, Totals
from llfc_jax.measures.options import EvalOptions
from llfc_jax.measures.precision import wide
from llfc_jax.measures.registry import measure
from llfc_jax.report.charts import Chart, Section
from llfc_jax.results import Result, axes, labels, result, setting
from llfc_jax.tasks.task import fit_mask
from llfc_jax.types import Batches, Model, ProgressFn


@result
class EnsembleResult(Result):
    """θ_α beside the mixture of the ends' outputs, α f(a) + (1 - α) f(b).

    Where the task has no error rate, or no predictions, what needs them is NaN.

    Attributes:
        alphas: points on the line.
        error: error of θ_α [alphas].
        loss: its loss [alphas].
        ensemble_error: error of the mixed logits [alphas].
        ensemble_loss: their loss [alphas].
        disagreement: share of samples that θ_α and the mixed logits classify differently [alphas].
        error_a: error of the end a [].
        error_b: error of the end b [].
        bound: 2 max(error_a, error_b), Lemma 1's bound for θ_α where nothing disagrees [].
        samples: number of samples.
        renormalise: the kind of renormalisation.
    """

    alphas: tuple[float, ...] = labels("alpha")
    error: Any = axes("alphas")
    loss: Any = axes("alphas")
    ensemble_error: Any = axes("alphas")
    ensemble_loss: Any = axes("alphas")
    disagreement: Any = axes("alphas")
    error_a: Any = axes()
    error_b: Any = axes()
    bound: Any = axes()
    samples: int = setting()
    renormalise: str = setting("none")


@measure("ensemble")
@dataclasses.dataclass(frozen=True)
class Ensemble(Measure):
    """θ_α against the mixture of the ends' logits, along the line; ½ is always on the grid.

    It reads the logits alone, so `sites` does not bear on it.
    """

    always: ClassVar[tuple[float, ...]] = (MIDDLE,)
    uses: ClassVar[frozenset[str]] = frozenset(
        {"alphas", "extrapolate", "alpha_loop", "renormalise", "precision"}
    )
    columns: ClassVar[Mapping[str, str]] = {"disagreement": "differs from the ensemble"}
    section: ClassVar[Section] = Section(
        name="ensemble",
        title="The output layer: Lemma 1 and the ensemble",
        text=(
            "Three classifiers at each α: the network with interpolated weights, the "
            "ensemble that mixes the two networks' logits in the same shares, and the two "
            "networks themselves. If LLFC holds at the output, the first two decide "
            "alike, and both can err only where one of the ends errs: on no more than `2 "
            "ε` of the data, twice the error of the worse end (Lemma 1)."
        ),
        charts=(
            Chart(
                name="ensemble",
                title="Is the network between a and b as good as their ensemble?",
                caption="Error of the network with interpolated weights, and of the ensemble that "
                "mixes the logits of a and b in the same shares. Where LLFC holds at the output "
                "the two lie together, below the bound of Lemma 1.",
                x="alpha",
                y={
                    "error": "error of the interpolated network",
                    "ensemble_error": "error of the ensemble",
                    "disagreement": "share on which they disagree",
                    "bound": "2 ε (Lemma 1)",
                },
                x_label="α (0: network b, 1: network a)",
                y_label="share of samples",
            ),
            Chart(
                name="ensemble_loss",
                title="Loss of the network between a and b, and of their ensemble",
                caption="The network with interpolated weights, and the ensemble that mixes the "
                "outputs of a and b in the same shares. Where LLFC holds at the output the two lie "
                "together.",
                x="alpha",
                y={
                    "loss": "loss of the interpolated network",
                    "ensemble_loss": "loss of the ensemble",
                },
                x_label="α (0: network b, 1: network a)",
                y_label="loss",
                unless="error",
            ),
        ),
        columns={
            "alpha": "α",
            "error": "error of θ_α",
            "ensemble_error": "error of mixed logits",
            "disagreement": "they disagree on",
            "bound": "2 ε",
            "loss": "loss of θ_α",
            "ensemble_loss": "loss of mixed outputs",
        },
    )

    def read(self, batch: PairBatch, plan: Hashable) -> Reading:
        """Returns loss and right predictions of both classifiers, and where they disagree."""
        a, b = (jax.tree.map(wide, end.output) for end in (batch.a, batch.b))

        def at(alpha: jax.Array, values: Values) -> dict[str, Any]:
            mixed = jax.tree.map(lambda p, q: alpha * p + (1 - alpha) * q, a, b)
            return {
                "point": batch.judge(values.output),
                "mixed": batch.judge(mixed),
                "differ": _disagreement(batch, mixed, values.output),
            }

        return Reading(sums=(batch.judge(a), batch.judge(b)), on_line=at)

    def finish(self, totals: Totals) -> EnsembleResult:
        """Returns the two curves and Lemma 1's bound."""
        finish, nothing = totals.task.finish, np.full(len(totals.alphas), np.nan)
        point, mixed = (finish(totals.on_line[name]) for name in ("point", "mixed"))
        error_a, error_b = (finish(end).get("error", np.asarray(np.nan)) for end in totals.sums)
        return EnsembleResult(
            alphas=totals.alphas,
            error=point.get("error", nothing),
            loss=point["loss"],
            ensemble_error=mixed.get("error", nothing),
            ensemble_loss=mixed["loss"],
            disagreement=totals.on_line["differ"] / totals.on_line["point"]["count"],
            error_a=error_a,
            error_b=error_b,
            bound=2 * np.maximum(error_a, error_b),
            samples=int(totals.on_line["point"]["count"][0]),
            renormalise=totals.renormalise,
        )

    def summary_metrics(self, result: EnsembleResult) -> dict[str, float]:
        """Returns the largest share on which a θ_α and the mixture disagree."""
        return {"disagreement": float(np.max(result.disagreement))}


def _disagreement(batch: PairBatch, one: PyTree, other: PyTree) -> jax.Array:
    """Returns on how many elements two outputs predict otherwise; NaN if none does."""
    task, mask = batch.task, batch.layout.output_mask
    if task.predict is None:
        return jnp.asarray(jnp.nan)
    weight = task.weigh(batch.y, mask)
    differ = task.predict(one) != task.predict(other)
    return (differ * fit_mask(weight, differ.shape)).sum()


def ensemble(
    network: Model,
    a: Model,
    b: Model,
    batches: Batches,
    options: EvalOptions | None = None,
    *,
    train_batches: Batches | None = None,
    progress: ProgressFn | None = None,
    **changes: object,
) -> EnsembleResult:
    """Compares the interpolated network with the interpolated logits.

    That is f(θ_α; x) with α f(a; x) + (1 - α) f(b; x).
    With ε = max(error(a), error(b)), the mixed logits err on at most 2 ε of the data, since an
    argmax of a positive combination is wrong only where one of its parts is; so θ_α errs on at
    most 2 ε plus the share on which it disagrees with them (Lemma 1).

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

    Source: the LLFC paper, lemma 1.
    """
    return measure_pair(
        "ensemble", network, a, b, batches, options, train_batches, progress, changes
    )
