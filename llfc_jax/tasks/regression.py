"""Regression: targets are numbers."""

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from llfc_jax.errors import ConfigError, DataError, unknown
from llfc_jax.tasks.registry import task
from llfc_jax.tasks.task import Pooled, Task, fit_mask
from llfc_jax.types import Totals


def _gap(outputs: Array, targets: Array) -> Float[Array, "n ..."]:
    """Returns outputs - targets; a single output [n, 1] may stand for targets [n]."""
    if outputs.ndim == targets.ndim + 1 and outputs.shape[-1] == 1:
        outputs = outputs[..., 0]
    if outputs.shape != targets.shape:
        raise DataError(
            f"regression needs outputs and targets of one shape, not {outputs.shape} and "
            f"{targets.shape}"
        )
    return outputs - targets


def squared_error(outputs: Array, targets: Array, mask: Array) -> Float[Array, "n ..."]:
    """Returns the squared error of each number."""
    return _gap(outputs, targets) ** 2


def absolute_error(outputs: Array, targets: Array, mask: Array) -> Float[Array, "n ..."]:
    """Returns the absolute error of each number."""
    return jnp.abs(_gap(outputs, targets))


def _spread_sums(outputs: Array, targets: Array, mask: Array) -> tuple[Array, ...]:
    """Returns count, sum and sum of squares of the targets, and the summed squared error."""
    weight, gap = fit_mask(mask, targets.shape), _gap(outputs, targets)
    wide = targets.astype(gap.dtype)
    parts = (jnp.ones_like(gap), wide, wide**2, gap**2)
    return tuple((jnp.where(weight > 0, part, 0) * weight).sum(0) for part in parts)


def _variance(totals: Totals) -> Any:
    count, total, squares, _ = totals
    return np.maximum(squares - total**2 / count, 0)


def _determination(totals: Totals, count: np.ndarray) -> Any:
    """Returns R², of all outputs of the data set together, each about its own mean."""
    spread, off = np.asarray(_variance(totals)), np.asarray(totals[3])
    of_outputs = tuple(range(np.ndim(count), off.ndim))
    return 1 - off.sum(of_outputs) / spread.sum(of_outputs)


def _predict_mean(totals: Totals, count: np.ndarray) -> dict[str, float]:
    variance = float(np.sum(_variance(totals)) / count)
    return {"squared": variance, "absolute": float(np.sqrt(variance))}


def _mean_squared(totals: Totals, count: np.ndarray) -> dict[str, float]:
    return {"loss": _predict_mean(totals, count)["squared"]}


def _mean_absolute(totals: Totals, count: np.ndarray) -> dict[str, float]:
    return {"loss": _predict_mean(totals, count)["absolute"]}


LOSSES = {"squared": squared_error, "absolute": absolute_error}


@task("regression")
def regression(loss: Literal["squared", "absolute"] = "squared") -> Task:
    """Outputs and targets are numbers, [n] or [n, ...] alike; outputs [n, 1] fit targets [n].

    Metrics: the mean absolute error (`mae`), the mean squared one (`mse`), and the coefficient of
    determination (`r2`). The trivial predictor gives the targets' mean; its
    absolute error is taken as their deviation, which is never below it.

    Args:
        loss: "squared" or "absolute" error, its mean.

    Raises:
        ConfigError: another loss.
    """
    if loss not in LOSSES:
        raise ConfigError(unknown("loss of regression", loss, LOSSES))
    squared = loss == "squared"
    return Task(
        LOSSES[loss],
        (
            ("mae", absolute_error),
            ("mse", squared_error),
            ("r2", Pooled(_spread_sums, _determination)),
        ),
        trivial=Pooled(_spread_sums, _mean_squared if squared else _mean_absolute),
        columns={"mae": "mean absolute error", "mse": "mean squared error", "r2": "R²"},
        name="regression",
        options={} if squared else {"loss": loss},
    )
