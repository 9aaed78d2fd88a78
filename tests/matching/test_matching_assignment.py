"""Assignment against SciPy in float64 and against all permutations."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from llfc_jax.errors import MatchingError
from llfc_jax.matching import assign, assign_warm
from llfc_jax.matching.assignment.host import LARGE
from llfc_jax.matching.assignment.solvers import EPSILON, SOLVERS

SMALL = 24
NAMED = ("scipy", "hungarian", "auction")
EPS = float(np.finfo(np.float32).eps)


def costs(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Score matrices of every kind, float32 [n, n]."""
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(n, n))
    rank = rng.normal(size=(n, 3)) @ rng.normal(size=(3, n))
    block = np.kron(np.eye(-(-n // 4)), np.ones((4, 4)))[:n, :n] * (5 + normal)
    spread = 10.0 ** rng.uniform(-6, 6, (n, n))
    found = {
        "normal": normal,
        "negative": normal - 100,
        "low rank": rank,
        "block": block,
        "shuffled block": block[rng.permutation(n)][:, rng.permutation(n)],
        "correlation": np.corrcoef(normal + 0.5 * rank)[rng.permutation(n)],
        "integers": rng.integers(0, 4, (n, n)),
        "zeros and ones": rng.integers(0, 2, (n, n)),
        "constant": np.full((n, n), -3.5),
        "rows alike": np.tile(normal[:1], (n, 1)),
        "columns alike": np.tile(normal[:, :1], (1, n)),
        "spread": spread,
        "spread of both signs": spread * rng.choice([-1, 1], (n, n)),
        "spread along rows": spread[:, :1] * np.abs(normal),
        "near duplicates": np.tile(normal[:1], (n, 1)) + 1e-5 * normal,
        "dead units": normal * (rng.random((n, 1)) > 0.3) * (rng.random((1, n)) > 0.3),
        "product": np.outer(np.arange(n), np.arange(n)),  # every row wants the last column
    }
    return {name: np.asarray(value, np.float32) for name, value in found.items()}


KINDS = len(costs(4))  # every batch has this size, so that a solver is compiled once


def value(scores: np.ndarray, index: Any) -> np.ndarray:
    """Sum of the assigned scores, in float64, over a batch."""
    index = np.asarray(index)
    taken = np.take_along_axis(scores.astype(np.float64), index[..., None], -1)
    return taken.sum((-1, -2))


def greatest(scores: np.ndarray) -> np.ndarray:
    """SciPy's sum, in float64, over a batch."""
    return np.array(
        [
            matrix.astype(np.float64)[linear_sum_assignment(matrix, maximize=True)].sum()
            for matrix in scores.reshape(-1, *scores.shape[-2:])
        ]
    ).reshape(scores.shape[:-2])


def allowed(solver: str, scores: np.ndarray, epsilon: float = EPSILON) -> np.ndarray:
    """By how much a sum may stay below the greatest: what the docstrings state."""
    n, span = scores.shape[-1], np.ptp(scores.astype(np.float64), (-1, -2))
    exact = {
        "scipy": 1e-12,
        "auto": 1e-12,
        "hungarian": EPS * n,
        "auction": n * epsilon + 4 * n * EPS,
    }
    return exact[solver] * span


def are_permutations(index: Any, n: int) -> bool:
    index = np.asarray(index)
    return index.dtype == np.int32 and bool((np.sort(index, -1) == np.arange(n)).all())


@pytest.mark.parametrize("solver", ["auto", *NAMED])
def test_reaches_the_greatest_sum_on_every_kind_of_scores(solver: Any) -> None:
    named = costs(SMALL)
    scores = np.stack(list(named.values()))
    found = assign(jnp.asarray(scores), solver)
    assert are_permutations(found, SMALL)
    short = greatest(scores) - value(scores, found)
    over = dict(zip(named, short - allowed(solver, scores), strict=True))
    assert not {name: by for name, by in over.items() if by > 0}


@pytest.mark.parametrize("solver", NAMED)
def test_integers_are_solved_exactly(solver: Any) -> None:
    # Below a sum's smallest step the bound of the auction leaves nothing.
    scores = np.stack([costs(SMALL, seed)["integers"] for seed in range(KINDS)])
    np.testing.assert_array_equal(value(scores, assign(scores, solver)), greatest(scores))


@pytest.mark.parametrize("solver", ["auto", *NAMED])
def test_against_all_permutations(solver: Any) -> None:
    scores = np.random.default_rng(1).normal(size=(KINDS, 5, 5)).astype(np.float32)
    every = np.array(list(itertools.permutations(range(5))))
    sums = scores[:, np.arange(5), every].sum(-1)
    np.testing.assert_array_equal(assign(scores, solver), every[sums.argmax(-1)])


@pytest.mark.parametrize("scaled", [1e-12, 1e12])
@pytest.mark.parametrize("solver", NAMED)
def test_scale_does_not_matter(solver: Any, scaled: float) -> None:
    scores = np.stack(list(costs(SMALL, 2).values())) * np.float32(scaled)
    found = assign(scores, solver)
    assert (greatest(scores) - value(scores, found) <= allowed(solver, scores)).all()


def test_large_matrices_keep_the_greatest_sum_though_prices_help() -> None:
    """SciPy's problems above `LARGE` are handed prices first; the answer must be the same."""
    named = costs(LARGE + 5)
    for name, scores in named.items():
        found = assign(scores, "scipy")
        assert are_permutations(found, len(scores)), name
        short = greatest(scores) - value(scores, found)
        assert short <= allowed("scipy", scores), name


@pytest.mark.parametrize("epsilon", [1e-1, 1e-3, 1e-5])
def test_the_bound_of_the_auction_holds_as_stated(epsilon: float) -> None:
    named = costs(SMALL, 3)
    scores = np.stack(list(named.values()))
    found = assign(scores, "auction", epsilon=epsilon)
    assert are_permutations(found, SMALL)
    short = greatest(scores) - value(scores, found)
    assert (short <= allowed("auction", scores, epsilon)).all()


def test_a_coarse_auction_does_fall_short() -> None:
    """So that the test of the bound has something to bound."""
    scores = np.stack(list(costs(SMALL, 3).values()))
    short = greatest(scores) - value(scores, assign(scores, "auction", epsilon=1e-1))
    assert (short > allowed("auction", scores)).any()


@pytest.mark.parametrize("solver", NAMED)
def test_batched_vmapped_and_jitted_alike(solver: Any) -> None:
    scores = jnp.stack([jnp.asarray(costs(SMALL, seed)["normal"]) for seed in range(KINDS)])
    of_one = jax.jit(lambda matrix: assign(matrix, solver))
    one_by_one = np.stack([of_one(matrix) for matrix in scores])
    np.testing.assert_array_equal(assign(scores, solver), one_by_one)
    np.testing.assert_array_equal(jax.vmap(of_one)(scores), one_by_one)
    np.testing.assert_array_equal(assign(scores[None], solver)[0], one_by_one)


def test_a_batch_of_unlike_scales_is_solved_each_by_its_own() -> None:
    scales = np.logspace(-8, 8, KINDS).astype(np.float32)
    scores = costs(SMALL)["normal"] * scales[:, None, None]
    short = greatest(scores) - value(scores, assign(scores, "auction"))
    assert (short <= allowed("auction", scores)).all()


@pytest.mark.parametrize("solver", ["auto", *NAMED])
def test_one_row(solver: Any) -> None:
    np.testing.assert_array_equal(assign(jnp.full((1, 1), -2.0), solver), [0])
    np.testing.assert_array_equal(assign(jnp.ones((3, 1, 1)), solver), np.zeros((3, 1)))


@pytest.mark.parametrize("solver", NAMED)
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(solver: Any, odd: float) -> None:
    scores = costs(SMALL)["normal"].copy()
    scores[3, 4] = odd
    with pytest.raises(MatchingError, match="NaN or infinity"):
        assign(scores, solver)
    # Inside a trace nothing can be refused: a valid permutation comes back all the same.
    traced = jax.jit(lambda s: assign(s, solver))(scores)
    np.testing.assert_array_equal(traced, np.arange(SMALL))


def test_one_bad_matrix_leaves_the_others_of_its_batch_alone() -> None:
    scores = np.stack([costs(SMALL, seed)["normal"] for seed in range(KINDS)])
    good = np.asarray(assign(scores))
    scores[2, 0, 0] = np.nan
    for solver in NAMED:
        found = np.asarray(jax.jit(lambda s, solver=solver: assign(s, solver))(scores))
        np.testing.assert_array_equal(found[2], np.arange(SMALL))
        np.testing.assert_array_equal(np.delete(found, 2, 0), np.delete(good, 2, 0))


@pytest.mark.parametrize("shape", [(3,), (), (3, 4), (2, 4, 3)])
def test_what_is_not_square_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(MatchingError, match="as many rows as columns") as error:
        assign(jnp.zeros(shape))
    assert "\n" not in str(error.value)
    with pytest.raises(MatchingError, match="as many rows as columns"):
        assign_warm(jnp.zeros(shape), jnp.zeros(shape[:-1]))


def test_an_unknown_solver_is_named_with_the_nearest() -> None:
    with pytest.raises(MatchingError, match="did you mean 'auction'"):
        assign(jnp.eye(3), "auctoin")  # pyright: ignore[reportArgumentType]
    assert set(SOLVERS) == {"auto", *NAMED}


def test_half_precision_and_integers_are_taken() -> None:
    scores = costs(SMALL)["integers"]
    best = greatest(scores)
    for kind in (jnp.int32, jnp.bfloat16, jnp.float16):
        found = assign(jnp.asarray(scores).astype(kind), "auction")
        assert value(scores, found) == best


def drifting(n: int, steps: int = 6) -> list[np.ndarray]:
    """Scores that change a little from step to step, as in coordinate ascent."""
    rng = np.random.default_rng(4)
    scores = rng.normal(size=(n, n)) + 3 * np.eye(n)[rng.permutation(n)]
    made = []
    for step in range(steps):
        made.append(scores.astype(np.float32))
        rows = rng.integers(0, n, 3)
        scores = scores.copy()
        scores[rows] += rng.normal(size=(3, n)) * (10 if step == 3 else 1)
    return made


@pytest.mark.parametrize(("solver", "n"), [("scipy", LARGE), ("scipy", SMALL), ("auction", SMALL)])
def test_prices_of_the_last_call_do_not_change_the_answer(solver: Any, n: int) -> None:
    prices = jnp.zeros(n)
    for scores in drifting(n):
        found, prices = assign_warm(jnp.asarray(scores), prices, solver)
        assert are_permutations(found, n)
        assert greatest(scores) - value(scores, found) <= allowed(solver, scores)


def test_no_prices_mislead_scipy() -> None:
    rng = np.random.default_rng(5)
    scores = drifting(LARGE, 1)[0]
    for scale in (1e-3, 1.0, 1e3):
        prices = jnp.asarray(scale * rng.normal(size=LARGE), jnp.float32)
        found, _ = assign_warm(scores, prices, "scipy")
        assert greatest(scores) - value(scores, found) <= allowed("scipy", scores)


@pytest.mark.parametrize("solver", NAMED)
@pytest.mark.parametrize("scale", [1e20, 1e30, 1e38])
def test_scores_of_any_finite_size_are_solved(solver: Any, scale: float) -> None:
    n = LARGE if solver == "scipy" else SMALL
    scores = np.random.default_rng(6).uniform(-1, 1, (n, n)).astype(np.float32)
    huge = scores * np.float32(scale)
    prices = jnp.zeros(n)
    for _ in range(2):
        found, prices = assign_warm(huge, prices, solver)
        short = greatest(scores) - value(scores, found)
        assert short <= allowed(solver, scores)
    np.testing.assert_array_equal(assign(huge, solver), assign(scores, solver))


@pytest.mark.parametrize("solver", NAMED)
def test_no_row_is_no_problem(solver: Any) -> None:
    assert assign(jnp.zeros((2, 0, 0)), solver).shape == (2, 0)
