"""Laws of permutations on any layout of axes, against a definition by addresses; damaged files.

The definition: every place of an array has an address, which says the unit of each group that it
belongs to. A permutation replaces units in addresses; the array at an address takes what stood at
the replaced one.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matching_nets import equal

from llfc_jax.errors import MatchingError
from llfc_jax.matching.assignment.family import composite
from llfc_jax.matching.search.mixtures import as_mixture, mix
from llfc_jax.symmetry import Group, PermutationSpec, load
from llfc_jax.symmetry.axes import Axis, Each, Fixed, Product, Sum, Units
from llfc_jax.symmetry.blocks import blocks

GROUPS = (Group("g", 3), Group("h", 2), Group("in", 2, "h"), Group("also", 3, "h"))
FEW = settings(
    max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)

G, H, IN, ALSO = (Units(group.name, group.size) for group in GROUPS)


@st.composite
def layouts(draw: Any) -> tuple[Axis, ...]:
    """Axes of an array; a group inside another one stands beside it, in any order."""
    pair = Product((H, draw(st.sampled_from([IN, ALSO]))))
    piece = st.sampled_from([G, Fixed(2, "a reason"), pair, Product((Fixed(2), G))])
    parts: list[Axis] = [G, Fixed(2, "a reason")]
    inner = draw(st.sampled_from(["none", "apart", "joined", "turned", "in a sum", "siblings"]))
    if inner == "joined":
        parts.append(pair)
    elif inner == "siblings":
        parts += [H, IN, ALSO]
    elif inner in ("apart", "turned"):
        parts += pair.parts if inner == "apart" else pair.parts[::-1]
    elif inner == "in a sum":
        joined = tuple(draw(st.lists(piece, min_size=2, max_size=3)))
        places = np.repeat(np.arange(len(joined)), [part.size for part in joined])
        places = np.array(draw(st.permutations(places.tolist())))
        runs = tuple((int(p), len(list(run))) for p, run in itertools.groupby(places))
        parts.append(Sum(joined, runs))
    parts = draw(st.permutations(parts[draw(st.integers(0, 2)) :] or parts))
    if inner in ("none",) and draw(st.booleans()):
        parts.append(G)  # a group on two axes
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(parts) - 1)))))
    bounds = [0, *[c for c in cuts if c < len(parts)], len(parts)]
    pieces = [parts[i:j] for i, j in itertools.pairwise(bounds)]
    return tuple(p[0] if len(p) == 1 else Product(tuple(p)) for p in pieces)


def addresses(axis: Axis, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of each place of an axis: (where in the expression, group or "", number), ..."""
    if isinstance(axis, (Fixed, Units)):
        group = axis.group if isinstance(axis, Units) else ""
        return [((path, group, i),) for i in range(axis.size)]
    inner = [addresses(part, (*path, p)) for p, part in enumerate(axis.parts)]
    if isinstance(axis, Product):
        return [sum(combined, ()) for combined in itertools.product(*inner)]
    streams = [iter(part) for part in inner]
    return [next(streams[p]) for p, length in axis.runs for _ in range(length)]


def by_address(array: np.ndarray, axes: tuple[Axis, ...], permutation: Any) -> np.ndarray:
    """The permuted array, one element after the other."""
    listed = [addresses(axis, (i,)) for i, axis in enumerate(axes)]
    everywhere = {
        sum((listed[i][place] for i, place in enumerate(index)), ()): index
        for index in np.ndindex(array.shape)
    }
    parents = {group.name: group.parent for group in GROUPS}
    moved = np.empty_like(array)
    for address, index in everywhere.items():
        at = {group: number for _, group, number in address}

        def taken(group: str, number: int, at: Any = at) -> int:
            if not group:
                return number
            index = permutation[group]
            return int(index[at[parents[group]]][number] if parents[group] else index[number])

        moved[index] = array[everywhere[tuple((w, g, taken(g, n)) for w, g, n in address)]]
    return moved


def spec_of(*layout: tuple[Axis, ...]) -> PermutationSpec:
    leaves = tuple((f"leaf{i:02}", axes) for i, axes in enumerate(layout))
    return PermutationSpec(GROUPS, leaves)


