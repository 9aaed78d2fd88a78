"""Specs and permutations: the algebra, the files, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matching_nets import ZOO, batch, equal, variables

from llfc_jax.errors import MatchingError
from llfc_jax.matching.search.mixtures import as_mixture, mix
from llfc_jax.symmetry import PermutationSpec, load, permutation_spec, permutation_spec_from_axes

NAMES = ("dense", "residual_batch", "transformer", "fused", "grouped")


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    v = variables(request.param)
    return permutation_spec(ZOO[request.param].apply, v, batch()), v


def leaves_equal(p, q):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(p), jax.tree.leaves(q), strict=True)
    )


def test_identity_moves_nothing_and_inverse_undoes(case):
    spec, v = case
    permutation = spec.random(jax.random.key(3))
    assert leaves_equal(spec.apply(spec.identity(), v), v)
    moved = spec.apply(permutation, v)
    assert not leaves_equal(moved, v)
    assert leaves_equal(spec.apply(spec.invert(permutation), moved), v)
    assert equal(spec.compose(permutation, spec.invert(permutation)), spec.identity())
    assert equal(spec.invert(spec.invert(permutation)), permutation)


def test_composition_is_one_after_the_other(case):
    spec, v = case
    first, second = (spec.random(jax.random.key(seed)) for seed in (1, 2))
    once = spec.apply(spec.compose(second, first), v)
    assert leaves_equal(once, spec.apply(second, spec.apply(first, v)))


def test_mixing_with_permutation_matrices_is_permuting(case):
    spec, v = case
    permutation = spec.random(jax.random.key(4))
    moved = jax.tree.leaves(spec.apply(permutation, v))
    mixture = as_mixture(spec, permutation)
    for leaf, (_, axes), expected in zip(jax.tree.leaves(v), spec.leaves, moved, strict=True):
        np.testing.assert_allclose(mix(leaf, axes, mixture, spec.parents), expected, atol=1e-6)


def test_files_and_json_give_back_what_was_written(case, tmp_path):
    spec, _ = case
    permutation = spec.random(jax.random.key(5))
    path = tmp_path / "deep" / "permutation.npz"
    spec.save(path, permutation)
    read, found = load(path)
    assert read == spec
    assert hash(read) == hash(spec)
    assert equal(found, permutation)
    assert PermutationSpec.from_json(spec.to_json()) == spec
    assert [entry.name for entry in path.parent.iterdir()] == ["permutation.npz"]


def test_specs_explain_every_group(case):
    spec, _ = case
    text = spec.explain()
    for group in spec.groups:
        assert f"{group.name}: {group.size} units" in text
        for path, axis in spec.where(group.name):
            assert f"{path} axis {axis}:" in text


def test_a_leaf_takes_its_units_as_git_re_basin_does():
    kernel = jnp.arange(12.0).reshape(3, 4)
    v = {"first": kernel, "second": kernel.T, "shift": jnp.arange(4.0), "far": jnp.ones(2)}
    spec = permutation_spec_from_axes(v, {"hidden": [("first", 1), ("second", 0), ("shift", 0)]})
    order = jnp.array([2, 0, 3, 1])
    moved = spec.apply({"hidden": order}, v)
    np.testing.assert_array_equal(moved["first"], jnp.take(kernel, order, axis=1))
    np.testing.assert_array_equal(moved["second"], jnp.take(kernel.T, order, axis=0))
    np.testing.assert_array_equal(moved["shift"], order)
    assert moved["far"] is v["far"]  # not copied


def test_what_does_not_fit_is_refused_in_one_line(tmp_path):
    v = {"first": jnp.ones((3, 4)), "second": jnp.ones((4, 2))}
    spec = permutation_spec_from_axes(v, {"hidden": [("first", 1), ("second", 0)]})
    good = jnp.arange(4)
    for permutation, words in (
        ({}, "lacks group 'hidden'"),
        ({"hiden": good}, "did you mean 'hidden'"),
        ({"hidden": jnp.arange(3)}, "shape"),
        ({"hidden": jnp.arange(4.0)}, "integers"),
        ({"hidden": jnp.array([0, 1, 1, 3])}, "repeats"),
        ({"hidden": jnp.array([0, 1, 2, 4])}, "out of range"),
    ):
        with pytest.raises(MatchingError, match=words) as caught:
            spec.apply(permutation, v)
        assert "\n" not in str(caught.value)
    with pytest.raises(MatchingError, match="differ in third"):
        spec.apply({"hidden": good}, {**v, "third": jnp.ones(1)})
    with pytest.raises(MatchingError, match="has shape"):
        spec.apply({"hidden": good}, {**v, "first": jnp.ones((4, 4))})
    for groups, words in (
        ({"g": [("frist", 0)]}, "did you mean 'first'"),
        ({"g": [("first", 2)]}, "no axis 2"),
        ({"g": [("first", 0), ("first", 1)]}, "sizes"),
        ({"g": [("first", 1)], "h": [("first", 1)]}, "two groups"),
    ):
        with pytest.raises(MatchingError, match=words):
            permutation_spec_from_axes(v, groups)
    with pytest.raises(MatchingError, match="unknown permutation group"):
        spec.where("hiden")
    with pytest.raises(MatchingError, match="not a permutation spec"):
        PermutationSpec.from_json("{}")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    for name in ("broken.npz", "missing.npz"):
        with pytest.raises(MatchingError, match="no saved permutation"):
            load(tmp_path / name)
