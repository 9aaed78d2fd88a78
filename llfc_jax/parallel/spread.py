"""Modes that are cut up over a mesh of their users': FSDP, tensor-parallel, or both.

They are measured, interpolated and matched as they lie, and no device ever holds a whole one. What
goes in beside them follows onto their mesh: the other mode lies as the first does, leaf by leaf,
and of a batch each device has a copy, unless it lies on the mesh already. Spreading the samples
instead would make XLA gather the weights, which takes 7 times the memory in `tests/parallel`.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from llfc_jax.parallel import sharding
from llfc_jax.types import AnyArray

T = TypeVar("T")


def is_spread(tree: PyTree) -> bool:
    """Returns whether any array of a tree is cut up over several devices."""
    return any(_layout(leaf) is not None and not leaf.is_fully_replicated
               for leaf in jax.tree.leaves(tree))  # fmt: skip


def _layout(x: object) -> NamedSharding | None:
    """Returns how an array lies on a mesh of several devices; None for any other."""
    placed = x.sharding if isinstance(x, jax.Array) and not isinstance(x, Tracer) else None
    return placed if isinstance(placed, NamedSharding) and placed.mesh.size > 1 else None


def mesh_of(tree: PyTree) -> Mesh | None:
    """Returns the mesh over which a tree is cut up; None where it is not."""
    return next((sharding.of(leaf) for leaf in jax.tree.leaves(tree) if is_spread(leaf)), None)


def relabel(tree: PyTree) -> Any:
    """Returns a tree whose meshes let XLA follow the shardings; no data moves.

    Meshes with explicit axes (the default of `jax.make_mesh`) want every operation of a network to
    name the sharding of its result.
    """

    def one(x: AnyArray) -> Any:
        placed = x.sharding if isinstance(x, jax.Array) and not isinstance(x, Tracer) else None
        if not isinstance(placed, NamedSharding) or not isinstance(placed.mesh, Mesh):
            return x
        mesh = sharding.follow_types(placed.mesh)
        return x if mesh == placed.mesh else jax.device_put(x, NamedSharding(mesh, placed.spec))

    return jax.tree.map(one, tree)


def place_pair(a: PyTree, b: PyTree, x: object) -> tuple[Any, Any]:
    """Returns two trees as they lie while they are measured with a batch.

    If either is spread over a mesh, both lie as it does, each device with its part. Else they have
    a copy on each device of the batch's mesh, or are put on the default device.

    Args:
        a: a tree of arrays, whose layout is taken where both have one.
        b: another of the same structure.
        x: a batch.
    """
    mesh = mesh_of((a, b))
    if mesh is not None:
        layouts = jax.tree.map(lambda p, q: _choose_layout(mesh, p, q), a, b)
        place = partial(jax.tree.map, jax.device_put)
        return place(a, layouts), place(b, layouts)
    if sharding.of(x) is not None:
        return sharding.replicate_like(x, (a, b))
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, (a, b))


def _choose_layout(mesh: Mesh, *leaves: object) -> NamedSharding:
    """Returns the layout of whichever leaf is spread over a mesh; a copy everywhere if none is."""
    found = (_layout(x) for x in leaves if is_spread(x) and sharding.of(x) == mesh)
    specs = [layout.spec for layout in found if layout is not None]
    return NamedSharding(mesh, specs[0] if specs else sharding.EVERYWHERE)


def follow(batches: T, tree: PyTree) -> T:
    """Returns batches that lie on the mesh over which a tree is spread; as they are if it is not.

    Those that lie there already keep their layout; of others each device gets a copy.

    Args:
        batches: any; None, and what can be gone through only once, come back as they are.
        tree: of arrays.
    """
    mesh, given = mesh_of(tree), cast(Any, batches)
    if mesh is None or given is None or iter(given) is given:
        return batches
    return cast(Any, _OnMesh(given, mesh))


class _OnMesh:
    def __init__(self, batches: Any, mesh: Mesh) -> None:
        self._batches, self._mesh = batches, mesh

    def __len__(self) -> int:
        return len(self._batches) if hasattr(self._batches, "__len__") else 0

    def __iter__(self) -> Iterator[Any]:
        for batch in self._batches:
            yield jax.tree.map(self._place, batch)

    def _place(self, x: AnyArray) -> Any:
        there = sharding.of(x) == self._mesh
        return relabel(x) if there else sharding.put(x, self._mesh, sharding.EVERYWHERE)
