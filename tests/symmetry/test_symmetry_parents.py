"""A nested group whose parent stands inside a sum: the channels of a gate, each over its places."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import programs
import pytest
from programs import examine, largest_changes

from llfc_jax.matching import align
from llfc_jax.symmetry import permutation_spec
from llfc_jax.symmetry.checking import double_precision


def gate_of_maxout(w: Any, x: Any) -> Any:
    """Three values for each of two gates and two values; their order is free in each channel."""
    h = (x @ w["first"]).reshape(-1, 3, 4).max(1)
    left, right = jnp.split(h, 2, -1)
    return (jax.nn.sigmoid(left) * right) @ w["last"]


def drawn(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    w = {"first": rng.normal(size=(6, 12)), "last": rng.normal(size=(2, 2))}
    return w, rng.normal(size=(5, 6))


def test_a_parent_inside_a_sum_is_found() -> None:
    w, x = drawn(0)
    with double_precision():
        spec = permutation_spec(gate_of_maxout, w, x)
        jaxpr = jax.make_jaxpr(gate_of_maxout)(w, x)
        changes = largest_changes(jaxpr, spec, w, x, np.random.default_rng(1))
    assert sorted((g.size, bool(g.parent)) for g in spec.groups) == [(2, False), (3, True)]
    assert changes is not None
    assert max(changes.values()) < 1e-12
    some = spec.random(jax.random.key(3))
    back = spec.apply(spec.invert(some), spec.apply(some, w))
    np.testing.assert_allclose(back["first"], w["first"], rtol=1e-6)


def test_a_permuted_copy_is_brought_back() -> None:
    w, x = drawn(0)
    spec = permutation_spec(gate_of_maxout, w, x)
    moved = spec.apply(spec.random(jax.random.key(5)), w)
    batches = [(x, np.zeros(len(x), int))]
    match = align("weight", jax.random.key(0), gate_of_maxout, w, moved, batches)
    back = spec.apply(match.permutation, moved)["first"]
    np.testing.assert_allclose(back, w["first"], rtol=1e-6)


@pytest.mark.parametrize("seed", [(1795773436, 26), (1795773436, 76), (99, 733), (99, 1869)])
def test_programs_with_such_parents(seed: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds of the programs as they were before layers were added."""
    old = [
        layer for layer in programs.LAYERS if not layer.__name__.startswith(("chosen_", "paired"))
    ]
    monkeypatch.setattr(programs, "LAYERS", old)
    with double_precision(), jax.numpy_rank_promotion("allow"):
        found = examine(seed)
    assert found.nested
    assert not found.wrong
