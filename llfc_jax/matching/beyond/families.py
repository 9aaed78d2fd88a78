"""The best orthogonal matrices and permutations of one group and the groups inside it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from llfc_jax.matching.assignment import host
from llfc_jax.matching.assignment.family import assigned_value, host_identity
from llfc_jax.symmetry.beyond.element import Action, Element, complement_of_ones
from llfc_jax.symmetry.beyond.spec import SymmetrySpec

SMALLEST = 1e-30
Family = tuple[str, tuple[str, ...]]
"""A group that is inside no other, and the groups inside it."""


def is_plain(spec: SymmetrySpec, family: Family) -> bool:
    """Returns whether a family is one group of units that may be permuted and no more."""
    action = spec.action[family[0]]
    return action.matrix == "none" and not action.pairs and not family[1]


@dataclasses.dataclass(frozen=True)
class Found:
    """What is done to a family's units, as they lie now.

    Attributes:
        permutation: index of each group that is permuted.
        matrices: matrix of each other group, by the parent's places as they lie now.
        value: what was maximised.
    """

    permutation: dict[str, np.ndarray]
    matrices: dict[str, np.ndarray]
    value: float = 0.0


def solve(spec: SymmetrySpec, family: Family, scores: Mapping[str, np.ndarray]) -> Found:
    """Returns the g that maximises the sum of `<A, g B>` over a family's axes.

    Args:
        spec: says what each group may be; a matrix is orthogonal here.
        family: the family.
        scores: [n, n] per group, A's units along the rows; n counts the parent's places too.
    """
    root, inside = family
    value = 0.0
    if spec.action[root].matrix != "none" or spec.action[root].pairs:
        found = {root: nearest(scores[root], spec.action[root])}
        index: dict[str, np.ndarray] = {}
        own = np.arange(len(scores[root]))
        value += float(np.vdot(found[root], scores[root]))
    else:
        found, index = {}, {}
        outer = scores[root].copy()
        for name in inside:
            outer += _values(spec, name, _pairs(spec, name, scores[name]))
        own = index[root] = host.solve(outer)
        value += float(scores[root][np.arange(len(own)), own].sum())
    for name in inside:
        pairs = _pairs(spec, name, scores[name])[np.arange(len(own)), own]
        if spec.action[name].matrix == "none" and not spec.action[name].pairs:
            index[name] = host.solve(pairs)
            value += float(assigned_value(pairs, index[name]).sum())
            continue
        best = nearest(pairs, spec.action[name])
        value += float(np.vdot(best, pairs))
        found[name] = np.empty_like(best)
        found[name][own] = best
    return Found(index, found, value)


def _pairs(spec: SymmetrySpec, name: str, scores: np.ndarray) -> np.ndarray:
    """Scores by places of the parent in A and B: [places, places, n, n]."""
    places, n = spec.shape(name)
    return scores.reshape(places, n, places, n).swapaxes(1, 2)


def _values(spec: SymmetrySpec, name: str, pairs: np.ndarray) -> np.ndarray:
    """The most that a nested group can give, for each pair of places."""
    action = spec.action[name]
    if action.pairs:
        return (nearest(pairs, action) * pairs).sum((-1, -2))
    if action.matrix == "none":
        return assigned_value(pairs, host.solve(pairs))
    if action.keeps_ones:
        basis = complement_of_ones(pairs.shape[-1])
        ones = pairs.sum((-1, -2)) / pairs.shape[-1]
        return ones + np.linalg.norm(basis.T @ pairs @ basis, "nuc", (-2, -1))
    return np.linalg.norm(pairs, "nuc", (-2, -1))


def nearest(scores: np.ndarray, action: Action | None = None) -> np.ndarray:
    """Returns the orthogonal Q that maximises `trace(Qᵀ S)`, for each of [..., n, n].

    `action`: among those that it allows.
    """
    n = scores.shape[-1]
    if action is not None and action.pairs:
        if action.matrix == "none":
            return np.broadcast_to(np.eye(n, dtype=scores.dtype), scores.shape)
        cosine, sine = action.parts(scores)
        size = np.maximum(np.hypot(cosine, sine), SMALLEST)
        return action.turned(n, cosine / size, sine / size).astype(scores.dtype)
    if action is not None and action.keeps_ones:
        basis = complement_of_ones(n).astype(scores.dtype)
        inner = nearest(basis.T @ scores @ basis)
        return (np.full((n, n), 1 / n) + basis @ inner @ basis.T).astype(scores.dtype)
    left, _, right = np.linalg.svd(scores)
    return left @ right


class Progress:
    """The element so far, in NumPy; each `Found` is done after what was there before."""

    def __init__(self, spec: SymmetrySpec) -> None:
        self.spec = spec
        self.permutation = {k: np.array(v) for k, v in host_identity(spec.permutations).items()}
        self.matrices: dict[str, Any] = {}
        for action in spec.actions:
            if action.matrix != "none":
                shape = spec.shape(action.group)
                self.matrices[action.group] = np.broadcast_to(
                    np.eye(shape[-1], dtype=np.float32), (*shape, shape[-1])
                ).copy()

    def take(self, family: Family, found: Found) -> None:
        """Adds what was found of a family."""
        root, inside = family
        before = self.permutation[root]
        for name in inside:
            if name in found.matrices:  # matrices act before units move: by the first places
                old = self.matrices[name][before]
                self.matrices[name][before] = found.matrices[name] @ old
            if name in found.permutation:
                moved = self.permutation[name][found.permutation.get(root, np.arange(len(before)))]
                self.permutation[name] = np.take_along_axis(moved, found.permutation[name], -1)
            elif root in found.permutation:
                self.permutation[name] = self.permutation[name][found.permutation[root]]
        if root in found.matrices:
            self.matrices[root] = found.matrices[root] @ self.matrices[root]
        if root in found.permutation:
            self.permutation[root] = before[found.permutation[root]]

    def element(self) -> Element:
        """Returns the element."""
        return Element(dict(self.permutation), dict(self.matrices))


def as_element(spec: SymmetrySpec, found: Found) -> Element:
    """Returns what was found of one family as an element."""
    return Element({**host_identity(spec.permutations), **found.permutation}, dict(found.matrices))
