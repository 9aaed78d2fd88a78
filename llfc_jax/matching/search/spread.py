"""The products of a pair whose modes are spread over several devices.

Each product is a small program of its own over the leaf of either mode that it needs: it runs where
they lie, and only its scores, [n, n], come to the host, which drives the ascent. No device ever
holds more than its part of the modes and what one leaf takes.
"""

import functools
from collections.abc import Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from llfc_jax.matching.assignment.family import composite
from llfc_jax.matching.search import host
from llfc_jax.matching.search.compiled import multiply
from llfc_jax.matching.search.plan import make_plan
from llfc_jax.symmetry.spec import PermutationSpec

Counted: TypeAlias = tuple[PermutationSpec, frozenset[str]]
"""A spec, and the paths of the leaves that count: what a plan is made from."""


class Products(host.Products):
    """The products that edges are made of, from leaves that stay where they are."""

    def __init__(
        self,
        counted: Counted,
        a: Mapping[int, jax.Array],
        b: Mapping[int, jax.Array],
        dtype: np.dtype,
    ) -> None:
        self.counted, self.plan, self.dtype = counted, make_plan(*counted), dtype
        self._leaves = [(a[leaf], b[leaf]) for leaf, _ in self.plan.blocks]
        self.constant = {name: np.zeros((n, n), dtype) for name, n in self.plan.size.items()}
        for edge in self.plan.constant:
            self.constant[edge.group] += self._multiply(edge.block, edge.axis, {})

    def build(self, e: int, permutation: host.HostIndex) -> Float[np.ndarray, "n n"]:
        """Returns an edge's scores, from nothing: [n, n]."""
        edge = self.plan.edges[e]
        indices = {i: composite(self.plan.spec, permutation, g) for i, g in edge.others}
        return self._multiply(edge.block, edge.axis, indices)

    def mix(self, e: int, mixture: host.HostIndex) -> Float[np.ndarray, "n n"]:
        """Returns an edge's scores with the other groups mixed by matrices: [n, n]."""
        edge = self.plan.edges[e]
        return self._multiply(edge.block, edge.axis, {i: mixture[g] for i, g in edge.others})

    def patch(
        self,
        e: int,
        now: Int[np.ndarray, " n"],
        seen: Int[np.ndarray, " n"],
        scores: Float[np.ndarray, "n n"],
    ) -> Float[np.ndarray, "n n"]:
        """Returns the same as `build`: one program serves any number of moved units."""
        del seen, scores
        edge = self.plan.edges[e]
        return self._multiply(edge.block, edge.axis, {edge.others[0][0]: now})

    def overlap(self, permutation: host.HostIndex | None) -> float:
        """Returns `sum <A, π(B)>`; None is the identity."""
        total = 0.0
        for number, (_, block) in enumerate(self.plan.blocks):
            indices = {
                i: composite(self.plan.spec, permutation, group)
                for i, group in enumerate(block.groups, 1)
                if permutation is not None
            }
            total += float(_overlap(self._fixed(number), *self._leaves[number], indices))
        return total

    def size(self) -> float:
        """Returns `||A|| ||B||`."""
        squares = [
            sum(
                float(_overlap(self._fixed(number), pair[side], pair[side], {}))
                for number, pair in enumerate(self._leaves)
            )
            for side in (0, 1)
        ]
        return float(np.sqrt(squares[0] * squares[1]))

    def _fixed(self, block: int) -> tuple[Counted, np.dtype, int]:
        return self.counted, self.dtype, block

    def _multiply(
        self, block: int, axis: int, others: dict[int, np.ndarray]
    ) -> Float[np.ndarray, "n n"]:
        return np.asarray(_multiply(self._fixed(block), axis, *self._leaves[block], others))


def _place(
    fixed: tuple[Counted, np.dtype, int], a: jax.Array, b: jax.Array, others: dict[int, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Returns a block of both modes, b's permuted by indices or mixed by matrices along axes."""
    counted, dtype, number = fixed
    _, block = make_plan(*counted).blocks[number]
    p, q = (block.extract(leaf.astype(dtype)) for leaf in (a, b))
    for axis, along in others.items():
        if along.ndim == 1:
            q = jnp.take(q, along, axis=axis, mode="clip")
        else:
            q = jnp.moveaxis(jnp.tensordot(along, q, (1, axis)), 0, axis)
    return p, q


@functools.partial(jax.jit, static_argnums=(0, 1))
def _multiply(
    fixed: tuple[Counted, np.dtype, int],
    axis: int,
    a: jax.Array,
    b: jax.Array,
    others: dict[int, jax.Array],
) -> Float[Array, "n n"]:
    with jax.default_matmul_precision("highest"):
        return multiply(*_place(fixed, a, b, others), axis)


@functools.partial(jax.jit, static_argnums=0)
def _overlap(
    fixed: tuple[Counted, np.dtype, int], a: jax.Array, b: jax.Array, others: dict[int, jax.Array]
) -> jax.Array:
    p, q = _place(fixed, a, b, others)
    return jnp.sum(p * q)
