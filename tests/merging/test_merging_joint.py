"""Networks matched at once: planted orders, brute force, and relations that agree in cycles."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax import merging, symmetry
from llfc_jax.errors import MatchingError
from llfc_jax.merging import match_jointly, merge_many
from llfc_jax.merging.joint import agreement

KEY = jax.random.key(0)
X = np.random.default_rng(9).normal(size=(6, 4)).astype("f4")


def apply(w, x):
    h = jax.nn.relu(x @ w["one"] + w["bias"][None])
    return jax.nn.relu(h @ w["two"]) @ w["three"]


def attend(w, x):
    """Two heads of width 3 on rows of x as tokens: heads move, and widths inside each."""
    x = x.reshape(-1, 2, 2)
    q, k, v = (jnp.einsum("btd,dhe->bthe", x, w[name]) for name in "qkv")
    scores = jax.nn.softmax(jnp.einsum("bthe,bshe->bhts", q, k))
    return jnp.einsum("bhts,bshe,hed->btd", scores, v, w["o"]).sum(1)


def make(seed, width=5):
    rng = np.random.default_rng(seed)
    shapes = {"one": (4, width), "bias": (width,), "two": (width, width), "three": (width, 3)}
    return {name: rng.normal(size=shape).astype("f4") for name, shape in shapes.items()}


def heads(seed):
    rng = np.random.default_rng(seed)
    shapes = dict.fromkeys("qkv", (2, 2, 3)) | {"o": (2, 3, 2)}
    return {name: rng.normal(size=shape).astype("f4") for name, shape in shapes.items()}


def noisy(tree, size, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: (leaf + size * rng.normal(size=leaf.shape)).astype("f4"), tree)


SPEC = symmetry.permutation_spec(apply, make(0), X)


def agreement64(modes, orders):
    """F by NumPy alone, for orders [(of the first hidden layer, of the second), ...]."""
    placed = []
    for mode, (p, q) in zip(modes, orders, strict=True):
        parts = (mode["one"][:, p], mode["bias"][p], mode["two"][np.ix_(p, q)], mode["three"][q])
        placed.append(np.concatenate([np.float64(part).ravel() for part in parts]))
    return sum(np.dot(u, v) for u, v in itertools.combinations(placed, 2))


def orders_of(permutations):
    first, second = (
        next(name for name, _ in SPEC.group.items() if any(path == leaf for path, _ in
             SPEC.where(name))) for leaf in ("bias", "three")
    )  # fmt: skip
    return [(np.asarray(p[first]), np.asarray(p[second])) for p in permutations]


def test_planted_orders_are_found_exactly():
    base = make(0)
    moves = [SPEC.identity(), *(SPEC.random(jax.random.key(i)) for i in (1, 2, 3))]
    modes = [SPEC.apply(move, base) for move in moves]
    found = match_jointly(SPEC, modes)
    for permutation, mode in zip(found, modes, strict=True):
        jax.tree.map(np.testing.assert_array_equal, SPEC.apply(permutation, mode), base)
    disturbed = [noisy(mode, 0.1, seed) for seed, mode in enumerate(modes)]
    for p, q in zip(match_jointly(SPEC, disturbed), found, strict=True):
        assert all(np.array_equal(p[name], q[name]) for name in q)


@pytest.mark.slow
def test_it_is_as_good_as_trying_everything():
    """Of 36² choices for three networks of 3 units a layer, the first being held."""
    every = list(itertools.permutations(range(3)))
    reached = 0
    for seed in range(4):
        modes = [make(10 * seed + i, 3) for i in range(3)]
        hold = (np.arange(3), np.arange(3))
        pairs = [tuple(map(np.array, pair)) for pair in itertools.product(every, every)]
        best = max(agreement64(modes, [hold, p, q]) for p in pairs for q in pairs)
        spec = symmetry.permutation_spec(apply, modes[0], X)
        found = agreement(spec, modes, match_jointly(spec, modes))
        assert found <= best + 1e-6
        assert found >= 0.9 * best
        reached += found > best - 1e-4
    assert reached == 4


def test_the_objective_is_that_of_numpy_and_no_start_is_made_worse():
    modes = [make(i) for i in range(4)]
    drawn = [SPEC.random(jax.random.key(i)) for i in range(4)]
    expected = agreement64(modes, orders_of(drawn))
    assert agreement(SPEC, modes, drawn) == pytest.approx(expected, rel=1e-9)
    turns = merge_many(KEY, SPEC, modes)
    joint = match_jointly(SPEC, modes, turns.permutations)
    assert agreement(SPEC, modes, joint) >= agreement(SPEC, modes, turns.permutations) - 1e-6


def test_relations_agree_in_every_cycle_and_the_first_stays():
    modes = [make(i) for i in range(4)]
    found = match_jointly(SPEC, modes)
    assert all(np.array_equal(found[0][name], index) for name, index in SPEC.identity().items())

    def relate(i, j):
        return SPEC.compose(SPEC.invert(found[j]), found[i])

    for i, j, k in itertools.permutations(range(4), 3):
        both = SPEC.compose(relate(j, k), relate(i, j))
        straight = relate(i, k)
        assert all(np.array_equal(both[name], straight[name]) for name in straight)


@pytest.mark.parametrize("place", ["mean", "chain", "joint"])
def test_merging_keeps_functions_whatever_the_placement(place):
    """Also with units inside units: widths of heads that move."""
    spec = symmetry.permutation_spec(attend, heads(0), X)
    assert any(group.parent for group in spec.groups)
    modes = [heads(i) for i in range(3)]
    merged = merge_many(KEY, spec, modes, place=place, rounds=1 if place == "joint" else 20)
    for mode, placed in zip(modes, merged.modes, strict=True):
        np.testing.assert_allclose(attend(placed, X), attend(mode, X), rtol=1e-4, atol=1e-5)
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, 0), *merged.modes)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, atol=1e-6), merged.variables, mean)
    planted = [spec.apply(spec.random(jax.random.key(i)), modes[0]) for i in range(3)]
    if place == "joint":
        found = merge_many(KEY, spec, planted, place=place)
        jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, atol=1e-6), found.variables,
                     planted[0])  # fmt: skip


def test_the_rule_merges_all_at_once():
    modes = [make(i) for i in range(3)]
    merged = merging.merge(modes, rule="c2m3", spec=SPEC)
    joint = merge_many(KEY, SPEC, modes, rounds=1, place="joint")
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, atol=1e-6), merged, joint.variables)
    low = [jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), mode) for mode in modes]
    assert merging.merge(low, rule="c2m3", spec=SPEC)["two"].dtype == jnp.bfloat16
    with pytest.raises(MatchingError, match="unknown placement 'jointly'; did you mean 'joint'"):
        merge_many(KEY, SPEC, modes, place="jointly")  # pyright: ignore[reportArgumentType]
