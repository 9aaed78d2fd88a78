"""Linear assignment: which unit goes where, so that the sum of their scores is greatest.

Every permutation method ends in this problem. `assign` solves it for one score matrix or for a
batch, inside or outside `jax.jit`, with one of three solvers:

- `scipy`: `scipy.optimize.linear_sum_assignment` on the host; exact; one matrix after another.
- `hungarian`: optax's Hungarian algorithm, compiled; exact; a long chain of small steps.
- `auction`: Bertsekas' auction with epsilon scaling, compiled; all rows bid at once and a batch
  runs as one program; its sum is below the greatest by at most `n * epsilon`.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from scipy.optimize import linear_sum_assignment

from llfc_jax.errors import MatchingError, unknown

Solver = Literal["auto", "scipy", "hungarian", "auction"]

EPSILON = 1e-6
"""Default `epsilon` of the auction, as a share of a matrix's largest minus smallest score."""

_SCALING = 5.0  # epsilon shrinks by this factor from one phase of the auction to the next


def assign(scores: jax.Array, solver: Solver = "auto", *, epsilon: float = EPSILON) -> jax.Array:
    """The permutation that maximises `sum_i scores[..., i, permutation[..., i]]`.

    Args:
        scores: [..., n, n] real numbers; leading axes are a batch.
        solver: "auto" takes the one that measured fastest on this backend (`choose`).
        epsilon: for the auction, as a share of the range of each matrix: the sum found is below
            the greatest by at most `n * epsilon * (max(scores) - min(scores))`, and rounding.

    Returns:
        int32 [..., n]: row i takes column `permutation[..., i]`.

    Raises:
        MatchingError: the matrix is not square, or (outside a trace) holds a value that is not
            finite. Inside a trace values cannot be looked at: a matrix that is not finite then
            yields the identity.
    """
    scores = jnp.asarray(scores)
    if scores.ndim < 2 or scores.shape[-1] != scores.shape[-2]:
        raise MatchingError(
            f"scores have shape {scores.shape}; an assignment needs [..., n, n]: as many rows as "
            "columns"
        )
    if not isinstance(scores, Tracer) and not np.isfinite(np.asarray(scores)).all():
        raise MatchingError(
            "scores hold NaN or infinity; mend the weights or activations they were made from"
        )
    n = scores.shape[-1]
    if n == 0:
        return jnp.zeros(scores.shape[:-1], jnp.int32)
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    return _solver(choose(n) if solver == "auto" else solver, epsilon)(scores)


def choose(n: int, backend: str | None = None) -> Solver:
    """The solver behind "auto" for matrices of `n` rows: the measured crossover, in one place.

    On a CPU SciPy won at every size from 8 to 4096, single and batched
    (`benchmarks/assignment.py`). On an accelerator the matrices would have to leave the device.
    """
    del n, backend
    return "scipy"


@functools.cache
def _solver(name: str, epsilon: float):
    if name == "scipy":
        return _scipy
    if name == "hungarian":
        return _over_batch(_hungarian)
    if name == "auction":
        return _over_batch(functools.partial(_auction, epsilon=epsilon))
    raise MatchingError(unknown("solver", name, ["auto", "scipy", "hungarian", "auction"]))


def _over_batch(solve):
    return jnp.vectorize(solve, signature="(n,n)->(n)")


def _scipy(scores: jax.Array) -> jax.Array:
    result = jax.ShapeDtypeStruct(scores.shape[:-1], jnp.int32)
    return jax.pure_callback(_scipy_on_host, result, scores, vmap_method="expand_dims")


def _scipy_on_host(scores: jax.Array) -> np.ndarray:
    batch = np.asarray(scores)
    found = np.empty(batch.shape[:-1], np.int32)
    for place in np.ndindex(batch.shape[:-2]):
        if np.isfinite(batch[place]).all():
            found[place] = linear_sum_assignment(batch[place], maximize=True)[1]
        else:
            found[place] = np.arange(batch.shape[-1])
    return found


def _hungarian(scores: jax.Array) -> jax.Array:
    """Optax returns pairs (i, j) sorted by j, so j alone would be the identity."""
    scores = _finite_or_identity(scores)
    rows, columns = optax.assignment.hungarian_algorithm(-scores)
    return jnp.zeros(scores.shape[0], jnp.int32).at[rows].set(columns.astype(jnp.int32))


def _finite_or_identity(scores: jax.Array) -> jax.Array:
    return jnp.where(jnp.isfinite(scores).all(), scores, jnp.eye(len(scores), dtype=scores.dtype))


def _auction(scores: jax.Array, epsilon: float) -> jax.Array:
    """Jacobi auction with epsilon scaling (Bertsekas 1988), on one matrix.

    Rows bid for columns at prices; a phase ends when every row holds a column, and then no row
    can gain more than its epsilon by changing, so that the sum is within `n * epsilon` of the
    greatest. Phases with a coarse epsilon only set the prices for the next.
    """
    scores = _finite_or_identity(scores)
    n = scores.shape[0]
    rows = jnp.arange(n, dtype=jnp.int32)
    scores = scores - scores.max()
    # A matrix without any range has nothing to gain: any positive epsilon will do.
    span = jnp.maximum(-scores.min(), jnp.finfo(scores.dtype).tiny * 2**20)
    nobody = jnp.int32(n)

    def bid(state):
        prices, holds, holder, eps = state
        values = scores - prices
        best = values.argmax(1)
        top = values.max(1)
        second = jnp.where(rows[None, :] == best[:, None], -jnp.inf, values).max(1)
        second = jnp.where(jnp.isfinite(second), second, top)
        offer = prices[best] + (top - second) + eps
        # At large prices epsilon may vanish in rounding; prices must rise or the loop never ends.
        offer = jnp.maximum(offer, jnp.nextafter(prices[best], jnp.inf))
        target = jnp.where(holds == nobody, best, nobody)  # out of range: dropped
        highest = jnp.full(n, -jnp.inf, scores.dtype).at[target].max(offer, mode="drop")
        wins = (holds == nobody) & (offer >= highest[best])
        winner = jnp.full(n, nobody).at[jnp.where(wins, best, nobody)].min(rows, mode="drop")
        sold = winner < nobody
        holds = holds.at[jnp.where(sold, holder, nobody)].set(nobody, mode="drop")
        holds = holds.at[winner].set(rows, mode="drop")  # rows doubles as the column numbers
        return (
            jnp.where(sold, highest, prices),
            holds,
            jnp.where(sold, winner, holder),
            eps,
        )

    def unsold(state):
        return (state[1] == nobody).any()

    def phase(state):
        prices, _, eps = state
        empty = jnp.full(n, nobody)
        prices, holds, _, _ = jax.lax.while_loop(unsold, bid, (prices, empty, empty, eps))
        return prices - prices.min(), holds, eps / _SCALING

    last = epsilon * span
    phases = max(0, int(np.ceil(np.log(0.25 / epsilon) / np.log(_SCALING))))
    prices = jnp.zeros(n, scores.dtype)
    state = (prices, rows, last * _SCALING**phases)
    return jax.lax.fori_loop(0, phases + 1, lambda _, s: phase(s), state)[1]
