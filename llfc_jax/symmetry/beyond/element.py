"""Elements of a network's symmetry: what is done to the units of each group, as plain arrays."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from llfc_jax.types import AnyArray

Arrays = Mapping[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Element:
    """An element of a network's symmetry; first matrices, scales and signs act, then permutations.

    Attributes:
        permutation: places by group, as in `PermutationSpec`.
        matrices: [n, n], or [places of the parent, n, n] for a nested group.
        log_scales: natural logarithms of positive factors, [dimensions, n], or [dimensions,
            places of the parent, n].
        signs: factors 1 and -1, of the same shapes.
    """

    permutation: Arrays
    matrices: Arrays = dataclasses.field(default_factory=dict)
    log_scales: Arrays = dataclasses.field(default_factory=dict)
    signs: Arrays = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        held = [f"{len(self.permutation)} permutations"]
        for name in ("matrices", "log_scales", "signs"):
            if getattr(self, name):
                held.append(f"{len(getattr(self, name))} {name.replace('_', ' ')}")
        return f"Element({', '.join(held)})"


@dataclasses.dataclass(frozen=True)
class Action:
    """What a group may be, and why it is no larger.

    Attributes:
        group: its name.
        matrix: "any" invertible matrix, an "orthogonal" one, or "none" but permutations.
        keeps_ones: whether the matrix and its transpose keep the vector of ones.
        scales: numbers per unit by which the network may be rescaled.
        signs: signs per unit that may be changed.
        why: the equation that allows no larger matrix ("" where any is allowed).
        why_ones: the equation that asks for the ones.
    """

    group: str
    matrix: str
    keeps_ones: bool = False
    scales: int = 0
    signs: int = 0
    why: str = ""
    why_ones: str = ""

    @property
    def kind(self) -> str:
        """The group in words."""
        if self.matrix != "none":
            kind = "invertible matrices" if self.matrix == "any" else "orthogonal matrices"
            return kind + (" that keep the ones" if self.keeps_ones else "")
        parts = ["permutations"]
        parts += ["positive scales"] if self.scales else []
        parts += ["signs"] if self.signs else []
        return ", ".join(parts)

    def degrees(self, n: int) -> int:
        """Returns the number of continuous parameters of one such group of n units."""
        free = n - 1 if self.keeps_ones else n
        matrix = {"any": free * free, "orthogonal": free * (free - 1) // 2, "none": 0}
        return matrix[self.matrix] + (self.scales * n if self.matrix == "none" else 0)


def complement_of_ones(n: int) -> np.ndarray:
    """Returns an orthonormal basis [n, n - 1] of the vectors whose entries add up to zero."""
    # Columns of a Householder reflection that takes the first axis to the vector of ones.
    normal = np.full(n, -(n**-0.5))
    normal[0] += 1
    return (np.eye(n) - 2 * np.outer(normal, normal) / np.sum(normal**2))[:, 1:]


def within_ones(small: AnyArray) -> Any:
    """Returns the matrix [..., n, n] that keeps the ones and acts as [..., n - 1, n - 1] beside."""
    n = small.shape[-1] + 1
    basis = complement_of_ones(n).astype(small.dtype)
    inside = basis @ small @ basis.T
    return inside + np.full(inside.shape, 1 / n, small.dtype)
