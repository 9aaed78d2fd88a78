"""The symmetry spec of a network, read off its trace: the largest group that its equations allow.

The permutation spec comes first. Then its groups are given all that the equations allow besides
permutations (`acting`). A gain behind a norm would leave no more than scales along its axis; where
all that reads the product takes those scales, the gain can be moved into the weights there, and
the network is read again as one whose gain is 1.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from llfc_jax.graph import Graph, trace
from llfc_jax.symmetry.axes import Axis
from llfc_jax.symmetry.beyond.acting import Acting
from llfc_jax.symmetry.beyond.element import Action
from llfc_jax.symmetry.beyond.equations import read_actions
from llfc_jax.symmetry.beyond.exponents import independent
from llfc_jax.symmetry.beyond.nested import Held, own_exponents
from llfc_jax.symmetry.beyond.rotary import find_turns
from llfc_jax.symmetry.beyond.shifts import Shift, find_shifts
from llfc_jax.symmetry.beyond.spec import Fold, Places, SymmetrySpec
from llfc_jax.symmetry.beyond.unknowns import Exponents, Freedom, merge_parts
from llfc_jax.symmetry.derive import describe_values, name_axes
from llfc_jax.symmetry.naming import Names
from llfc_jax.symmetry.reading import TURN
from llfc_jax.symmetry.spec import Group
from llfc_jax.symmetry.terms import Term, Unknown, atoms, find
from llfc_jax.symmetry.values import Pairs, Turn
from llfc_jax.types import Inputs, Model, Variables


def symmetry_spec(network: Model, variables: Variables, x: Inputs) -> SymmetrySpec:
    """Derives which symmetries a network has, from its trace.

    Args:
        network: a module of any framework, or a function `apply(variables, x) -> outputs`, the
            network in evaluation mode.
        variables: its variables, or their shapes.
        x: a batch, or its shape; two samples are enough.

    Returns:
        The spec; `explain()` prints it.

    Raises:
        GraphError: the network cannot be traced.

    Examples:
        >>> import jax.numpy as jnp
        >>> def apply(w, x):
        ...     return jnp.maximum(x @ w["first"], 0) @ w["second"] @ w["third"]
        >>> w = {"first": jnp.ones((3, 4)), "second": jnp.ones((4, 5)), "third": jnp.ones((5, 2))}
        >>> spec = symmetry_spec(apply, w, jnp.ones((6, 3)))
        >>> [action.kind for action in spec.actions]
        ['permutations, positive scales', 'invertible matrices']
    """
    return derive_symmetry(trace(network, variables, x))


def derive_symmetry(graph: Graph) -> SymmetrySpec:
    """Derives the symmetries of a traced network."""
    shifts = find_shifts(graph.program)
    plain = name_axes(graph, same=_sums(shifts))
    acting = read_actions(plain.reading)
    leaves = [plain.reading.values[n] for n in graph.program.leaves]
    solved = acting.actions.solve(leaves)
    folds, notes = _folds(graph, plain, acting, solved, shifts)
    while True:
        names, again, turned = read_folded(graph, folds)
        kept = [fold for fold in folds if _is_larger(graph, names, again, fold)]
        if len(kept) == len(folds):
            break
        folds = kept
    actions, places = _actions(graph, names, again)
    actions = tuple(
        dataclasses.replace(action, pairs=turned[action.group], why=TURN)
        if action.group in turned
        else action
        for action in actions
    )
    return SymmetrySpec(
        describe_values(graph, names, turned).spec,
        actions,
        places,
        describe_values(graph, plain).spec,
        tuple(folds),
        tuple(notes),
    )


def read_folded(graph: Graph, folds: Sequence[Fold]) -> tuple[Names, Acting, dict[str, Pairs]]:
    """Reads a network whose gains are folded, seeing through what turns pairs of units.

    Returns:
        Its groups, what they may do, and the pairs of those that are turned. A turn is seen
        through only where a matrix could act if nothing were turned.
    """
    held = frozenset(graph.program.leaves[fold.leaf] for fold in folds)
    shifts, folded = find_shifts(graph.program), {fold.leaf for fold in folds}
    same = _sums({leaf: shift for leaf, shift in shifts.items() if leaf in folded})
    turns = find_turns(graph)
    while True:
        names = name_axes(graph, held, turns, same)
        acting = read_actions(names.reading)
        named: dict[Term, str] = {atom: name for name, atom in names.terms.items()}
        found: dict[str, set[Pairs]] = {}
        for turn in turns:
            found.setdefault(_turned_group(names, acting, named, turn), set()).add(turn.pairs)
        kept = [
            turn
            for turn in turns
            if (name := _turned_group(names, acting, named, turn)) and len(found[name]) == 1
        ]
        if len(kept) == len(turns):
            return names, acting, {name: pairs for name, (pairs,) in found.items()}
        turns = tuple(kept)


def _sums(shifts: Mapping[int, Shift]) -> dict[int, int]:
    """Sums of leaves and numbers, read as if they were the leaves."""
    return {shift.made: shift.source for shift in shifts.values()}


def _turned_group(names: Names, acting: Acting, named: Mapping[Term, str], turn: Turn) -> str:
    """The group whose pairs are turned, "" where no matrix may act."""
    atom = find(names.reading.values[turn.source].axes[turn.axis])
    name = named.get(atom, "")
    if not name or any(group.parent == name for group in names.groups):
        return ""
    assert isinstance(atom, Unknown)
    freedom = acting.actions.freedom.get(atom, Freedom("none"))
    return name if freedom.matrix != "none" and not freedom.keeps_ones else ""


def _actions(
    graph: Graph, names: Names, acting: Acting
) -> tuple[tuple[Action, ...], tuple[Places, ...]]:
    leaves = [names.reading.values[n] for n in graph.program.leaves]
    solved = acting.actions.solve(leaves)
    held = {group.name: solved.get(names.terms[group.name], {}) for group in names.groups}
    found = {group.name: _action(group, names, acting, held[group.name]) for group in names.groups}
    layout, parents = _layout(graph, names), {g.name: g.parent for g in names.groups if g.parent}
    actions, places = [], []
    for group in names.groups:
        inside = [(found[g.name], held[g.name]) for g in names.groups if g.parent == group.name]
        own, action = held[group.name], found[group.name]
        if inside:
            own = own_exponents(action, own, inside, layout, parents)
            action = _with_dimensions(action, own)
        actions.append(action)
        places.append(tuple(merge_parts(own)))
    return tuple(actions), tuple(places)


def _action(group: Group, names: Names, acting: Acting, held: Held) -> Action:
    """What a group may be."""
    freedom = acting.actions.freedom.get(names.terms[group.name], Freedom("none"))
    if any(other.parent == group.name for other in names.groups):
        freedom = Freedom("none", why=freedom.why or "other groups stand inside it")
    matrix = freedom.matrix if group.size > (2 if freedom.keeps_ones else 1) else "none"
    action = Action(
        group.name,
        matrix,
        keeps_ones=freedom.keeps_ones and matrix != "none",
        why=freedom.why,
        why_ones=freedom.why_ones,
    )
    return _with_dimensions(action, held)


def _with_dimensions(action: Action, held: Held) -> Action:
    """The action with as many scales and signs as its exponents have dimensions."""
    first = next(iter(held.values()), Exponents(False))
    if action.matrix != "none":
        return action
    return dataclasses.replace(action, scales=len(first.scales), signs=len(first.signs))


def _layout(graph: Graph, names: Names) -> list[tuple[str, tuple[Axis, ...]]]:
    values = (names.reading.values[n] for n in graph.program.leaves)
    return [
        (path, names.axes(value.axes))
        for path, value in zip(graph.program.paths, values, strict=True)
    ]


def _folds(
    graph: Graph,
    names: Names,
    acting: Acting,
    solved: dict[Unknown, dict[tuple[int, int, int], Exponents]],
    shifts: Mapping[int, Shift],
) -> tuple[list[Fold], list[str]]:
    """The gains that can be moved into other weights, and a note for each that cannot."""
    name = {atom: text for text, atom in names.terms.items()}
    whole = {group.name for group in names.groups if not group.parent}
    program = graph.program
    wanted: dict[Unknown, list[tuple[int, int, int]]] = {}
    for leaf in dict.fromkeys(leaf for _, leaf in acting.gains):
        value = names.reading.values[program.leaves[leaf]]
        long = [i for i, term in enumerate(value.axes) if term.size > 1]
        atom = find(value.axes[long[0]]) if len(long) == 1 else None
        if isinstance(atom, Unknown) and atom in solved and name.get(atom) in whole:
            wanted.setdefault(atom, []).append((leaf, long[0], 0))
    folds, notes = [], []
    for atom, gains in wanted.items():
        places = list(solved[atom])
        vectors = _rows([how.scales for how in solved[atom].values()])
        signs = _rows([how.signs for how in solved[atom].values()])
        chosen, reduced = _reduced(vectors, [places.index(gain) for gain in gains])
        for gain, row in zip(gains, chosen, strict=True):
            path = program.paths[gain[0]]
            if row is None or any(k.denominator != 1 for k in reduced[row]):
                notes.append(
                    f"{path} cannot be moved into the weights behind it: its group, "
                    f"{name[atom]}, is not read by weights of its own alone"
                )
                continue
            powers = [int(k) for k in reduced[row]]
            beside = [place for place, k in zip(places, powers, strict=True)
                      if k and place != gain and place[0] in shifts]  # fmt: skip
            if beside:
                notes.append(
                    f"{path} cannot be moved into the weights behind it: "
                    f"{program.paths[beside[0][0]]} is among them, to which a number is added"
                )
                continue
            odd = {i: k % 2 for i, k in enumerate(powers) if k % 2}
            others = [{i: k for i, k in enumerate(v) if k} for v in signs]
            signed = len(others) not in independent([*others, odd], 2)
            held = tuple((*place, k) for place, k in zip(places, powers, strict=True) if k)
            shift = shifts[gain[0]].amount if gain[0] in shifts else 0.0
            folds.append(Fold(gain[0], name[atom], held, signed, shift))
    return folds, notes


def _rows(columns: list[tuple[Any, ...]]) -> list[list[Any]]:
    """Exponents by dimension and place, from those by place and dimension."""
    return [list(row) for row in zip(*columns, strict=True)]


def _reduced(rows: list[list[Any]], columns: list[int]) -> tuple[list[int | None], list[list[Any]]]:
    """For each column a row that is 1 there and 0 in the other columns, where there is one."""
    rows = [list(row) for row in rows]
    pivots: list[int | None] = []
    for column in columns:
        free = (i for i, row in enumerate(rows) if row[column] and i not in pivots)
        pivot = next(free, None)
        pivots.append(pivot)
        if pivot is None:
            continue
        factor = rows[pivot][column]
        rows[pivot] = [k / factor for k in rows[pivot]]
        for i, row in enumerate(rows):
            if i != pivot and row[column]:
                rows[i] = [a - row[column] * b for a, b in zip(row, rows[pivot], strict=True)]
    return pivots, rows


def _is_larger(graph: Graph, names: Names, acting: Acting, fold: Fold) -> bool:
    """Whether a matrix may act where a gain was, now that it is folded."""
    for leaf, axis, *_ in fold.places:
        if leaf != fold.leaf:
            value = names.reading.values[graph.program.leaves[leaf]]
            held = [acting.actions.freedom.get(atom) for atom in atoms(value.axes[axis])]
            if any(freedom is not None and freedom.matrix != "none" for freedom in held):
                return True
    return False
