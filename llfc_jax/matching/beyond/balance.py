"""Brings a network to the form in which no invertible matrix or scale is better than orthogonal.

Where an invertible matrix G may act, some weights take G and others its inverse transpose. Summed
over the former, let P be the units' Gram matrix, D over the latter. After

    M = P^-1/2 (P^1/2 D P^1/2)^1/2 P^-1/2,    G = M^1/2

both Gram matrices are equal, as those of W_Q and W_K are then: the form of least norm. Two networks
in that form that are the same up to an invertible matrix are so up to an orthogonal one. Scales are
balanced alike: unit by unit the one of least norm.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from llfc_jax.matching.assignment.family import host_identity
from llfc_jax.matching.beyond.weights import block_rows
from llfc_jax.symmetry.beyond.element import Action, Element
from llfc_jax.symmetry.beyond.spec import SymmetrySpec
from llfc_jax.symmetry.beyond.transform import keep_mention
from llfc_jax.symmetry.blocks import blocks
from llfc_jax.types import AnyArray

SMALLEST = 1e-6  # share of the largest eigenvalue below which directions count as absent
STEPS = 30


def balance(spec: SymmetrySpec, leaves: Sequence[Any]) -> Element:
    """Returns the element that takes a folded network to its balanced form, in NumPy.

    Matrices come first; scales are balanced on what they leave.
    """
    found = Element(host_identity(spec.permutations), _matrices(spec, leaves))
    held = list(leaves)
    for number, leaf in spec.changed_leaves(found, leaves).items():
        held[number] = leaf
    return dataclasses.replace(found, log_scales=_scales(spec, held))


def _matrices(spec: SymmetrySpec, leaves: Sequence[Any]) -> dict[str, np.ndarray]:
    matrices = {}
    for action, places in zip(spec.actions, spec.places, strict=True):
        name = action.group
        if action.matrix != "any" or action.keeps_ones:
            continue
        grams: dict[bool, list[np.ndarray]] = {False: [], True: []}
        for leaf, axis, how in places:
            grams[how.dual].append(_gram(spec, name, leaves[leaf], leaf, axis, how.part))
        if grams[False] and grams[True]:
            pairs = zip(*(np.sum(grams[side], 0) for side in (False, True)), strict=True)
            found = np.stack([_equaliser(plain, dual, action) for plain, dual in pairs])
            n = found.shape[-1]
            matrices[name] = found.reshape(*spec.shape(name), n).astype(np.float32)
    return matrices


def _scales(spec: SymmetrySpec, leaves: Sequence[Any]) -> dict[str, np.ndarray]:
    scales = {}
    for action, places in zip(spec.actions, spec.places, strict=True):
        name = action.group
        if action.matrix == "none" and action.scales:
            squares = [
                (how.scales, _squares(spec, name, leaves[leaf], leaf, axis, how.part))
                for leaf, axis, how in places
                if any(how.scales)
            ]
            logs = _least_norm(action.scales, squares)
            scales[name] = logs.reshape(action.scales, *spec.shape(name)).astype(np.float32)
    return scales


def _squares(
    spec: SymmetrySpec, name: str, leaf: AnyArray, number: int, axis: int, part: int | None
) -> np.ndarray:
    """The squared norms of a group's units along a leaf's axis; of a parent's, all inside."""
    return np.diagonal(_gram(spec, name, leaf, number, axis, part), 0, 1, 2)


def _gram(
    spec: SymmetrySpec, name: str, leaf: AnyArray, number: int, axis: int, part: int | None
) -> np.ndarray:
    """The products of a group's units along a leaf's axis: [places of the parent or 1, n, n]."""
    *outer, n = spec.shape(name)
    places = (outer or [1])[0]
    total = np.zeros((places, n, n))
    parents = spec.permutations.parents
    axes = keep_mention(spec.permutations.leaves[number][1], name, axis, part, parents)
    for block in blocks(axes, parents):
        if name in block.groups:
            rows = block_rows(block, name, np.asarray(leaf, np.float64)).reshape(places, n, -1)
            total += rows @ rows.swapaxes(1, 2)
    return total


def _equaliser(plain: np.ndarray, dual: np.ndarray, action: Action) -> np.ndarray:
    """G with G P Gᵀ = G⁻ᵀ D G⁻¹; where only pairs are turned, both of the same size on each."""
    if action.pairs:
        (of_plain, _), (of_dual, _) = action.parts(plain), action.parts(dual)
        size = np.sqrt(np.sqrt(np.maximum(of_dual, 1e-30) / np.maximum(of_plain, 1e-30)))
        return action.turned(len(plain), size, np.zeros_like(size))
    root, inverse = _roots(plain)
    middle = _roots(root @ dual @ root)[0]
    return _roots(inverse @ middle @ inverse)[0]


def _roots(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The square root of a symmetric matrix, and the inverse of it."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    values = np.sqrt(np.maximum(values, SMALLEST * max(values.max(), 1e-30)))
    return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T


def _least_norm(dimensions: int, squares: Sequence[tuple[Sequence[Any], np.ndarray]]) -> np.ndarray:
    """Logarithms of the scales that make the sum of squares least, by Newton's steps.

    Minimises sum over places of s² e^(2 k·t), for each unit; dimensions take turns.
    """
    logs = np.zeros((dimensions, squares[0][1].size))
    terms = [(np.array([float(k) for k in ks]), np.ravel(s) + 1e-12) for ks, s in squares]
    for _ in range(STEPS):
        for d in range(dimensions):
            sizes = [(k[d], s * np.exp(2 * (k @ logs))) for k, s in terms if k[d]]
            slope = sum(2 * k * s for k, s in sizes)
            curve = sum(4 * k * k * s for k, s in sizes)
            logs[d] -= np.clip(slope / curve, -1, 1)
    return logs
