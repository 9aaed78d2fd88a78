"""Where arrays lie when there is more than one device. All that is decided about it stands here.

Modes that come spread over a mesh of their own are `parallel.spread`'s.

The devices make a mesh of two axes, `replica` and `data`. Programs are written for whole arrays;
`jit` cuts them up as their inputs lie, and XLA puts in the communication:

- networks that train side by side are spread over `replica` and know nothing of each other;
- the batch of a step is spread over `data`, so the gradients are summed across it;
- a batch that is measured is spread over all devices, so its statistics are;
- the data set (uint8) and the modes that are measured have a copy on every device.

What does not divide evenly is filled up: replicas with some that are not alive, a batch that is
measured with samples of weight zero. Without a mesh (None: a single device) nothing of this
happens. The devices may belong to several processes (`hosts`).
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from llfc_jax.errors import ConfigError
from llfc_jax.types import AnyArray, Batches

REPLICA, DATA = "replica", "data"

REPLICAS = P(REPLICA)  # states [replicas, ...], orders [replicas, samples]
BATCH = P(DATA)  # a step's batch [batch, ...], of each replica
SAMPLES = P((REPLICA, DATA))  # a batch that is measured [n, ...]
EVERYWHERE = P()  # data set, modes, statistics


def make(replica: int = 0, data: int = 1) -> Mesh | None:
    """Returns the mesh of the devices that there are; None for a single device.

    Args:
        replica: devices along `replica`; 0 takes what `data` leaves.
        data: devices along `data`.

    Raises:
        ConfigError: there are fewer devices, or, over several processes, some are left out.
    """
    devices = jax.devices()
    replica = replica or max(1, len(devices) // data)
    if replica * data > len(devices) or (replica * data < len(devices) and jax.process_count() > 1):
        raise ConfigError(
            f"config.mesh wants {replica} x {data} devices (replica x data), but there are "
            f"{len(devices)}; change mesh.replica or mesh.data"
        )
    if replica * data == 1:
        return None
    kinds = (AxisType.Auto, AxisType.Auto)  # XLA follows the shardings of what goes in
    return jax.make_mesh((replica, data), (REPLICA, DATA), kinds, devices=devices[: replica * data])


def samples_of(x: Any) -> P:
    """Returns how the samples of a batch x [n, ...] lie while it is measured.

    On a mesh that `make` made they are spread over all devices; on another they stay as they are.
    """
    mesh = of(x)
    if mesh is None:
        return EVERYWHERE
    first = jax.tree.leaves(x)[0]
    return SAMPLES if mesh.axis_names == (REPLICA, DATA) else P(*first.sharding.spec[:1])


def size(mesh: Mesh | None, spec: P) -> int:
    """Parts that `spec` cuts an array's first axis into."""
    if mesh is None or not spec:
        return 1
    names = spec[0] if isinstance(spec[0], tuple) else (spec[0],)
    return int(np.prod([mesh.shape[name] for name in names if name is not None]))


def put(tree: PyTree, mesh: Mesh | None, spec: P, *, copy: bool = False) -> Any:
    """Returns arrays from the host, or from wherever they lie, laid out by `spec`.

    Over several processes each has to hold the same values.

    Args:
        tree: the arrays.
        mesh: where to; the default device if None.
        spec: axis by axis; one that is cut up has to divide evenly.
        copy: never share memory with what is given, so that the arrays may be donated.
    """
    alias = False if copy else None
    if mesh is None:
        return jax.device_put(tree, may_alias=alias)
    sharding = NamedSharding(mesh, spec)

    def lay(x: AnyArray) -> jax.Array:
        if sharding.is_fully_addressable or _spans(x):
            return jax.device_put(x, sharding, may_alias=alias)
        whole = np.array(x) if copy else np.asarray(x)
        return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])

    return jax.tree.map(lay, tree)


def constrain(tree: PyTree, mesh: Mesh | None, spec: P) -> Any:
    """Returns the arrays laid out by `spec`, under `jit` and within `shard_map_replicas`."""
    if mesh is None or (spec and size(mesh, spec) == 1):
        return tree
    within = jax.sharding.get_abstract_mesh()
    sharding = NamedSharding(mesh if within.empty else within, spec)
    return jax.lax.with_sharding_constraint(tree, sharding)


def shard_map_replicas(
    function: Callable[[Any, Any], Any], mesh: Mesh | None
) -> Callable[[Any, Any], Any]:
    """Returns `function(shared, own)`, run at every place along `replica` on its part of `own`.

    Networks that train side by side need nothing of each other. XLA does not see that by itself:
    batched over their weights, a convolution is one grouped convolution, whose gradient it would
    gather from all devices. Along `data` it still does all there is to do.
    """
    if mesh is None:
        return function
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(EVERYWHERE, REPLICAS),
        out_specs=REPLICAS,
        axis_names={REPLICA},
    )


def of(x: object) -> Mesh | None:
    """Returns the mesh that arrays lie on; None for one device or the host.

    Its axes are such that XLA follows the shardings, whatever their types were.
    """
    sharding = getattr(next(iter(jax.tree.leaves(x)), None), "sharding", None)
    if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1:
        return follow_types(sharding.mesh) if isinstance(sharding.mesh, Mesh) else None
    return None


def follow_types(mesh: Mesh) -> Mesh:
    """Returns a mesh of the same devices and axes on which XLA follows the shardings."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)


def replicate_like(x: object, tree: PyTree) -> Any:
    """Returns a tree as it is, or, if x lies on a mesh, with a copy on each of its devices."""
    mesh = of(x)
    return tree if mesh is None else put(tree, mesh, EVERYWHERE)


def is_on_host(x: object) -> bool:
    """Returns whether NumPy reads an array where it lies: it is NumPy's, or on one CPU device."""
    if not isinstance(x, jax.Array):
        return True
    return len(x.devices()) == 1 and next(iter(x.devices())).platform == "cpu"


def fetch(tree: PyTree) -> Any:
    """Returns whole arrays on this host, from the devices of every process if need be."""

    def whole(x: AnyArray) -> Any:
        if _spans(x) and not x.is_fully_replicated:
            return multihost_utils.process_allgather(x, tiled=True)
        return x

    return jax.device_get(jax.tree.map(whole, tree))


def _spans(x: object) -> TypeGuard[jax.Array]:
    """Returns whether an array lies on devices of several processes."""
    return isinstance(x, jax.Array) and not x.is_fully_addressable


def on_one_device(batches: Batches) -> Any:
    """Returns batches of which every device has a copy, as those of this process's first device.

    That is for what runs on one device. Others are left as they are.
    """
    x: Any = next(iter(batches))[0]
    return _OnOneDevice(batches) if of(x) and x.is_fully_replicated else batches


class _OnOneDevice:
    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)  # pyright: ignore[reportArgumentType]

    def __iter__(self) -> Iterator[Any]:
        for batch in self._batches:
            yield jax.tree.map(lambda leaf: leaf.addressable_data(0), batch)
