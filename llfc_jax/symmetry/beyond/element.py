"""Elements of a network's symmetry: what is done to the units of each group, as plain arrays."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from llfc_jax.symmetry.axes import library
from llfc_jax.symmetry.values import Pairs
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
        pairs: units that are turned two by two, and nothing else: the matrix consists of scaled
            rotations of them ("any"), or of rotations ("orthogonal"); and no unit may be permuted.
    """

    group: str
    matrix: str
    keeps_ones: bool = False
    scales: int = 0
    signs: int = 0
    why: str = ""
    why_ones: str = ""
    pairs: Pairs = ()

    @property
    def kind(self) -> str:
        """The group in words."""
        if self.pairs and self.matrix != "none":
            scaled = "scaled " if self.matrix == "any" else ""
            many = f"{len(self.pairs)} pairs" if len(self.pairs) > 1 else "1 pair"
            return f"{scaled}rotations of {many} of units"
        if self.pairs:
            return "nothing"
        if self.matrix != "none":
            kind = "invertible matrices" if self.matrix == "any" else "orthogonal matrices"
            return kind + (" that keep the ones" if self.keeps_ones else "")
        parts = ["permutations"]
        parts += ["positive scales"] if self.scales else []
        parts += ["signs"] if self.signs else []
        return ", ".join(parts)

    def degrees(self, n: int) -> int:
        """Returns the number of continuous parameters of one such group of n units."""
        if self.pairs:
            return {"any": 2, "orthogonal": 1, "none": 0}[self.matrix] * len(self.pairs)
        free = n - 1 if self.keeps_ones else n
        matrix = {"any": free * free, "orthogonal": free * (free - 1) // 2, "none": 0}
        return matrix[self.matrix] + (self.scales * n if self.matrix == "none" else 0)

    def turned(self, n: int, cosine: AnyArray, sine: AnyArray) -> Any:
        """Returns the matrix that turns each pair, `[[cosine, -sine], [sine, cosine]]` [..., n, n].

        Where only rotations may act, the two are divided by their norm.

        Args:
            n: number of units.
            cosine: [..., pairs].
            sine: [..., pairs].
        """
        xp = library(cosine, sine)
        if self.matrix == "orthogonal":
            size = xp.sqrt(cosine**2 + sine**2)
            cosine, sine = cosine / size, sine / size
        first, second = (np.eye(n, dtype=np.float32)[[p[k] for p in self.pairs]] for k in (0, 1))
        still = np.diag(1 - (first + second).sum(0))

        def spread(numbers: AnyArray, rows: np.ndarray, columns: np.ndarray) -> Any:
            return xp.einsum("...p,pi,pj->...ij", numbers, rows, columns)

        turned = spread(cosine, first, first) + spread(cosine, second, second)
        return still + turned + spread(sine, second, first) - spread(sine, first, second)

    def parts(self, matrix: AnyArray) -> tuple[Any, Any]:
        """Returns how much of a matrix [..., n, n] is along each pair's cosine and sine."""
        first, second = (np.array([pair[k] for pair in self.pairs]) for k in (0, 1))
        cosine = matrix[..., first, first] + matrix[..., second, second]
        return cosine, matrix[..., second, first] - matrix[..., first, second]


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
