"""Permutation specs: which units of a network may trade places, and where that acts.

Convention, as in Git Re-Basin: unit `indices[i]` goes to place `i`, that is
`jnp.take(weight, indices, axis)`.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from llfc_jax.errors import MatchingError, unknown
from llfc_jax.io import aside
from llfc_jax.pair import leaf_paths
from llfc_jax.parallel.spread import is_spread, relabel
from llfc_jax.symmetry import algebra
from llfc_jax.symmetry.axes import Axis, Fixed, Permutation, from_json, permute, to_json, units


@dataclasses.dataclass(frozen=True)
class Group:
    """Units that may trade places with each other.

    Attributes:
        name: unique; the first layer that hands these units out.
        size: number of units (inside one place of the parent, if there is one).
        parent: name of the group inside whose places this one permutes, independently in each
            (attention: the width of a head inside the heads); "" for none.
        rigid: its units keep their places, and only what goes beyond permutations moves them.
    """

    name: str
    size: int
    parent: str = ""
    rigid: bool = False


@dataclasses.dataclass(frozen=True)
class PermutationSpec:
    """Every permutation of hidden units that leaves a network's function unchanged.

    Hashable, so that it can be a static argument of `jax.jit`.

    Attributes:
        groups: the groups of units, parents before the groups inside them.
        leaves: (path, axes) of every leaf of the variables, in tree order.
        sites: (name, axes) of the network's sites that carry a group, in the order in which they
            are computed: where activations can be matched.
        notes: what was fixed because it could not be understood, and why.
    """

    groups: tuple[Group, ...]
    leaves: tuple[tuple[str, tuple[Axis, ...]], ...]
    # Their axes hold the batch size of the trace, which is no part of what a spec says.
    sites: tuple[tuple[str, tuple[Axis, ...]], ...] = dataclasses.field(default=(), compare=False)
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def group(self) -> dict[str, Group]:
        """Group of each name."""
        return {group.name: group for group in self.groups}

    @functools.cached_property
    def parents(self) -> dict[str, str]:
        """Parent of each nested group."""
        return {group.name: group.parent for group in self.groups if group.parent}

    @property
    def _nested(self) -> algebra.Parents:
        return tuple(self.parents.items())

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a group's index array: [size], or [parent size, size]."""
        group = self.group[name]
        return (self.group[group.parent].size, group.size) if group.parent else (group.size,)

    # -- permutations ----------------------------------------------------------------------------

    def identity(self) -> dict[str, jax.Array]:
        """The permutation that moves nothing."""
        return {
            g.name: jnp.broadcast_to(jnp.arange(g.size, dtype=jnp.int32), self.shape(g.name))
            for g in self.groups
        }

    def random(self, key: jax.Array) -> dict[str, jax.Array]:
        """A permutation drawn uniformly; group `i` uses `fold_in(key, i)`."""
        drawn = algebra.draw(tuple((g.name, self.shape(g.name)) for g in self.groups), key)
        return drawn | {n: p for n, p in self.identity().items() if self.group[n].rigid}

    def apply(self, permutation: Permutation, variables: Any) -> Any:
        """The permuted network π(θ): the same function, its units in other places.

        Leaves that no group touches come back as they are, not copied. Traceable; NumPy arrays
        permuted by NumPy indices stay in NumPy.

        Raises:
            MatchingError: the permutation or the variables do not belong to this spec.
        """
        self.validate(permutation)
        self.check_variables(variables)
        leaves, structure = jax.tree.flatten(variables)
        places = [i for i, (_, axes) in enumerate(self.leaves) if any(_carried(axes))]
        # Only what moves goes through the compiled function: the rest is handed on, not copied.
        axes = tuple(self.leaves[i][1] for i in places)
        held = [leaves[i] for i in places]
        if all(isinstance(array, np.ndarray) for array in (*held, *permutation.values())):
            pairs = zip(held, axes, strict=True)
            moved = [permute(array, own, permutation, self.parents) for array, own in pairs]
        elif is_spread(held):
            index: Any = {name: np.asarray(p) for name, p in permutation.items()}
            pairs = zip(axes, relabel(held), strict=True)
            moved = [algebra.move_leaf(self._nested, own, index, leaf) for own, leaf in pairs]
        else:
            moved = algebra.move(self._nested, axes, dict(permutation), held)
        for i, leaf in zip(places, moved, strict=True):
            leaves[i] = leaf
        return jax.tree.unflatten(structure, leaves)

    def invert(self, permutation: Permutation) -> dict[str, jax.Array]:
        """The permutation that undoes this one: `apply(invert(p), apply(p, θ)) = θ`."""
        self.validate(permutation)
        return algebra.invert(self._nested, dict(permutation))

    def compose(self, second: Permutation, first: Permutation) -> dict[str, jax.Array]:
        """`apply(compose(second, first), θ) = apply(second, apply(first, θ))`."""
        self.validate(second)
        self.validate(first)
        return algebra.compose(self._nested, dict(second), dict(first))

    # -- checks ----------------------------------------------------------------------------------

    def validate(self, permutation: Permutation) -> None:
        """See that a permutation belongs to this spec (its values only outside a trace).

        Raises:
            MatchingError: a group is missing, unknown, of another shape, or no permutation.
        """
        for name in permutation:
            if name not in self.group:
                raise MatchingError(unknown("permutation group", name, self.group))
        for name in self.group:
            if name not in permutation:
                raise MatchingError(f"the permutation lacks group {name!r}; start from identity()")
            index, shape = permutation[name], self.shape(name)
            if np.shape(index) != shape or not jnp.issubdtype(jnp.result_type(index), jnp.integer):
                raise MatchingError(
                    f"group {name!r} needs integers of shape {shape}, the permutation has "
                    f"{jnp.result_type(index)} of shape {np.shape(index)}"
                )
            if isinstance(index, Tracer):
                continue
            if (np.sort(np.asarray(index), -1) != np.arange(shape[-1])).any():
                raise MatchingError(
                    f"group {name!r} holds no permutation of 0..{shape[-1] - 1}: a number repeats "
                    "or is out of range"
                )
            if self.group[name].rigid and (np.asarray(index) != np.arange(shape[-1])).any():
                raise MatchingError(
                    f"the units of group {name!r} keep their places; for permutations alone derive "
                    "permutation_spec"
                )

    def check_variables(self, variables: Any) -> None:
        """See that variables are those of the network of this spec.

        Raises:
            MatchingError: other paths or other shapes.
        """
        paths = leaf_paths(variables)
        known = tuple(path for path, _ in self.leaves)
        if paths != known:
            odd = sorted(set(paths) ^ set(known))[:3] or ["their order"]
            raise MatchingError(
                f"these variables are not the spec's: they differ in {', '.join(odd)}; derive the "
                "spec from the network they belong to"
            )
        for (path, axes), leaf in zip(self.leaves, jax.tree.leaves(variables), strict=True):
            if np.shape(leaf) != tuple(axis.size for axis in axes):
                raise MatchingError(
                    f"{path} has shape {np.shape(leaf)}, the spec "
                    f"{tuple(axis.size for axis in axes)}"
                )

    def where(self, name: str) -> list[tuple[str, int]]:
        """The (path, axis) pairs on which a group acts.

        Raises:
            MatchingError: an unknown group.
        """
        if name not in self.group:
            raise MatchingError(unknown("permutation group", name, self.group))
        return [
            (path, i)
            for path, axes in self.leaves
            for i, axis in enumerate(axes)
            if any(u.group == name for u in units(axis))
        ]

    def explain(self) -> str:
        """The spec in words: groups and where they act, fixed axes and why, what was given up."""
        lines = []
        layout = dict(self.leaves)
        for group in self.groups:
            inside = f", inside each of {group.parent}" if group.parent else ""
            lines.append(f"{group.name}: {group.size} units{inside}")
            for path, axis in self.where(group.name):
                lines.append(f"    {path} axis {axis}: {layout[path][axis]}")
        reasons: dict[str, list[str]] = {}
        for path, axes in self.leaves:
            for i, axis in enumerate(axes):
                for part in _fixed(axis):
                    if part.size > 1:
                        reasons.setdefault(part.reason or "fixed", []).append(f"{path} axis {i}")
        for reason, places in reasons.items():
            lines.append(f"fixed ({reason}): {', '.join(dict.fromkeys(places))}")
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    # -- files -----------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The spec as JSON."""
        return json.dumps(
            {
                "groups": [list(dataclasses.astuple(g)) for g in self.groups],
                "leaves": [[path, [to_json(a) for a in axes]] for path, axes in self.leaves],
                "sites": [[name, [to_json(a) for a in axes]] for name, axes in self.sites],
                "notes": list(self.notes),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "PermutationSpec":
        """The spec that `to_json` wrote.

        Raises:
            MatchingError: the text is no spec.
        """

        def layout(pairs: Iterable[Any]) -> tuple[tuple[str, tuple[Axis, ...]], ...]:
            return tuple((name, tuple(map(from_json, axes))) for name, axes in pairs)

        try:
            value = json.loads(text)
            groups = tuple(Group(*entry) for entry in value["groups"])
            return cls(
                groups, layout(value["leaves"]), layout(value["sites"]), tuple(value["notes"])
            )
        except (ValueError, KeyError, TypeError) as error:
            raise MatchingError(f"not a permutation spec: {error}") from error

    def save(self, path: str | os.PathLike[str], permutation: Permutation) -> None:
        """Write spec and permutation to one .npz file (plain arrays, no pickles)."""
        self.validate(permutation)
        arrays = {f"group:{name}": np.asarray(p) for name, p in permutation.items()}
        with aside(Path(path)) as place, place.open("wb") as file:
            np.savez_compressed(file, spec=np.array(self.to_json()), **arrays)  # pyright: ignore


def _carried(axes: Iterable[Axis]) -> Iterable[bool]:
    return (True for axis in axes for _ in units(axis))


def _fixed(axis: Axis) -> Iterable[Fixed]:
    if isinstance(axis, Fixed):
        return [axis]
    parts: tuple[Axis, ...] = getattr(axis, "parts", ())
    return [f for part in parts for f in _fixed(part)]
