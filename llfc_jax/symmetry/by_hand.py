"""Specs written by hand."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from llfc_jax.errors import MatchingError, unknown
from llfc_jax.pair import leaf_paths
from llfc_jax.symmetry.axes import Axis, Fixed, Units
from llfc_jax.symmetry.spec import Group, PermutationSpec


def permutation_spec_from_axes(
    variables: Any, groups: Mapping[str, Iterable[tuple[str, int]]]
) -> PermutationSpec:
    """A spec written by hand: for each group its (path, axis) pairs. Without sites.

    For networks that cannot be traced. Prefer `permutation_spec`, and prove what you typed with
    `check`.

    Raises:
        MatchingError: unknown paths, axes of different sizes in a group, an axis in two groups.
    """
    leaves = dict(zip(leaf_paths(variables), jax.tree.leaves(variables), strict=True))
    axes: dict[str, list[Axis]] = {
        path: [Fixed(n, "not in any group") for n in np.shape(leaf)]
        for path, leaf in leaves.items()
    }
    made = []
    for name, places in groups.items():
        sizes = set()
        for path, axis in places:
            if path not in axes:
                raise MatchingError(unknown("leaf", path, axes))
            if not 0 <= axis < len(axes[path]):
                raise MatchingError(f"{path} has no axis {axis}; it has {len(axes[path])}")
            if isinstance(axes[path][axis], Units):
                raise MatchingError(f"{path} axis {axis} is in two groups; give it to one")
            axes[path][axis] = units_ = Units(name, axes[path][axis].size)
            sizes.add(units_.size)
        if len(sizes) != 1:
            raise MatchingError(f"group {name!r} joins axes of sizes {sorted(sizes)}; it needs one")
        made.append(Group(name, sizes.pop()))
    return PermutationSpec(tuple(made), tuple((path, tuple(a)) for path, a in axes.items()))
