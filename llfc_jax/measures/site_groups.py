"""Sites of one shape computed together, so that a program holds each computation once per shape.

Compiling a program takes time in proportion to its operations, and a network of equal layers would
repeat every reduction once per layer. Stacked, they are one operation.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class SiteGroups:
    """Which of several arrays, one for each site, agree in their shape.

    Args:
        arrays: one for each site.
    """

    def __init__(self, arrays: Sequence[jax.Array]) -> None:
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, array in enumerate(arrays):
            groups.setdefault(array.shape, []).append(i)
        self._groups = tuple(groups.values())
        self._order = np.argsort(np.concatenate(self._groups))
        self._in_order = bool((np.diff(self._order) > 0).all())

    def stack(self, arrays: Sequence[jax.Array]) -> list[jax.Array]:
        """Returns one array [sites of the group, ...] for each group."""
        return [jnp.stack([arrays[i] for i in group]) for group in self._groups]

    def join(self, of_groups: Sequence[Any]) -> Any:
        """Returns trees [sites of the group, ...], one for each group, as one tree [sites, ...]."""
        joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *of_groups)
        if self._in_order:
            return joined
        return jax.tree.map(lambda leaf: leaf[self._order], joined)
