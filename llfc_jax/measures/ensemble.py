"""The output layer: Lemma 1 and the feature-space ensemble.

If LLFC holds at the logits, θ_α decides as the mixture of the ends' logits does, and that can err
only where one of the ends errs.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from llfc_jax.measures.accumulate import Batches
from llfc_jax.measures.evaluator import ALPHAS, Step, line
from llfc_jax.measures.lmc import loss_and_right
from llfc_jax.measures.measure import Measure
from llfc_jax.results import Chart, Result, Section, axes, labels, result, setting


@result
class Ensemble(Result):
    """θ_α beside the mixture of the ends' logits, α f(a) + (1 - α) f(b).

    Attributes:
        alphas: points on the line.
        error: error of θ_α [alphas].
        loss: its cross-entropy [alphas].
        ensemble_error: error of the mixed logits [alphas].
        ensemble_loss: their cross-entropy [alphas].
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


def ensemble(
    apply: Any,
    a: Any,
    b: Any,
    batches: Batches,
    *,
    alphas: Sequence[float] = ALPHAS,
    **options: Any,
) -> Ensemble:
    """Compare the interpolated network with the interpolated logits.

    That is f(θ_α; x) with α f(a; x) + (1 - α) f(b; x).
    With ε = max(error(a), error(b)), the mixed logits err on at most 2 ε of the data, since an
    argmax of a positive combination is wrong only where one of its parts is; so θ_α errs on at
    most 2 ε plus the share on which it disagrees with them (Lemma 1).

    Args:
        apply: `apply(variables, x) -> logits [n, classes]`.
        a: variables of the mode that α multiplies.
        b: variables of the other mode.
        batches: re-iterable pairs (x, labels).
        alphas: points on the line.
        **options: of `line`.

    Raises:
        ModeError: the modes are no pair, or the grid is none.
        DataError: the data do not fit the network.
    """
    path = line(apply, a, b, batches, alphas=alphas, **options)
    sums = path.fold(_kernel, batches, options.get("progress"), "output layer")
    n = sums["samples"]
    loss, right, mixed_loss, mixed_right, differ = (x / n for x in sums["line"])
    error_a, error_b = (np.asarray(1 - x / n) for x in sums["ends"])
    bound = 2 * np.maximum(error_a, error_b)
    return Ensemble(
        path.alphas,
        1 - right,
        loss,
        1 - mixed_right,
        mixed_loss,
        differ,
        error_a,
        error_b,
        bound,
        int(n),
        path.renormalise,
    )


def _kernel(step: Step) -> dict[str, Any]:
    a, b = step.a.output, step.b.output

    def at(alpha: jax.Array, values: Any) -> tuple[jax.Array, ...]:
        mixed = alpha * a + (1 - alpha) * b
        differ = ((mixed.argmax(-1) != values.output.argmax(-1)) * step.weight).sum()
        own = loss_and_right(values.output, step.y, step.weight)
        return (*own, *loss_and_right(mixed, step.y, step.weight), differ)

    return {
        "line": step.walk(at),
        "ends": tuple(loss_and_right(out, step.y, step.weight)[1] for out in (a, b)),
        "samples": step.weight.sum(),
    }


def _headline(of: Ensemble) -> dict[str, Any]:
    return {"disagreement": float(np.max(of.disagreement))}


MEASURE = Measure(
    run=lambda s: ensemble(s.apply, s.a, s.b, s.batches, alphas=s.alphas, **s.line_options),
    section=Section(
        name="ensemble",
        title="The output layer: Lemma 1 and the ensemble",
        text=(
            "Three classifiers at each α: the network with interpolated weights, the mixture of "
            "the two networks' logits (an ensemble in feature space), and the two networks "
            "themselves. If linear feature connectivity holds at the output, the first two decide "
            "alike, and both can err only where one of the ends errs: never on more than "
            "`2 ε` of the data, twice the error of the worse end (Lemma 1)."
        ),
        charts=(
            Chart(
                name="ensemble",
                title="Interpolated weights against interpolated logits",
                caption="Where LLFC holds at the output the first two lines lie together and "
                "below Lemma 1's bound.",
                x="alpha",
                y={
                    "error": "error of θ_α",
                    "ensemble_error": "error of the mixed logits",
                    "disagreement": "share on which they disagree",
                    "bound": "2 ε (Lemma 1)",
                },
                x_label="α (0: network b, 1: network a)",
                y_label="share of samples",
            ),
        ),
        columns={
            "alpha": "α",
            "error": "error of θ_α",
            "ensemble_error": "error of mixed logits",
            "disagreement": "they disagree on",
            "bound": "2 ε",
        },
    ),
    headline=_headline,
    columns={"disagreement": "disagrees with the mixed logits"},
)
