"""Linear mode connectivity: loss and error along the straight line between two modes."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from llfc_jax.measures.accumulate import Batches
from llfc_jax.measures.evaluator import ALPHAS, Step, check_alphas, line
from llfc_jax.measures.measure import Measure
from llfc_jax.results import Chart, Result, Section, axes, labels, result, setting

ENDS = (0.0, 0.5, 1.0)


@result
class LMC(Result):
    """Loss and error of θ_α, over one data set.

    Attributes:
        alphas: the grid; 0, ½ and 1 are always on it, since the barriers need them.
        loss: mean cross-entropy [alphas].
        accuracy: share of samples classified rightly [alphas].
        error: 1 - accuracy [alphas].
        samples: number of samples.
        renormalise: the kind of renormalisation.
    """

    alphas: tuple[float, ...] = labels("alpha")
    loss: Any = axes("alphas")
    accuracy: Any = axes("alphas")
    error: Any = axes("alphas")
    samples: int = setting()
    renormalise: str = setting("none")

    def barriers(self, of: str = "error") -> dict[str, float]:
        """How far θ_α rises above its ends, three ways (the LLFC paper, definition 1).

        With E the `error` or `loss`:

        - `max`: max_α E(θ_α) - ½ (E(a) + E(b)) (Frankle et al. 2020);
        - `linear`: max_α E(θ_α) - (α E(a) + (1 - α) E(b)) (Entezari et al. 2022);
        - `midpoint`: E(θ_½) - ½ (E(a) + E(b)) (Adilova et al. 2024).

        Only α in [0, 1] counts.
        """
        alphas = np.asarray(self.alphas)
        inside = (alphas >= 0) & (alphas <= 1)
        curve, alphas = np.asarray(getattr(self, of))[inside], alphas[inside]
        b, middle, a = (float(curve[alphas == end][0]) for end in ENDS)
        return {
            "max": float(np.max(curve)) - (a + b) / 2,
            "linear": float(np.max(curve - (alphas * a + (1 - alphas) * b))),
            "midpoint": middle - (a + b) / 2,
        }

    def records(self) -> list[dict[str, Any]]:
        """Rows per α, the barriers of the whole curve repeated in each."""
        extra = {
            f"{of}_barrier_{kind}": value
            for of in ("loss", "error")
            for kind, value in self.barriers(of).items()
        }
        return [row | extra for row in super().records()]


def lmc(
    apply: Any,
    a: Any,
    b: Any,
    batches: Batches,
    *,
    alphas: Sequence[float] = ALPHAS,
    **options: Any,
) -> LMC:
    """Measure linear mode connectivity in one pass over the data.

    θ_α = α a + (1 - α) b: α = 1 is `a`, α = 0 is `b`.

    Args:
        apply: `apply(variables, x) -> logits [n, classes]`.
        a: variables of the mode that α multiplies.
        b: variables of the other mode.
        batches: re-iterable pairs (x [n, ...], labels [n]).
        alphas: grid; 0, ½ and 1 are added to it.
        **options: of `line`: `outside`, `over`, `renormalise`, `train_batches`, `progress`.

    Raises:
        ModeError: the modes are no pair, or the grid is none.
        DataError: the data do not fit the network.

    Source: the LLFC paper, definition 1; Frankle et al. 2020.
    """
    grid = check_alphas(alphas, outside=options.get("outside", False))
    path = line(apply, a, b, batches, alphas=(*grid, *ENDS), **options)
    sums = path.fold(_kernel, batches, options.get("progress"), "loss along the line")
    n = sums["samples"]
    right = sums["right"] / n
    return LMC(path.alphas, sums["loss"] / n, right, 1 - right, int(n), path.renormalise)


def _kernel(step: Step) -> dict[str, Any]:
    def at(alpha: jax.Array, values: Any) -> tuple[jax.Array, jax.Array]:
        return loss_and_right(values.output, step.y, step.weight)

    loss, right = step.walk(at)
    return {"loss": loss, "right": right, "samples": step.weight.sum()}


def loss_and_right(logits: Any, y: Any, weight: Any) -> tuple[jax.Array, jax.Array]:
    """Summed cross-entropy and number of right predictions of a batch; NaN predicts nothing."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    right = (logits.argmax(-1) == y) & ~jnp.isnan(logits).any(-1)
    return (losses * weight).sum(), (right * weight).sum()


def _headline(of: LMC) -> dict[str, Any]:
    error, loss = of.barriers("error"), of.barriers("loss")
    ends = [float(np.asarray(of.error)[of.alphas.index(end)]) for end in (1.0, 0.0)]
    return {
        "error_a": ends[0],
        "error_b": ends[1],
        "error_barrier": error["max"],
        "loss_barrier": loss["max"],
    }


MEASURE = Measure(
    run=lambda s: lmc(s.apply, s.a, s.b, s.batches, alphas=s.alphas, **s.line_options),
    section=Section(
        name="lmc",
        title="Linear mode connectivity",
        text=(
            "Two trained networks are linearly mode connected when every network on the straight "
            "line between their weights works about as well as they do. The curve shows the "
            "network at each point `α a + (1 - α) b`: its right end is network a, its left end "
            "network b. A hump is a barrier; a flat line means the two stand in one valley.\n\n"
            "The barrier in the summary is the highest point of the curve minus the mean of its "
            "two ends. The table also holds it measured against the straight line between the "
            "ends (`linear`) and at the middle alone (`midpoint`)."
        ),
        charts=(
            Chart(
                name="lmc_error",
                title="Error along the line",
                caption="Error of the interpolated network. Flat: linearly mode connected. "
                "A hump: a barrier.",
                x="alpha",
                y={"error": "error"},
                x_label="α (0: network b, 1: network a)",
                y_label="error",
                lines="split",
            ),
            Chart(
                name="lmc_loss",
                title="Loss along the line",
                caption="Cross-entropy of the interpolated network.",
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
    ),
    headline=_headline,
    columns={
        "error_a": "error of a",
        "error_b": "error of b",
        "error_barrier": "error barrier",
        "loss_barrier": "loss barrier",
    },
    splits=("train", "test"),
)
