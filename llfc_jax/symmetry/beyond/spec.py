"""The whole symmetry of a network: permutations, matrices, scales and signs, and where they act."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from llfc_jax.errors import MatchingError, unknown
from llfc_jax.symmetry.axes import library
from llfc_jax.symmetry.beyond import algebra
from llfc_jax.symmetry.beyond.draw import draw
from llfc_jax.symmetry.beyond.element import Action, Element
from llfc_jax.symmetry.beyond.transform import Change, transform
from llfc_jax.symmetry.beyond.unknowns import Exponents
from llfc_jax.symmetry.spec import PermutationSpec
from llfc_jax.types import AnyArray, Variables

Places = tuple[tuple[int, int, Exponents], ...]
"""Where a group acts: (number of the leaf, axis, how)."""


@dataclasses.dataclass(frozen=True)
class Fold:
    """A gain that is moved into the weights behind it, so that it is 1 everywhere.

    The gain is what a value is multiplied by: a leaf, or a leaf and a number that is added to it.

    Attributes:
        leaf: number of its leaf.
        group: the group along its axis, in the network as it is.
        places: (leaf, axis, mention of the group along it, power of the gain by which the leaf is
            divided there).
        signed: whether gains may be negative.
        shift: what is added to the leaf.
    """

    leaf: int
    group: str
    places: tuple[tuple[int, int, int, int], ...]
    signed: bool
    shift: float = 0.0


@dataclasses.dataclass(frozen=True)
class SymmetrySpec:
    """Every symmetry that was found of a network, and where it acts.

    Hashable, so that it can be a static argument of `jax.jit`. All but `fold` is about the folded
    network: `fold(variables)` is the same function with gains of 1.

    Attributes:
        permutations: the permutation spec of the folded network.
        actions: what each of its groups may be, in their order.
        places: where each of them acts, in their order.
        unfolded: the permutation spec of the network as it is.
        folds: gains that are folded.
        notes: what was given up, and why.
    """

    permutations: PermutationSpec
    actions: tuple[Action, ...]
    places: tuple[Places, ...]
    unfolded: PermutationSpec
    folds: tuple[Fold, ...] = ()
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def action(self) -> dict[str, Action]:
        """Action of each group's name."""
        return {action.group: action for action in self.actions}

    @functools.cached_property
    def _where(self) -> dict[int, list[tuple[str, int, Exponents]]]:
        """For each leaf, (group, axis, how) of what acts there besides permutations."""
        found: dict[int, list[tuple[str, int, Exponents]]] = {}
        for action, places in zip(self.actions, self.places, strict=True):
            if action.matrix != "none" or action.scales or action.signs:
                for leaf, axis, how in places:
                    found.setdefault(leaf, []).append((action.group, axis, how))
        return found

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a group's units: [n], or [places of the parent, n]."""
        return self.permutations.shape(name)

    @property
    def degrees(self) -> int:
        """Number of continuous parameters of the symmetry."""
        total = 0
        for action in self.actions:
            *outer, n = self.shape(action.group)
            total += int(np.prod(outer, dtype=int)) * action.degrees(n)
        return total

    # -- folding ---------------------------------------------------------------------------------

    def fold(self, variables: Variables) -> Any:
        """Returns the same function with its gains moved into the weights behind them.

        Raises:
            MatchingError: the variables are not this spec's, or a gain cannot be divided by.
        """
        self.unfolded.check_variables(variables)
        leaves, structure = jax.tree.flatten(variables)
        given = list(leaves)
        for fold in self.folds:
            path = self._gain_of(fold)
            gain = given[fold.leaf].reshape(-1) + fold.shift
            if not isinstance(gain, Tracer):
                _check_gain(path, np.asarray(gain), signed=fold.signed)
            leaves = self._scaled(fold, leaves, 1 / gain)
            leaves[fold.leaf] = library(given[fold.leaf]).full_like(
                given[fold.leaf], 1 - fold.shift
            )
        return jax.tree.unflatten(structure, leaves)

    def unfold(self, variables: Variables, gains: Mapping[str, Any]) -> Any:
        """Returns the same function with gains other than 1.

        Args:
            variables: of a folded network.
            gains: by path.
        """
        leaves, structure = jax.tree.flatten(variables)
        for fold in self.folds:
            gain = gains[self.unfolded.leaves[fold.leaf][0]]
            leaves = self._scaled(fold, leaves, gain.reshape(-1) + fold.shift)
            leaves[fold.leaf] = gain
        return jax.tree.unflatten(structure, leaves)

    def _scaled(self, fold: Fold, leaves: Sequence[Any], gain: AnyArray) -> list[Any]:
        """All leaves but the gain itself times powers of a gain."""
        scaled = list(leaves)
        for leaf, axis, part, power in fold.places:
            if leaf != fold.leaf:
                axes, parents = self.unfolded.leaves[leaf][1], self.unfolded.parents
                change = {(axis, fold.group, part): Change(gain**power, is_matrix=False)}
                scaled[leaf] = keep_type(
                    scaled[leaf], transform(scaled[leaf], axes, change, parents)
                )
        return scaled

    def _gain_of(self, fold: Fold) -> str:
        """A gain in words."""
        path, _ = self.unfolded.leaves[fold.leaf]
        return f"{fold.shift:g} + {path}" if fold.shift else path

    def is_folded(self, variables: Variables) -> bool:
        """Whether all gains that the spec folds are 1."""
        leaves = jax.tree.leaves(variables)
        return all(
            bool((np.asarray(leaves[fold.leaf]) == 1 - fold.shift).all()) for fold in self.folds
        )

    # -- elements --------------------------------------------------------------------------------

    def identity(self) -> Element:
        """The element that changes nothing."""
        return Element(self.permutations.identity())

    def random(self, key: jax.Array, *, spread: float = 0.3) -> Element:
        """A random element: permutations, rotations and matrices near them, scales and signs.

        All but the permutations are drawn on the host.

        Args:
            key: a JAX random key.
            spread: how far matrices are from orthogonal ones and scales from 1.
        """
        rng = np.random.default_rng(np.ravel(jax.random.key_data(key)))
        groups = [(action, self.shape(action.group)) for action in self.actions]
        drawn = jax.tree.map(jnp.asarray, draw(groups, rng, spread=spread))
        return Element(self.permutations.random(key), *drawn)

    def apply(self, element: Element, variables: Variables) -> Any:
        """The network moved by an element: the same function.

        Traceable and differentiable; NumPy arrays moved by NumPy arrays stay in NumPy.

        Args:
            element: of this spec.
            variables: of the folded network.

        Raises:
            MatchingError: the element or the variables are not this spec's.
        """
        self.permutations.check_variables(variables)
        self.validate(element)
        leaves, structure = jax.tree.flatten(variables)
        for leaf, changed in self.changed_leaves(element, leaves).items():
            leaves[leaf] = changed
        return self.permutations.apply(element.permutation, jax.tree.unflatten(structure, leaves))

    def changed_leaves(self, element: Element, leaves: Sequence[Any]) -> dict[int, Any]:
        """Returns the leaves that matrices, scales or signs of an element change, by number."""
        changed = {}
        with jax.default_matmul_precision("highest"):
            duals = {name: _dual(matrix) for name, matrix in element.matrices.items()}
            for leaf, held in self._where.items():
                changes: dict[tuple[int, str, int | None], Change] = {}
                for group, axis, how in held:
                    change = _change(element, duals, group, how)
                    if change is not None:
                        changes[axis, group, how.part] = change
                if changes:
                    axes, parents = self.permutations.leaves[leaf][1], self.permutations.parents
                    moved = transform(leaves[leaf], axes, changes, parents)
                    changed[leaf] = keep_type(leaves[leaf], moved)
        return changed

    def compose(self, second: Element, first: Element) -> Element:
        """`apply(compose(second, first), θ) = apply(second, apply(first, θ))`."""
        return algebra.compose(self.permutations, second, first)

    def invert(self, element: Element) -> Element:
        """The element that undoes this one."""
        return algebra.invert(self.permutations, element)

    # -- checks and words ------------------------------------------------------------------------

    def validate(self, element: Element) -> None:
        """See that an element belongs to this spec.

        Raises:
            MatchingError: a group is unknown, has no such action, or its arrays another shape.
        """
        self.permutations.validate(element.permutation)
        for field in ("matrices", "log_scales", "signs"):
            for name, array in getattr(element, field).items():
                if name not in self.action:
                    raise MatchingError(unknown("symmetry group", name, self.action))
                wanted = self._shape_of(field, name)
                if wanted is None:
                    kind = self.action[name].kind
                    words = field.replace("_", " ")
                    raise MatchingError(f"group {name!r} has no {words}; it has {kind}")
                if np.shape(array) != wanted:
                    raise MatchingError(
                        f"{field} of group {name!r} need shape {wanted}, not {np.shape(array)}"
                    )

    def _shape_of(self, field: str, name: str) -> tuple[int, ...] | None:
        action, shape = self.action[name], self.shape(name)
        if field == "matrices":
            return (*shape, shape[-1]) if action.matrix != "none" else None
        count = action.scales if field == "log_scales" else action.signs
        return (count, *shape) if count and action.matrix == "none" else None

    def explain(self) -> str:
        """The symmetry in words: each group, what it may be, where it acts, why it is no larger."""
        lines = []
        for action, places in zip(self.actions, self.places, strict=True):
            group = self.permutations.group[action.group]
            inside = f", inside each of {group.parent}" if group.parent else ""
            lines.append(f"{group.name}: {group.size} units{inside}: {action.kind}")
            if action.why:
                limit = "any matrix" if action.matrix == "orthogonal" else "a matrix"
                lines.append(f"    not {limit}: {action.why}")
            if action.keeps_ones and action.matrix != "none":
                lines.append(f"    keeps the ones: {action.why_ones}")
            for leaf, axis, how in places:
                path, axes = self.permutations.leaves[leaf]
                lines.append(f"    {path} axis {axis}: {axes[axis]}{_words(action, how)}")
        for fold in self.folds:
            into = dict.fromkeys(
                self.unfolded.leaves[leaf][0] for leaf, *_ in fold.places if leaf != fold.leaf
            )
            lines.append(f"folded: {self._gain_of(fold)} into {', '.join(into)}")
        lines += [f"note: {note}" for note in (*self.permutations.notes, *self.notes)]
        return "\n".join(lines)

    # -- files -----------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The spec as JSON; exponents are exact."""
        places = [
            [
                [leaf, axis, how.dual, list(map(str, how.scales)), list(how.signs), how.part]
                for leaf, axis, how in held
            ]
            for held in self.places
        ]
        return json.dumps(
            {
                "permutations": json.loads(self.permutations.to_json()),
                "actions": [list(dataclasses.astuple(action)) for action in self.actions],
                "places": places,
                "unfolded": json.loads(self.unfolded.to_json()),
                "folds": [[f.leaf, f.group, list(map(list, f.places)), f.signed, f.shift]
                          for f in self.folds],
                "notes": list(self.notes),
            }
        )  # fmt: skip

    @classmethod
    def from_json(cls, text: str) -> "SymmetrySpec":
        """The spec that `to_json` wrote.

        Raises:
            MatchingError: the text is no spec.
        """
        try:
            value = json.loads(text)
            plain, unfolded = (
                PermutationSpec.from_json(json.dumps(value[name]))
                for name in ("permutations", "unfolded")
            )
            actions = tuple(
                Action(*entry, pairs=tuple((i, j) for i, j in pairs))
                for *entry, pairs in value["actions"]
            )
            places = tuple(
                tuple(
                    (leaf, axis, Exponents(dual, tuple(map(Fraction, scales)), tuple(signs), part))
                    for leaf, axis, dual, scales, signs, part in held
                )
                for held in value["places"]
            )
            folds = tuple(
                Fold(leaf, group, tuple((i, j, m, k) for i, j, m, k in held), *rest)
                for leaf, group, held, *rest in value["folds"]
            )
            return cls(plain, actions, places, unfolded, folds, tuple(value["notes"]))
        except (ValueError, KeyError, TypeError, MatchingError) as error:
            raise MatchingError(f"not a symmetry spec: {error}") from error