def numbers(axes: tuple[Axis, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=[axis.size for axis in axes]).astype(np.float32)


def overlap(spec: PermutationSpec, axes: Any, a: Any, b: Any, permutation: Any) -> float:
    """`<a, π(b)>` from the blocks, whose axes are whole groups."""
    value = 0.0
    for block in blocks(axes, spec.parents):
        moved = block.extract(b)
        for axis, group in enumerate(block.groups, 1):
            moved = np.take(moved, np.asarray(composite(spec, permutation, group)), axis)
        value += np.vdot(block.extract(a).astype(np.float64), moved)
    return value


seeds = st.integers(0, 2**31 - 1)


@settings(FEW, max_examples=2)
@given(st.lists(layouts(), min_size=20, max_size=20), seeds)  # many at once: one compilation
def test_applying_and_the_objective_are_by_definition(layout: list[Any], seed: int) -> None:
    """Also what weight matching maximises, from its blocks: the inner product in float64."""
    spec = spec_of(*layout)
    names = [name for name, _ in spec.leaves]
    a, b = ({name: numbers(axes, s) for name, axes in spec.leaves} for s in (1, 2))
    permutation = spec.random(jax.random.key(seed))
    fixed = jax.tree.map(np.asarray, permutation)
    expected = {name: by_address(b[name], axes, fixed) for name, axes in spec.leaves}
    moved = spec.apply(permutation, b)
    back = spec.apply(spec.invert(permutation), moved)
    for name in names:
        np.testing.assert_array_equal(moved[name], expected[name], str(dict(spec.leaves)[name]))
        np.testing.assert_array_equal(back[name], b[name], str(dict(spec.leaves)[name]))
    found = [overlap(spec, axes, a[name], b[name], permutation) for name, axes in spec.leaves]
    by_hand = [np.vdot(a[name].astype(np.float64), expected[name]) for name in names]
    np.testing.assert_allclose(found, by_hand, atol=1e-4)


@settings(FEW, max_examples=60)
@given(seeds, seeds, seeds)
def test_permutations_are_a_group(first: int, second: int, third: int) -> None:
    spec = spec_of((G, H, IN), (ALSO, H))
    p, q, r = (spec.random(jax.random.key(seed)) for seed in (first, second, third))
    e, inverse = spec.identity(), spec.invert(p)
    assert equal(spec.compose(p, e), p)
    assert equal(spec.compose(e, p), p)
    assert equal(spec.compose(p, inverse), e)
    assert equal(spec.compose(inverse, p), e)
    assert equal(spec.compose(spec.compose(p, q), r), spec.compose(p, spec.compose(q, r)))
    assert equal(spec.invert(spec.compose(p, q)), spec.compose(spec.invert(q), spec.invert(p)))
    w = {"leaf00": numbers(spec.leaves[0][1]), "leaf01": numbers(spec.leaves[1][1])}
    once, twice = spec.apply(spec.compose(p, q), w), spec.apply(p, spec.apply(q, w))
    assert all(np.array_equal(once[name], twice[name]) for name in w)


@FEW
@given(st.lists(layouts(), min_size=1, max_size=3), seeds)
def test_json_gives_back_the_spec(layout: list[tuple[Axis, ...]], seed: int) -> None:
    spec = spec_of(*layout)
    read = PermutationSpec.from_json(spec.to_json())
    assert read == spec
    assert hash(read) == hash(spec)
    json.loads(spec.to_json())


def test_random_permutations_are_uniform() -> None:
    spec = spec_of((G, H, IN))
    drawn = jax.vmap(spec.random)(jax.random.split(jax.random.key(0), 1200))
    of_g = np.asarray(drawn["g"]) @ [9, 3, 1]
    _, counts = np.unique(of_g, return_counts=True)
    assert len(counts) == 6
    assert abs(counts - 200).max() < 60  # 4.6 standard deviations
    within = np.asarray(drawn["in"])[:, :, 0]
    together = np.unique(within @ [2, 1], return_counts=True)[1]  # rows are drawn independently
    assert len(together) == 4
    assert abs(together - 300).max() < 70


def test_axes_that_differ_from_place_to_place_are_those_of_slices() -> None:
    """Stacked layers, and a weight from a layer of nested groups to itself."""
    pair = Product((H, IN))
    layers = (Fixed(2), Each(0, (G, Fixed(3))), Each(0, (pair, Product((H, Fixed(2))))))
    twice = (pair, G, pair)
    spec = spec_of(layers, twice)
    permutation = jax.tree.map(np.asarray, spec.random(jax.random.key(3)))
    a, b = ({name: numbers(axes, s) for name, axes in spec.leaves} for s in (1, 2))
    moved = spec.apply(permutation, b)
    assert isinstance(moved["leaf00"], np.ndarray)
    first, second = ((G, pair), (Fixed(3), Product((H, Fixed(2)))))
    slices = [
        by_address(b["leaf00"][i], axes, permutation) for i, axes in enumerate((first, second))
    ]
    np.testing.assert_array_equal(moved["leaf00"], np.stack(slices))
    rows = by_address(np.arange(4), (pair,), permutation)
    expected = b["leaf01"][np.ix_(rows, permutation["g"], rows)]
    np.testing.assert_array_equal(moved["leaf01"], expected)
    np.testing.assert_array_equal(
        spec.apply(permutation, jax.tree.map(jnp.asarray, b))["leaf01"], expected
    )
    for name, axes in spec.leaves:
        value = overlap(spec, axes, a[name], b[name], permutation)
        np.testing.assert_allclose(value, np.vdot(a[name].astype(float), moved[name]), atol=1e-5)
        mixed = mix(jnp.asarray(b[name]), axes, as_mixture(spec, permutation), spec.parents)
        np.testing.assert_allclose(mixed, moved[name], atol=1e-6)
    assert PermutationSpec.from_json(spec.to_json()) == spec


def test_what_no_group_touches_is_handed_on_and_not_copied() -> None:
    spec = spec_of((G,), (Fixed(4),), ())
    w = {"leaf00": jnp.ones(3), "leaf01": jnp.ones(4), "leaf02": np.float32(3)}
    moved = spec.apply(spec.random(jax.random.key(0)), w)
    assert moved["leaf01"] is w["leaf01"]
    assert moved["leaf02"] is w["leaf02"]


# -- files -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, Any, Any]:
    spec = spec_of((G, Product((H, IN))), (Sum((G, Fixed(2)), ((0, 1), (1, 2), (0, 2))),))
    permutation = spec.random(jax.random.key(1))
    path = tmp_path_factory.mktemp("saved") / "permutation.npz"
    spec.save(path, permutation)
    return path, path.read_bytes(), spec, permutation


@settings(FEW, max_examples=150)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_as_it_was(saved: Any, data: Any) -> None:
    path, whole, spec, permutation = saved
    damaged = bytearray(whole)
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
            damaged[place] = data.draw(st.integers(0, 255))
    path = path.with_name("damaged.npz")
    path.write_bytes(damaged)
    try:
        read, found = load(path)
    except MatchingError as error:
        said = str(error)
        assert said.startswith(str(path)) and "\n" not in said  # noqa: PT018
    else:
        assert read == spec
        assert equal(found, permutation)


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "3", "[]", '{"groups": 3}', '{"groups": [["a"]], "leaves": []}',
     '{"groups": [], "leaves": [["w", [["units", "a"]]]], "sites": [], "notes": []}',
     '{"groups": [], "leaves": [["w", [["sum", [], [[0]]]]]], "sites": [], "notes": []}'],
)  # fmt: skip
def test_text_that_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(MatchingError) as caught:
        PermutationSpec.from_json(text)
    assert "\n" not in str(caught.value)


def test_a_file_whose_permutation_is_none_is_refused(tmp_path: Path) -> None:
    spec = spec_of((G,))
    good = {name: np.asarray(p) for name, p in spec.identity().items()}
    for name, wrong in (("g", np.array([0, 0, 1])), ("in", np.zeros((2, 3), int))):
        arrays: Any = {f"group:{k}": v for k, v in (good | {name: wrong}).items()}
        np.savez(tmp_path / "wrong.npz", spec=np.array(spec.to_json()), **arrays)
        with pytest.raises(MatchingError, match=f"no saved permutation: group '{name}'"):
            load(tmp_path / "wrong.npz")
    np.savez(tmp_path / "pickle.npz", spec=np.array([{}], object))
    with pytest.raises(MatchingError, match="holds no saved permutation"):
        load(tmp_path / "pickle.npz")
