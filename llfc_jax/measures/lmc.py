"""Linear mode connectivity: loss and error along the straight line between two modes."""

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from llfc_jax.graph import Values
from llfc_jax.measures.batch import PairBatch, Reading
from llfc_jax.measures.classification import better_than_chance, count_classes, loss_and_right
from llfc_jax.measures.evaluator import measure_pair
from llfc_jax.measures.measure import Measure, Totals
from llfc_jax.measures.options import EvalOptions
from llfc_jax.measures.registry import measure
from llfc_jax.report.charts import Chart, Section
from llfc_jax.results import Result, axes, labels, result, setting
from llfc_jax.types import Batches, Model, ProgressFn

ENDS_AND_MIDDLE = (0.0, 0.5, 1.0)


@result
class LMCResult(Result):
    """Loss and error of θ_α, over one data set.

    Attributes:
        alphas: the grid; 0, ½ and 1 are always on it, since the barriers need them.
        loss: mean cross-entropy [alphas].
        accuracy: share of samples classified rightly [alphas].
        error: 1 - accuracy [alphas].
        above_chance: whether both ends do better than always naming the most frequent class; if
            not, a low barrier means nothing [].
        samples: number of samples.
        renormalise: the kind of renormalisation.
    """

    alphas: tuple[float, ...] = labels("alpha")
    loss: Any = axes("alphas")
    accuracy: Any = axes("alphas")
    error: Any = axes("alphas")
    above_chance: Any = axes()
    samples: int = setting()
    renormalise: str = setting("none")

    def barriers(self, of: str = "error") -> dict[str, float]:
        """Returns how far θ_α rises above its ends, three ways (the LLFC paper, definition 1).

        With E the `error` or `loss`:

        - `max`: max_α E(θ_α) - ½ (E(a) + E(b)) (Frankle et al. 2020);
        - `linear`: max_α E(θ_α) - (α E(a) + (1 - α) E(b)) (Entezari et al. 2022);
        - `midpoint`: E(θ_½) - ½ (E(a) + E(b)) (Adilova et al. 2024).

        Only α in [0, 1] counts.
        """
        alphas = np.asarray(self.alphas)
        inside = (alphas >= 0) & (alphas <= 1)
        curve, alphas = np.asarray(getattr(self, of))[inside], alphas[inside]
        b, middle, a = (float(curve[alphas == end][0]) for end in ENDS_AND_MIDDLE)
        return {
            "max": float(np.max(curve)) - (a + b) / 2,
            "linear": float(np.max(curve - (alphas * a + (1 - alphas) * b))),
            "midpoint": middle - (a + b) / 2,
        }

    def records(self) -> list[dict[str, Any]]:
        """Returns rows per α, the barriers of the whole curve repeated in each."""
        extra = {
            f"{of}_barrier_{kind}": value
            for of in ("loss", "error")
            for kind, value in self.barriers(of).items()
        }
        return [row | extra for row in super().records()]


@measure("lmc")
@dataclasses.dataclass(frozen=True)
class LMC(Measure):
    """Loss and error of θ_α; the grid always holds 0, ½ and 1, which the barriers need.

    It reads no features, so `sites` does not bear on it.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    always: ClassVar[tuple[float, ...]] = ENDS_AND_MIDDLE
    uses: ClassVar[frozenset[str]] = frozenset(
        {"alphas", "extrapolate", "alpha_loop", "renormalise", "precision"}
    )
    columns: ClassVar[Mapping[str, str]] = {
        "error_a": "error of a",
        "error_b": "error of b",
        "error_barrier": "error barrier",
        "loss_barrier": "loss barrier",
    }
    section: ClassVar[Section] = Section(
        name="lmc",
        title="Linear mode connectivity",
        text=(
            "Two trained networks are linearly mode connected when every network on the "
            "straight line between their weights works about as well as they do. The "
            "curve shows the network at each point `α a + (1 - α) b`: its right end is "
            "network a, its left end network b. A hump is a barrier; a flat curve has "
            "none.\n\n"
            "The barrier in the summary is the highest point of the curve minus the mean "
            "of its two ends. The table also has the barrier above the straight line "
            "between the ends (`linear`) and at α = ½ alone (`midpoint`)."
        ),
        charts=(
            Chart(
                name="lmc_error",
                title="Error along the line between the networks",
                caption="Share of samples that the network with the weights α a + (1 - α) b "
                "classifies wrongly. Flat: linearly mode connected; a hump is a barrier.",
                x="alpha",
                y={"error": "error"},
                x_label="α (0: network b, 1: network a)",
                y_label="error (share of samples)",
                lines="split",
            ),
            Chart(
                name="lmc_loss",
                title="Loss along the line between the networks",
                caption="Cross-entropy of the network with the weights α a + (1 - α) b.",
                x="alpha",
                y={"loss": "loss"},
                x_label="α (0: network b, 1: network a)",
                y_label="loss",
                lines="split",
            ),
        ),
        columns={
            "split": "data",
            "alpha": "α",
            "loss": "loss",
            "error": "error",
            "accuracy": "accuracy",
        },
    )

    def read(self, batch: PairBatch, plan: Hashable) -> Reading:
        """Returns summed loss and right predictions along the line."""

        def at(alpha: jax.Array, values: Values) -> tuple[jax.Array, jax.Array]:
            return loss_and_right(values.output, batch.y, batch.mask)

        classes = count_classes(batch.y, batch.mask, batch.a.output.shape[1])
        return Reading(classes, on_line=at)

    def finish(self, totals: Totals) -> LMCResult:
        """Returns the curve."""
        loss, right = (total / totals.samples for total in totals.on_line)
        ends = [float(right[totals.alphas.index(end)]) for end in (1.0, 0.0)]
        return LMCResult(
            alphas=totals.alphas,
            loss=loss,
            accuracy=right,
            error=1 - right,
            above_chance=np.asarray(better_than_chance(ends, totals.sums, totals.samples)),
            samples=totals.samples,
            renormalise=totals.renormalise,
        )

    def summary_metrics(self, result: LMCResult) -> dict[str, float | bool]:
        """Returns the error of both ends, the barriers (`max`), and the error barrier at ½."""
        error = np.asarray(result.error)
        return {
            "error_a": float(error[result.alphas.index(1.0)]),
            "error_b": float(error[result.alphas.index(0.0)]),
            "error_barrier": result.barriers("error")["max"],
            "midpoint_barrier": result.barriers("error")["midpoint"],
            "above_chance": bool(result.above_chance),
            "loss_barrier": result.barriers("loss")["max"],
        }


def lmc(
    network: Model,
    a: Model,
    b: Model,
    batches: Batches,
    options: EvalOptions | None = None,
    *,
    train_batches: Batches | None = None,
    progress: ProgressFn | None = None,
    **changes: object,
) -> LMCResult:
    """Measures linear mode connectivity in one pass over the data.

    θ_α = α a + (1 - α) b: α = 1 is `a`, α = 0 is `b`.

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

    Source: the LLFC paper, definition 1; Frankle et al. 2020.
    """
    return measure_pair("lmc", network, a, b, batches, options, train_batches, progress, changes)
