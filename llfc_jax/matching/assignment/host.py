"""Assignment on the host, by SciPy.

`scipy.optimize.linear_sum_assignment` grows shortest augmenting paths, and a path is short where
the columns' prices are right: subtracting any price per column and any number per row leaves the
best assignment the same. So large problems are first handed rough prices: by a few rounds of an
auction when nothing is known, and by the prices of the last call when the scores have changed
little since. What SciPy then solves has the same answer, several times sooner.
"""

import numpy as np
from jaxtyping import Float, Int

LARGE = 192
"""Rows from which prices pay; below, SciPy alone is faster (`benchmarks/assignment.py`)."""

HUGE = 1e18
"""Scores above this are made smaller: their sums would leave float32."""

_ROUNDS = 100  # of the auction, at most
_STEP = 0.05  # its epsilon, as a share of the standard deviation of the scores
_REPAIRS = 2  # sweeps over all rows that bring the prices near those of the found assignment


def solve(scores: Float[np.ndarray, "*batch n n"]) -> Int[np.ndarray, "*batch n"]:
    """Returns the best permutation of scores [..., n, n]: int32 [..., n].

    A matrix that is not finite yields the identity.
    """
    found = np.empty(scores.shape[:-1], np.int32)
    for place in np.ndindex(scores.shape[:-2]):
        found[place] = _solve_one(scores[place], None)[0]
    return found


def solve_warm(
    scores: Float[np.ndarray, "*batch n n"], prices: Float[np.ndarray, "*batch n"]
) -> tuple[Int[np.ndarray, "*batch n"], Float[np.ndarray, "*batch n"]]:
    """Returns the permutation, and the prices for the next call on scores like these.

    Args:
        scores: [..., n, n].
        prices: [..., n]: the last call's, or zeros.
    """
    found, after = np.empty(scores.shape[:-1], np.int32), np.array(prices)
    for place in np.ndindex(scores.shape[:-2]):
        found[place], new = _solve_one(scores[place], after[place])
        if new is not None:
            after[place] = new
    return found, after


def _solve_one(
    scores: Float[np.ndarray, "n n"], prices: Float[np.ndarray, " n"] | None
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"] | None]:
    """Returns (permutation, new prices or None), of one matrix; `prices` None: none are wanted."""
    largest = max(abs(scores.max()), abs(scores.min())) if scores.size else 0.0
    if not np.isfinite(largest):
        return np.arange(len(scores)), None
    if len(scores) < LARGE:
        return _assign(scores, maximize=True), None
    if largest > HUGE:
        scores, prices = scores / largest, None
    known = _auction(scores) if prices is None or not prices.any() else prices
    found = _priced(scores, known)
    return found, None if prices is None else _repaired(scores, found, known)


def _assign(matrix: Float[np.ndarray, "n n"], maximize: bool = False) -> Int[np.ndarray, " n"]:
    from scipy.optimize import linear_sum_assignment  # a third of a second, paid on first use

    return linear_sum_assignment(matrix, maximize)[1]


def _priced(
    scores: Float[np.ndarray, "n n"], prices: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n n"]:
    # In float64: whatever the prices, the scores' own differences are kept to the last bit.
    cost = prices.astype(np.float64) - scores
    cost -= cost.min(1, keepdims=True)
    return _assign(cost)


def _repaired(
    scores: Float[np.ndarray, "n n"],
    found: Int[np.ndarray, " n"],
    prices: Float[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
    """Raises each price to what some row would still pay rather than keep its own column."""
    rows = np.arange(len(scores))
    better = scores - scores[rows, found][:, None]
    for _ in range(_REPAIRS):
        prices = np.maximum(prices, (better + prices[found][:, None]).max(0))
    return prices - prices.min() + 1  # never all zero: that says "nothing is known"


def _auction(scores: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    """Prices after some rounds of bidding; rows that still hold nothing then are SciPy's."""
    n = len(scores)
    prices = np.zeros(n, scores.dtype)
    step = _STEP * scores[:: max(1, n // 64)].std(dtype=np.float64)  # some rows say enough
    holder, holds = np.full(n, -1), np.full(n, -1)
    for _ in range(_ROUNDS):
        free = np.flatnonzero(holds < 0)
        if not len(free):
            break
        values = scores[free] - prices
        mine = np.arange(len(free))
        best = values.argmax(1)
        top = values[mine, best]
        values[mine, best] = -np.inf
        offers = prices[best] + (top - values.max(1)) + step
        order = np.argsort(offers, kind="stable")  # of several writes to a column the last stays
        offered, winner = np.zeros(n, scores.dtype), np.full(n, -1)
        offered[best[order]], winner[best[order]] = offers[order], free[order]
        sold = np.flatnonzero(winner >= 0)
        before = holder[sold]
        holds[before[before >= 0]] = -1
        holder[sold], prices[sold] = winner[sold], offered[sold]
        holds[winner[sold]] = sold
    return prices
