"""Smooth coordinates of a network's symmetry around an element, for gradients.

- An orthogonal matrix is `Q0 cayley(K - Kᵀ)` with K free, `cayley(S) = (I - S)(I + S)^-1`.
- An invertible matrix is `G0 (I + E)` with E free; one that turns pairs of units has a free cosine
  and sine for each pair.
- Scales are `t0 + t`.
- A permutation is relaxed to a doubly stochastic matrix: Sinkhorn's iteration on
  `exp(Z / temperature)`, with Z free; it is hardened by assignment at the end.

All coordinates are zero at the start but Z, which begins at the cosines of A's and B's weights.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.matching.assignment import host
from llfc_jax.symmetry.axes import units
from llfc_jax.symmetry.beyond.element import Element, within_ones
from llfc_jax.symmetry.beyond.spec import SymmetrySpec, keep_type
from llfc_jax.symmetry.beyond.transform import Change, transform
from llfc_jax.types import Scalar, Variables

Coordinates = dict[str, dict[str, Any]]
"""By kind ("matrices", "scales", "permutations") and group."""
SINKHORN_STEPS = 15


def origin(spec: SymmetrySpec, *, scores: Mapping[str, Any] | None = None) -> Coordinates:
    """Returns the coordinates of the start.

    Args:
        spec: what may be done.
        scores: Z of each permutation that is learned, if any are.
    """
    matrices, scales = {}, {}
    for action in spec.actions:
        *outer, n = spec.shape(action.group)
        m = n - 1 if action.keeps_ones else n
        if action.matrix != "none" and action.pairs:
            matrices[action.group] = jnp.zeros((2, *outer, len(action.pairs)), jnp.float32)
        elif action.matrix != "none":
            matrices[action.group] = jnp.zeros((*outer, m, m), jnp.float32)
        elif action.scales:
            scales[action.group] = jnp.zeros((action.scales, *outer, n), jnp.float32)
    return {"matrices": matrices, "scales": scales, "permutations": dict(scores or {})}


def change_of(spec: SymmetrySpec, point: Coordinates) -> Element:
    """Returns the element that coordinates stand for, its permutations aside."""
    matrices = {}
    for name, free in point["matrices"].items():
        action = spec.action[name]
        if action.pairs:
            matrices[name] = action.turned(spec.shape(name)[-1], 1 + free[0], free[1])
            continue
        one = _one_like(free)
        if action.matrix == "orthogonal":
            skew = (free - jnp.swapaxes(free, -1, -2)) / 2
            own = jnp.linalg.solve(one + skew, one - skew)
        else:
            own = one + free
        matrices[name] = within_ones(own) if action.keeps_ones else own
    identity = spec.permutations.identity()
    return Element(identity, matrices, dict(point["scales"]))


def _one_like(matrix: jax.Array) -> jax.Array:
    """The identity in the shape [..., n, n] of a matrix."""
    return jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape)


def soften(scores: jax.Array, temperature: Scalar) -> jax.Array:
    """Returns a doubly stochastic matrix near the best permutation by these scores."""
    logs = scores / temperature
    for _ in range(SINKHORN_STEPS):
        logs = logs - jax.nn.logsumexp(logs, -1, keepdims=True)
        logs = logs - jax.nn.logsumexp(logs, -2, keepdims=True)
    return jnp.exp(logs)


def move(spec: SymmetrySpec, start: Variables, point: Coordinates, temperature: Scalar) -> Any:
    """Returns B after the change that coordinates stand for.

    Args:
        spec: what may be done.
        start: B after the element at which the coordinates begin.
        point: the coordinates.
        temperature: of the relaxed permutations.
    """
    moved = spec.apply(change_of(spec, point), start)
    if not point["permutations"]:
        return moved
    soft = {name: soften(z, temperature) for name, z in point["permutations"].items()}
    leaves, structure = jax.tree.flatten(moved)
    for i, (_, axes) in enumerate(spec.permutations.leaves):
        changes = {
            (k, name): Change(soft[name], is_matrix=True)
            for k, axis in enumerate(axes)
            for name in {u.group for u in units(axis)} & soft.keys()
        }
        moved = transform(leaves[i], axes, changes, spec.permutations.parents)
        leaves[i] = keep_type(leaves[i], moved)
    return jax.tree.unflatten(structure, leaves)


def harden(spec: SymmetrySpec, point: Coordinates) -> Element:
    """Returns the element that coordinates stand for, its relaxed permutations assigned."""
    found = {name: host.solve(np.asarray(z)) for name, z in point["permutations"].items()}
    whole = {name: np.asarray(p) for name, p in spec.permutations.identity().items()}
    return dataclasses.replace(change_of(spec, point), permutation=whole | found)


def distance(spec: SymmetrySpec, point: Coordinates) -> jax.Array:
    """Returns how far an element is from the start: the mean square of matrix entries' changes."""
    total, count = jnp.zeros(()), 1
    for name, matrix in change_of(spec, point).matrices.items():
        total += ((matrix - _one_like(matrix)) ** 2).sum()
        count += int(np.prod(spec.shape(name)))
    return total / count
