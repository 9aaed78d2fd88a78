"""The two drivers of coordinate ascent, NumPy on the host and the compiled one, agree."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matching_nets import equal

from llfc_jax.errors import MatchingError
from llfc_jax.matching import weight_matching
from llfc_jax.matching.assignment.family import families
from llfc_jax.matching.search.visits import visit_order
from llfc_jax.symmetry import Group, PermutationSpec
from llfc_jax.symmetry.axes import Axis, Fixed, Product, Sum, Units

KEY = jax.random.key(5)
G, H, K = Units("g", 7), Units("h", 3), Units("k", 5)
IN, ALSO = Units("in", 4), Units("also", 2)
GROUPS = (
    Group("g", 7),
    Group("h", 3),
    Group("k", 5),
    Group("in", 4, "h"),
    Group("also", 2, "h"),
)
PIECES: tuple[Axis, ...] = (
    G,
    K,
    Fixed(3),
    Product((H, IN)),
    Product((H, ALSO)),
    Product((Fixed(2), G)),
    Sum((G, Fixed(2), K), ((0, 4), (1, 2), (2, 5), (0, 3))),
)


SMALL = PermutationSpec(
    (Group("g", 7), Group("h", 3), Group("in", 4, "h")),
    (
        ("1_in", (Fixed(6), Sum((G, Fixed(2)), ((0, 4), (1, 2), (0, 3))))),
        ("2_mid", (G, Fixed(2), Product((H, IN)))),
        ("3_loop", (G, G)),
        ("4_out", (Product((IN, H)), Fixed(4))),
    ),
)
"""A spec that compiles soon: a sum of axes, a nested group, a group on both axes of a weight."""


def random_spec(seed: int) -> PermutationSpec:
    """Leaves whose axes are drawn from all kinds of layouts; every group stands somewhere."""
    rng = np.random.default_rng(seed)
    leaves: list[tuple[Axis, ...]] = [
        (Fixed(6), G),
        (G, K),
        (K, Product((H, IN))),
        (Product((ALSO, H)), Fixed(4)),
        (H,),
    ]
    for _ in range(5):
        chosen = rng.choice(len(PIECES), size=rng.integers(1, 4), replace=False)
        axes = tuple(PIECES[i] for i in chosen)
        if str(axes).count("'h'") <= 1 and str(axes).count("'g'") <= 1:
            leaves.append(axes)
    if seed % 2:
        leaves.append((G, G))  # a group on both axes
    return PermutationSpec(GROUPS, tuple((f"leaf{i:02}", axes) for i, axes in enumerate(leaves)))


def weights(spec: PermutationSpec, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1000 + seed)
    return {
        path: rng.normal(size=[axis.size for axis in axes]).astype(np.float32)
        for path, axes in spec.leaves
    }


def overlap(spec: PermutationSpec, permutation: Any, a: Any, b: Any) -> float:
    """Sum over all leaves of <A, π(B)>, in float64."""
    moved = spec.apply(permutation, b)
    return sum(float(np.vdot(np.float64(a[path]), np.float64(moved[path]))) for path in a)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_both_find_the_same_from_every_start(seed: int) -> None:
    spec = SMALL
    a, b = weights(spec, seed), weights(spec, seed + 50)
    start = (spec.random(KEY), "anchored", "relaxed")[seed]
    options = {"start": start, "restarts": 2 if seed == 0 else 1}
    here = weight_matching(KEY, spec, a, b, **options)
    there = jax.jit(lambda a, b: weight_matching(KEY, spec, a, b, **options))(a, b)
    assert equal(here.permutation, there.permutation)
    assert int(here.sweeps) == int(there.sweeps)
    history = np.asarray(there.history)
    np.testing.assert_allclose(here.history, history[~np.isnan(history)], rtol=1e-4)
    for found in (here, there):
        spec.validate(found.permutation)
        value = overlap(spec, found.permutation, a, b)
        assert float(found.objective) == pytest.approx(value, rel=1e-4)
        assert value > overlap(spec, spec.identity(), a, b)


@pytest.mark.parametrize("seed", range(10, 20))
def test_an_end_cannot_be_improved_by_moving_one_family(seed: int) -> None:
    spec = random_spec(2 * seed)
    a, b = weights(spec, seed), weights(spec, seed + 50)
    for start in ("identity", "anchored", "relaxed"):
        found = weight_matching(KEY, spec, a, b, start=start)
        reached = overlap(spec, found.permutation, a, b)
        assert float(found.objective) == pytest.approx(reached, rel=1e-4)
        for root, _ in families(spec):
            once = weight_matching(KEY, spec, a, b, start=found.permutation, visits=[root])
            assert float(once.objective) == pytest.approx(reached, rel=1e-5)


def test_several_starts_keep_the_best_end() -> None:
    spec = random_spec(7)
    a, b = weights(spec, 1), weights(spec, 2)
    names = ("identity", "anchored", "relaxed")
    single = [float(weight_matching(KEY, spec, a, b, start=name).objective) for name in names]
    together = weight_matching(KEY, spec, a, b, start=names)
    assert float(together.objective) == max(single)
    assert len(set(single)) > 1
    more = weight_matching(KEY, spec, a, b, start=names, restarts=8)
    assert float(more.objective) >= max(single)


def test_nothing_is_compiled_on_the_host() -> None:
    spec = random_spec(3)
    a, b = (jax.tree.map(jnp.asarray, weights(spec, seed)) for seed in (1, 2))
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **more: compiled.append(event) if "backend_compile" in event else None
    )
    try:
        weight_matching(KEY, spec, a, b, start=("identity", "anchored", "relaxed"))
    finally:
        jax.monitoring.clear_event_listeners()
    assert not compiled


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_the_order_of_visits_is_that_of_jax(make: Any) -> None:
    for seed in (0, 1, 2**31 + 7):
        for families_ in (1, 9, 2000):
            for sweep in (0, 3, 99):
                key = make(seed)
                expected = jax.random.permutation(jax.random.fold_in(key, sweep), families_)
                np.testing.assert_array_equal(visit_order(key, sweep, families_), expected)


def test_the_order_of_visits_of_another_generator_is_that_of_jax() -> None:
    key = jax.random.key(3, impl="rbg")
    expected = jax.random.permutation(jax.random.fold_in(key, 2), 9)
    np.testing.assert_array_equal(visit_order(key, 2, 9), expected)


@pytest.mark.parametrize("key", [0, None, "seed"])
def test_what_is_no_key_gets_one_line(key: Any) -> None:
    with pytest.raises(MatchingError, match=r"such as jax\.random\.key"):
        visit_order(key, 0, 3)
