"""The activation functions that have a name, recognised by what they give."""

import math
from collections.abc import Callable

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]
_erf = np.vectorize(math.erf, otypes=[float])

# Spread unevenly, so that no periodic or polynomial function passes for another.
POINTS = np.concatenate([np.linspace(-7.9, 7.7, 37), [-25.0, -12.3, -1e-3, 0.0, 2e-3, 11.7, 24.0]])


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def _softplus(z: np.ndarray) -> np.ndarray:
    return np.logaddexp(z, 0)


KNOWN: dict[str, tuple[Function, ...]] = {
    "relu": (lambda z: np.maximum(z, 0),),
    "relu6": (lambda z: np.clip(z, 0, 6),),
    "gelu": (
        lambda z: z / 2 * (1 + _erf(z / math.sqrt(2))),
        lambda z: z / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
    ),
    "quick_gelu": (lambda z: z * _sigmoid(1.702 * z),),
    "silu": (lambda z: z * _sigmoid(z),),
    "sigmoid": (_sigmoid,),
    "tanh": (np.tanh,),
    "softplus": (_softplus,),
    "selu": (lambda z: 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * np.expm1(z)),),
    "mish": (lambda z: z * np.tanh(_softplus(z)),),
    "hard_swish": (lambda z: z * np.clip(z + 3, 0, 6) / 6,),
    "hard_sigmoid": (lambda z: np.clip(z + 3, 0, 6) / 6,),
    "hard_tanh": (lambda z: np.clip(z, -1, 1),),
    "softsign": (lambda z: z / (1 + np.abs(z)),),
    "log_sigmoid": (lambda z: -_softplus(-z),),
    "squared_relu": (lambda z: np.maximum(z, 0) ** 2,),
    "sin": (np.sin,),
}


def name_function(values: np.ndarray, eps: float) -> str | None:
    """Returns the name of the function that gives these values at `POINTS`; None where none does.

    Slopes and bounds are free: `leaky_relu` of any slope below 1, `elu` of any scale,
    `clipped_relu` at any bound.

    Args:
        values: one per point.
        eps: rounding of the constants in the network, which are held in its own precision.
    """
    values = np.asarray(values, float)
    if not np.isfinite(values).all():
        return None
    below, above = POINTS < 0, POINTS >= 0
    if np.allclose(values[above], POINTS[above], 1e-6, 1e-6):
        if not values[below].any():
            return "relu"
        if _is_multiple(values[below], POINTS[below], below=1):
            return "leaky_relu"
        if _is_multiple(values[below], np.expm1(POINTS[below])):
            return "elu"
    with np.errstate(over="ignore"):
        for name, functions in KNOWN.items():
            tolerance = 1e-9 if name == "relu" else 8 * eps
            if any(np.allclose(values, f(POINTS), tolerance, tolerance) for f in functions):
                return name
    top = values.max()
    if top > 0 and np.allclose(values, np.clip(POINTS, 0, top), 1e-6, 1e-9) and top < POINTS.max():
        return "clipped_relu"
    return None


def is_affine(values: np.ndarray) -> bool:
    """Returns whether values at `POINTS` lie on a straight line."""
    values = np.asarray(values, float)
    if not np.isfinite(values).all():
        return False
    if values.ndim == 0:
        return True
    low, high = POINTS.argmin(), POINTS.argmax()
    slope = (values[high] - values[low]) / (POINTS[high] - POINTS[low])
    line = values[low] + slope * (POINTS - POINTS[low])
    return bool(np.allclose(values, line, 1e-6, 1e-9 * max(1, np.abs(values).max())))


def _is_multiple(values: np.ndarray, of: np.ndarray, below: float = math.inf) -> bool:
    factor = values[0] / of[0]
    return 0 < factor < below and np.allclose(values, factor * of, 1e-6, 1e-6)
