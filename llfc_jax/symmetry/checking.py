"""Proves a spec on numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.errors import MatchingError
from llfc_jax.graph import Apply
from llfc_jax.symmetry.spec import PermutationSpec

MOST_SAMPLES = 2


def identity(spec: PermutationSpec) -> dict[str, np.ndarray]:
    """Returns the permutation that moves nothing, in NumPy."""
    shapes = {name: spec.shape(name) for name in spec.group}
    return {
        name: np.broadcast_to(np.arange(shape[-1], dtype=np.int32), shape)
        for name, shape in shapes.items()
    }


def derangement(spec: PermutationSpec, name: str) -> dict[str, np.ndarray]:
    """Returns the permutation that moves every unit of one group, and no other group.

    Units go round by one place; inside a parent by another number of places in each of its own,
    so that an order shared by all places would not do.
    """
    moved = identity(spec)
    shape = spec.shape(name)
    n = shape[-1]
    if len(shape) == 1:
        moved[name] = np.roll(moved[name], 1)
    else:
        steps = [1 + place % max(1, n - 1) for place in range(shape[0])]
        moved[name] = np.stack([np.roll(np.arange(n), step) for step in steps]).astype(np.int32)
    return moved


def check(
    spec: PermutationSpec, apply: Apply, variables: Any, x: Any, *, tolerance: float | None = None
) -> float:
    """Proves a spec on numbers: moving all units of any one group leaves the outputs alone.

    Every group is moved by itself, so that each unit leaves its place and no other change can
    make up for it. In float64 where JAX has it switched on or can switch it on. One compilation.

    Args:
        spec: the spec to prove.
        apply: the network.
        variables: its variables; random ones prove more than trained or constant ones.
        x: a batch; its first two samples are used.
        tolerance: largest allowed change, as a share of the largest output; by default 1e-9 in
            float64, 1e-3 where the network computes in less.

    Returns:
        The largest change seen, as a share of the largest output.

    Raises:
        MatchingError: a permutation of a group changes the outputs by more than that.
    """
    x = jax.tree.map(lambda leaf: leaf[:MOST_SAMPLES], x)
    worst = 0.0
    with double_precision():
        variables, x = (jax.tree.map(_widen, tree) for tree in (variables, x))
        run = jax.jit(apply)
        before = np.asarray(run(variables, x))
        limit = tolerance
        if limit is None:
            limit = 1e-9 if before.dtype == np.float64 else 1e-3
        leaves = jax.tree.map(np.asarray, variables)
        for group in spec.groups:
            moved = spec.apply(derangement(spec, group.name), leaves)
            after = np.asarray(run(moved, x))
            largest = np.max(np.abs(np.where(np.isfinite(before), before, 0)), initial=1e-30)
            same = (before == after) | (np.isnan(before) & np.isnan(after))
            change = np.where(same, 0, np.abs(after.astype(float) - before)) / largest
            change = float(np.max(change, initial=0))
            if not change <= limit:
                raise MatchingError(
                    f"the spec is wrong for this network: moving the units of group "
                    f"{group.name!r} changes its output by {change:.1e} of its largest value; "
                    "remove that group (spec.explain() lists where it acts)"
                )
            worst = max(worst, change)
    return worst


def double_precision() -> Any:
    """Returns a context in which JAX computes in float64."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # JAX below 0.8

    return enable_x64(True)


def _widen(leaf: Any) -> Any:
    """A leaf in float64 where it is real, so that rounding does not hide a change."""
    if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
        return leaf
    array = np.asarray(leaf)
    return array.astype(np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array
