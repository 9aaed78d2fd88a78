"""Random matrices, scales and signs, each as its group allows them."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from llfc_jax.symmetry.beyond.element import Action, within_ones

Drawn = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
"""Matrices, logarithms of scales, and signs, by group."""


def draw(
    groups: Iterable[tuple[Action, tuple[int, ...]]], rng: np.random.Generator, *, spread: float
) -> Drawn:
    """Returns a random change of each group, in NumPy and float64.

    Args:
        groups: what each may be, and the shape of its units.
        rng: draws them.
        spread: how far matrices are from orthogonal ones, and logarithms of scales from 0.
    """
    matrices, scales, signs = {}, {}, {}
    for action, shape in groups:
        if action.matrix != "none":
            matrices[action.group] = _matrix(action, shape, rng, spread)
            continue
        if action.scales:
            scales[action.group] = spread * rng.normal(size=(action.scales, *shape))
        if action.signs:
            signs[action.group] = rng.choice([-1.0, 1.0], (action.signs, *shape))
    return matrices, scales, signs


def _matrix(
    action: Action, shape: tuple[int, ...], rng: np.random.Generator, spread: float
) -> np.ndarray:
    """A matrix [..., n, n]: orthogonal, and then near it where any may be."""
    *outer, n = shape
    if action.pairs:
        size, angle = rng.normal(size=(2, *outer, len(action.pairs)))
        size, angle = np.exp(spread * size), np.pi * angle
        return action.turned(n, size * np.cos(angle), size * np.sin(angle))
    m = n - 1 if action.keeps_ones else n
    own = np.linalg.qr(rng.normal(size=(*outer, m, m)))[0]
    if action.matrix == "any":
        own = own @ (np.eye(m) + spread * rng.normal(size=own.shape) / m**0.5)
    return within_ones(own) if action.keeps_ones else own