def _check_gain(path: str, gain: np.ndarray, *, signed: bool) -> None:
    largest = float(np.max(np.abs(gain), initial=0))
    if not (np.abs(gain) > 1e-6 * largest).all():
        raise MatchingError(
            f"{path} holds zeros, so it cannot be moved into the weights behind it; use "
            'symmetry="permutation"'
        )
    if not signed and (gain < 0).any():
        raise MatchingError(
            f"{path} holds negative gains, and what stands behind it does not take signs; use "
            'symmetry="permutation"'
        )


def _change(
    element: Element, duals: Mapping[str, Any], group: str, how: Exponents
) -> Change | None:
    if group in element.matrices:
        return Change(duals[group] if how.dual else element.matrices[group], is_matrix=True)
    factor: Any = None
    if group in element.log_scales and any(how.scales):
        logs = zip(how.scales, element.log_scales[group], strict=True)
        total = sum(float(k) * log for k, log in logs if k)
        factor = library(total).exp(total)
    if group in element.signs and any(how.signs):
        for sign in (s for s, k in zip(element.signs[group], how.signs, strict=True) if k):
            factor = sign if factor is None else factor * sign
    return None if factor is None else Change(factor, is_matrix=False)


def _dual(matrix: AnyArray) -> Any:
    xp = library(matrix)
    return xp.swapaxes(xp.linalg.inv(matrix), -1, -2)


def keep_type(old: AnyArray, new: AnyArray) -> Any:
    """Returns the new array in the type of the old one."""
    return new.astype(jnp.result_type(old)) if hasattr(new, "astype") else new


def _words(action: Action, how: Exponents) -> str:
    words = ["" if how.part is None else f"mention {how.part + 1}"]
    if action.matrix == "any":
        words.append("dual" if how.dual else "")
    elif any(how.scales):
        words.append(f"scaled to the power {', '.join(map(str, how.scales))}")
    return f" ({', '.join(filter(None, words))})" if any(words) else ""
