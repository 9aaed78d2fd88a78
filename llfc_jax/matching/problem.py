"""The problem that a matching method solves: a network, two modes of it, and data."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import ArrayLike

from llfc_jax.data.inputs import as_train_batches
from llfc_jax.errors import DataError, MatchingError
from llfc_jax.frameworks import Network
from llfc_jax.graph import trace
from llfc_jax.graph.outputs import check_finite, check_outputs
from llfc_jax.matching.placement import dtype_of, host_array, on_host
from llfc_jax.pair import check_pair
from llfc_jax.parallel.spread import relabel
from llfc_jax.symmetry.beyond.spec import SymmetrySpec
from llfc_jax.symmetry.spec import PermutationSpec
from llfc_jax.tasks import Batch, Task, classification, read_batch
from llfc_jax.types import Apply, Batches, Variables


@dataclasses.dataclass(frozen=True)
class Problem:
    """Two modes of a network, to be matched.

    Attributes:
        network: a `Network`, a module of any framework, or a function apply(variables, x); None
            for methods that look at weights alone.
        spec: which units may move.
        a: the mode that stays.
        b: the mode that is permuted.
        batches: data of any form (`data.inputs.as_train_batches`), for the methods that need
            some.
        task: how outputs are judged, for the methods that look at outputs.
        symmetry: what may be done beyond permutations; a and b are then folded (`symmetry.fold`).
        checkpoint: an `.npz` file in which a method that takes long keeps what it has reached.
    """

    network: Any
    spec: PermutationSpec
    a: Variables
    b: Variables
    batches: Batches = ()
    task: Task = dataclasses.field(default_factory=classification)
    symmetry: SymmetrySpec | None = None
    checkpoint: Path | None = None

    @property
    def apply(self) -> Apply:
        """The network as a function.

        Raises:
            MatchingError: there is none.
        """
        if self.network is None:
            raise MatchingError("this method runs the network; pass it as network=")
        return Network.of(self.network).apply

    def checked(self, *, narrow: bool = False) -> "Problem":
        """Returns the problem as methods compute with it.

        The modes are trees of arrays, seen to fit each other and the spec, and data are batches.

        Args:
            narrow: keeps floating-point leaves narrower than float32, which become float32 else.

        Raises:
            ModeError: other structures or shapes, or values that are not finite.
            MatchingError: they are modes of another network.
            DataError: data that can be read only once, or of no known form.
        """
        a, b = relabel((self.a, self.b))
        if self.network is not None:
            read = Network.of(self.network).variables
            a, b = read(a), read(b)
        check_modes(self.spec, a, b)
        a, b = (a, b) if narrow else (widen(a), widen(b))
        return dataclasses.replace(self, a=a, b=b, batches=as_train_batches(self.batches))

    def read_batches(self) -> Iterator[Batch]:
        """Yields every batch of which anything counts, taken apart, with its mask.

        Raises:
            DataError: inputs hold NaN or infinity.
        """
        for batch in map(read_batch, self.batches):
            n = len(jax.tree.leaves(batch.x)[0])
            mask = self.task.default_mask(batch.y, n) if batch.mask is None else batch.mask
            check_finite(batch.x)
            if np.any(np.asarray(mask)):
                yield Batch(batch.x, batch.y, jnp.asarray(mask, jnp.float32))

    def check_outputs(self) -> None:
        """Checks that the task judges what the network returns, on all data.

        Raises:
            GraphError: it does not judge such outputs.
            DataError: targets that it does not take, or labels that are none.
        """
        for batch in self.read_batches():
            check_outputs(trace(self.apply, self.a, batch.x), batch, self.task)

    def first_batch(self, samples: int) -> Batch:
        """Returns inputs and mask of the first samples (of all, if there are fewer).

        Raises:
            DataError: there is no batch.
        """
        taken: list[Batch] = []
        need = samples
        for batch in self.read_batches():
            some = Batch(batch.x, None, batch.mask)
            taken.append(jax.tree.map(lambda leaf, need=need: leaf[:need], some))
            need -= len(taken[-1].mask)
            if need <= 0:
                break
        if not taken:
            raise DataError("matching on data needs some, and there is no batch")
        if len(taken) > 1:
            taken = [jax.tree.map(lambda *parts: np.concatenate(parts), *taken)]
        return jax.tree.map(jnp.asarray, taken[0])


def check_modes(spec: PermutationSpec, a: Variables, b: Variables) -> None:
    """Checks that a and b are modes of the spec's network (their values only outside a trace).

    Raises:
        ModeError: other structures or shapes, or values that are not finite.
        MatchingError: they are modes of another network.
    """
    leaves = jax.tree.leaves((a, b))
    shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(mode)] for mode in (a, b)]
    alike = jax.tree.structure(a) == jax.tree.structure(b) and shapes[0] == shapes[1]
    traced = any(isinstance(leaf, Tracer) for leaf in leaves)
    if not alike or not leaves or not (traced or _all_finite(leaves)):
        check_pair(a, b)  # says which leaf is at fault
    spec.check_variables(a)


def _all_finite(leaves: list[Any]) -> bool:
    # A sum of squares is read fastest, and is finite only where every entry is.
    inexact = [leaf for leaf in leaves if jnp.issubdtype(dtype_of(leaf), jnp.inexact)]
    if not on_host(inexact):
        return bool(_finite(inexact))
    with np.errstate(all="ignore"):
        arrays = [np.asarray(leaf).ravel(order="K") for leaf in inexact]
        return all(bool(np.isfinite(np.vdot(x, x))) for x in arrays)


@jax.jit
def _finite(leaves: list[jax.Array]) -> jax.Array:
    # Not `vdot`, which would first bring a leaf that is cut up onto one device.
    return jnp.array([jnp.isfinite(jnp.sum(leaf * leaf)) for leaf in leaves]).all()


def widen(tree: Variables) -> Variables:
    """Returns a tree whose floating-point leaves are float32 or wider; others are kept."""
    return map_narrow(tree, lambda leaf: cast(leaf, jnp.float32))


def map_narrow(tree: Variables, change: Callable[[Any], Any]) -> Variables:
    """Returns a tree with a change to the floating-point leaves narrower than float32."""

    def one(leaf: ArrayLike) -> Any:
        kind = dtype_of(leaf)
        narrow = jnp.issubdtype(kind, jnp.floating) and kind.itemsize < 4
        return change(leaf) if narrow else leaf

    return jax.tree.map(one, tree)


def cast(leaf: ArrayLike, dtype: DTypeLike) -> Any:
    """Returns a leaf in another type; on the host nothing is compiled for it."""
    if on_host(leaf):
        return jnp.asarray(host_array(leaf, dtype))
    return jnp.asarray(leaf).astype(dtype)


def trainable(spec: PermutationSpec, variables: Variables) -> frozenset[str]:
    """Returns the leaves that count by default: parameters, not the running statistics of norms.

    Parameters are what stands under `params/`, or everything if nothing does; counters, keys and
    other leaves that hold no real numbers never count.
    """
    paths = [
        path
        for (path, _), leaf in zip(spec.leaves, jax.tree.leaves(variables), strict=True)
        if jnp.issubdtype(dtype_of(leaf), jnp.floating)
    ]
    params = [path for path in paths if path.startswith("params/")]
    return frozenset(params or paths)
