"""Linear mode connectivity: loss and error along the straight line between two modes."""

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from llfc_jax.graph import Values
from llfc_jax.measures.batch import PairBatch, Reading
from llfc_jax.measures.evaluator import measure_pair
from llfc_jax.measures.measure import Measure, Totals
from llfc_jax.measures.options import EvalOptions
from llfc_jax.measures.registry import measure
from llfc_jax.report.charts import Chart, Section
from llfc_jax.results import Result, axes, labels, result, setting, tables
from llfc_jax.types import Batches, Model, ProgressFn

ENDS_AND_MIDDLE = (0.0, 0.5, 1.0)


@result
class LMCResult(Result):
    """Loss and error of θ_α, over one data set.

    Attributes:
        alphas: the grid; 0, ½ and 1 are always on it, since the barriers need them.
        loss: mean loss over samples, tokens or pixels [alphas].
        accuracy: share predicted rightly; NaN where the task has no such thing [alphas].
        error: 1 - accuracy [alphas].
        trivial: loss of a predictor that does not see the input; NaN where none is known [].
        above_chance: whether both ends do better than that; if not, a low barrier means
            nothing [].
        samples: number of samples, or of what else the loss is a mean over.
        renormalise: the kind of renormalisation.
        task: name of the task.
        main: "error" or "loss", in which the barrier is stated.
        metrics: the task's other metrics, by name [alphas].
    """

    alphas: tuple[float, ...] = labels("alpha")
    loss: Any = axes("alphas")
    accuracy: Any = axes("alphas")
    error: Any = axes("alphas")
    trivial: Any = axes()
    above_chance: Any = axes()
    samples: int = setting()
    renormalise: str = setting("none")
    task: str = setting("classification")
    main: str = setting("error")
    metrics: Any = tables("alphas")

    def barriers(self, of: str = "error") -> dict[str, float]:
        """Returns how far θ_α rises above its ends, three ways (the LLFC paper, definition 1).

        With E the `error`, the `loss` or another metric of the task:

        - `max`: max_α E(θ_α) - ½ (E(a) + E(b)) (Frankle et al. 2020);
        - `linear`: max_α E(θ_α) - (α E(a) + (1 - α) E(b)) (Entezari et al. 2022);
        - `midpoint`: E(θ_½) - ½ (E(a) + E(b)) (Adilova et al. 2024).

        Only α in [0, 1] counts.
        """
        alphas = np.asarray(self.alphas)
        inside = (alphas >= 0) & (alphas <= 1)
        curve = self.metrics[of] if of in self.metrics else getattr(self, of)
        curve, alphas = np.asarray(curve)[inside], alphas[inside]
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
        "error_a": "error of a (share)",
        "error_b": "error of b (share)",
        "error_barrier": "error barrier (share)",
        "loss_barrier": "loss barrier",
    }
    other_columns: ClassVar[Mapping[str, str]] = {"loss_a": "loss of a", "loss_b": "loss of b"}
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
                caption="Mean loss of the network with the weights α a + (1 - α) b.",
                x="alpha",
                y={"loss": "loss"},
                x_label="α (0: network b, 1: network a)",
                y_label="loss",
                lines="split",
            ),
            Chart(
                name="lmc_aligned",
                title="Loss along the line, before and after alignment",
                caption="Mean loss of the network with the weights α a + (1 - α) b, a line for "
                "each way in which b was aligned with a.",
                x="alpha",
                y={"loss": "loss"},
                x_label="α (0: network b, 1: network a)",
                y_label="loss",
                lines="align",
                panels=("pair", "split"),
                compares=True,
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
        """Returns the task's sums along the line."""

        def at(alpha: jax.Array, values: Values) -> dict[str, Any]:
            return batch.judge(values.output)

        return Reading(batch.trivial(), on_line=at)

    def finish(self, totals: Totals) -> LMCResult:
        """Returns the curve."""
        task, found = totals.task, totals.task.finish(totals.on_line)
        count = float(totals.on_line["count"][0])
        places = [totals.alphas.index(end) for end in (1.0, 0.0)]
        ends = [{name: curve[i] for name, curve in found.items()} for i in places]
        trivial = task.trivial_values(totals.sums, count)
        nothing = np.full(len(totals.alphas), np.nan)
        return LMCResult(
            alphas=totals.alphas,
            loss=found.pop("loss"),
            accuracy=found.pop("accuracy", nothing),
            error=found.pop("error", nothing),
            trivial=np.asarray(trivial["loss"]),
            above_chance=np.asarray(task.is_informative(ends, trivial, count)),
            samples=int(count),
            renormalise=totals.renormalise,
            task=task.name,
            main=task.main,
            metrics=found,
        )

    def summary_metrics(self, result: LMCResult) -> dict[str, float | bool]:
        """Returns error (or loss) of both ends, the barriers (`max`), and the barrier at ½.

        A barrier of the loss at ½ is given as it is, and as a share of the way from the ends' mean
        to the trivial predictor's loss (`barrier_share`), or of the ends' mean where none is known.
        """
        main, curve = result.main, np.asarray(getattr(result, result.main))
        a, b = (float(curve[result.alphas.index(end)]) for end in (1.0, 0.0))
        barrier = result.barriers(main)
        found: dict[str, float | bool] = {
            f"{main}_a": a,
            f"{main}_b": b,
            f"{main}_barrier": barrier["max"],
            "midpoint_barrier": barrier["midpoint"],
            "above_chance": bool(result.above_chance),
            "loss_barrier": result.barriers("loss")["max"],
        }
        if main == "loss":
            ends, trivial = (a + b) / 2, float(result.trivial)
            way = abs(ends) if np.isnan(trivial) else trivial - ends
            share = barrier["midpoint"] / way if way > 0 else float("nan")
            found |= {"barrier_share": share, "loss_trivial": trivial}
        return found


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
