"""Maxout: the largest of several units of linear layers."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

from llfc_jax.graph.origins import product_unit_axes
from llfc_jax.graph.trace import LINEAR, Equation, Program, is_literal

AFFINE = ("add", "add_any", "sub", "mul", "div", "neg", "convert_element_type", "copy")
Found = tuple[int, tuple[int, ...], tuple[int, ...]]


def find_maxouts(
    program: Program,
    root: Mapping[int, int],
    users: Mapping[int, Sequence[int]],
    weights: Mapping[int, int],
) -> Iterator[Found]:
    """Yields (value, values compared, equations) of each maxout of a network.

    Args:
        program: the flat trace.
        root: for each value that depends on x, the value that it is an elementwise function of.
        users: indices of the equations that use a value.
        weights: which input is the weight, for each linear equation.
    """
    units: dict[int, frozenset[int]] = {}
    found: dict[int, Found] = {}
    for i, eq in enumerate(program.equations):
        held = [a for a in eq.inputs if not is_literal(a) and a in root]
        if eq.name in LINEAR:
            if i in weights:
                product, axes = product_unit_axes(program, i, weights[i])
                units[product] = frozenset(axes)
            continue
        if not held or len(eq.outputs) != 1 or held[0] not in units:
            continue
        (out,) = eq.outputs
        if eq.name == "reduce_max":
            if _compares_units(program, eq, held[0], units) and len(users[held[0]]) == 1:
                found[out] = (out, (held[0],), (i,))
        elif eq.name == "max" and len({root[a] for a in held}) == 2:
            if units.get(held[1]) == units[held[0]]:
                parts = [found.pop(a, (a, (a,), ())) for a in held]
                found[out] = (out, parts[0][1] + parts[1][1], (*parts[0][2], *parts[1][2], i))
                units[out] = units[held[0]]
        elif (axes := _follow(program, eq, held, units)) is not None:
            units[out] = axes
    yield from found.values()


def _compares_units(
    program: Program, eq: Equation, value: int, units: Mapping[int, frozenset[int]]
) -> bool:
    """Whether a maximum is over some of a layer's units, with several left."""
    left = units[value].difference(eq.params["axes"])
    sizes = [program.avals[value].shape[axis] for axis in left]
    return units[value].issuperset(eq.params["axes"]) and math.prod(sizes) > 1


def _follow(
    program: Program, eq: Equation, held: list[int], units: Mapping[int, frozenset[int]]
) -> frozenset[int] | None:
    """The axes that are made of a layer's units, behind an equation that moves or adds."""
    before, axes = program.avals[held[0]].shape, units[held[0]]
    after = program.avals[eq.outputs[0]].shape
    if eq.name in AFFINE:
        return axes if before == after and len(held) == 1 else None
    if eq.name == "transpose":
        return frozenset(j for j, i in enumerate(eq.params["permutation"]) if i in axes)
    if eq.name == "broadcast_in_dim":
        at = {j: i for i, j in enumerate(eq.params["broadcast_dimensions"])}
        return frozenset(j for j, n in enumerate(after) if (at[j] in axes if j in at else n == 1))
    if eq.name in ("reshape", "squeeze"):
        return _through_reshape(before, after, axes)
    if eq.name in ("slice", "split"):
        whole = all(n == m or i in axes for i, (n, m) in enumerate(zip(before, after, strict=True)))
        return axes if whole else None
    alike = len({units.get(a) for a in held}) == 1 and len(held) == len(eq.inputs)
    if eq.name == "concatenate":
        return axes if alike and eq.params["dimension"] in axes else None
    if eq.name == "stack":
        new = eq.params["axis"]
        return frozenset({new, *(i + (i >= new) for i in axes)}) if alike else None
    return None


def _through_reshape(
    before: tuple[int, ...], after: tuple[int, ...], axes: Collection[int]
) -> frozenset[int] | None:
    """The axes of units after a reshape that merges or splits none together with others."""
    if 0 in before:
        return None
    found = {j for j, n in enumerate(after) if n == 1}
    i = j = 0
    while i < len(before) or j < len(after):
        first, second = [i], [j]
        p = before[i] if i < len(before) else 1
        q = after[j] if j < len(after) else 1
        i, j = i + 1, j + 1
        while p != q:
            if p < q:
                first.append(i)
                p, i = p * before[i], i + 1
            else:
                second.append(j)
                q, j = q * after[j], j + 1
        real = [a for a in first if a < len(before) and before[a] > 1]
        if any(a in axes for a in real):
            if not all(a in axes for a in real):
                return None
            found.update(b for b in second if b < len(after))
    return frozenset(found)
