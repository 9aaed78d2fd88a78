"""Weight matching over many pairs: planted permutations, restarts, starts, the order of leaves."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matching_nets import drawn, shaken

from llfc_jax.matching import weight_matching
from llfc_jax.symmetry import permutation_spec

SEEDS = 20
BLOCKS, WIDTH = 4, 16
# One input and one output: hardly anything tells the units of the residual stream apart.
SHAPES = {
    "embed": (1, WIDTH),
    "out": (WIDTH, 1),
    **{f"up{i}": (WIDTH, WIDTH) for i in range(BLOCKS)},
    **{f"down{i}": (WIDTH, WIDTH) for i in range(BLOCKS)},
}


def residual(w: Any, x: Any) -> Any:
    x = x @ w["embed"]
    for i in range(BLOCKS):
        x = x + jax.nn.relu(x @ w[f"up{i}"]) @ w[f"down{i}"]
    return x @ w["out"]


def weights(seed: int) -> dict[str, jax.Array]:
    return drawn({k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in SHAPES.items()}, seed)


def stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


SPEC = permutation_spec(residual, weights(0), jnp.ones((2, 1)))
KEYS = jax.random.split(jax.random.key(1), SEEDS)


def matched(restarts: int) -> Any:
    return jax.jit(
        jax.vmap(
            lambda key, a, b, start: weight_matching(
                key, SPEC, a, b, start=start, restarts=restarts
            )
        )
    )


ONCE, OFTEN = matched(1), matched(8)


def inner(a: Any, b: Any) -> np.ndarray:
    """Of each pair, the inner product of all leaves, in float64."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(
        (np.asarray(p, np.float64) * np.asarray(q, np.float64)).reshape(SEEDS, -1).sum(1)
        for p, q in pairs
    )  # pyright: ignore[reportReturnType]


def right(found: Any, planted: Any) -> np.ndarray:
    """Of each pair, whether every group is as planted."""
    return np.stack([np.all(np.asarray(found[n]) == planted[n], 1) for n in planted]).all(0)


def test_restarts_find_what_single_runs_miss() -> None:
    a = stacked([weights(seed) for seed in range(SEEDS)])
    planted = jax.vmap(SPEC.random)(KEYS)
    b = shaken(jax.vmap(lambda p, w: SPEC.apply(SPEC.invert(p), w))(planted, a), 0.03, 3)
    start = stacked([SPEC.identity()] * SEEDS)
    once, often = ONCE(KEYS, a, b, start), OFTEN(KEYS, a, b, start)
    assert not right(once.permutation, planted).all()  # a known weakness of coordinate ascent
    assert right(often.permutation, planted).all()
    for found in (once, often):
        moved = jax.vmap(SPEC.apply)(found.permutation, b)
        np.testing.assert_allclose(found.objective, inner(a, moved), rtol=1e-5)


def test_an_end_is_never_below_its_start_nor_restarts_below_a_single_run() -> None:
    a = stacked([weights(seed) for seed in range(SEEDS)])
    b = stacked([weights(seed + SEEDS) for seed in range(SEEDS)])
    start = jax.vmap(SPEC.random)(KEYS)
    before = inner(a, jax.vmap(SPEC.apply)(start, b))
    once, often = ONCE(KEYS, a, b, start), OFTEN(KEYS, a, b, start)
    assert (np.asarray(once.objective) > before).all()
    ends = [inner(a, jax.vmap(SPEC.apply)(found.permutation, b)) for found in (once, often)]
    assert (ends[1] >= ends[0] * (1 - 1e-6)).all()  # float32 may take one of two equal ends
    assert (ends[1] > ends[0] * (1 + 1e-3)).any()
    for found in (once, often):
        rises = np.diff(np.asarray(found.history), axis=1)
        assert (rises[~np.isnan(rises)] >= 0).all()
        # From the end nothing is left to gain: it is a local optimum.
        again = ONCE(KEYS[::-1], a, b, found.permutation)
        np.testing.assert_allclose(again.objective, found.objective, rtol=1e-5)
        assert right(again.permutation, found.permutation).all()


def test_the_order_of_the_leaves_does_not_matter() -> None:
    """Renamed so that they sort the other way round: the same groups end in the same order."""
    names = dict(zip(sorted(SHAPES), sorted(SHAPES, reverse=True), strict=True))
    a, b = weights(0), weights(1)
    turned = [{names[name]: leaf for name, leaf in mode.items()} for mode in (a, b)]
    assert not np.array_equal(jax.tree.leaves(turned[0])[0], jax.tree.leaves(a)[0])
    spec = permutation_spec(
        lambda w, x: residual({name: w[names[name]] for name in SHAPES}, x),
        turned[0],
        jnp.ones((2, 1)),
    )
    ours = weight_matching(KEYS[0], SPEC, a, b)
    theirs = weight_matching(KEYS[0], spec, *turned)
    assert len(theirs.permutation) == len(ours.permutation) == BLOCKS + 1
    for name, index in ours.permutation.items():
        np.testing.assert_array_equal(theirs.permutation[names[name]], index)
