"""Linear assignment: which unit goes where, so that the sum of their scores is greatest.

Every permutation method ends in this problem. `assign` solves it for one score matrix or for a
batch, inside or outside `jax.jit`, with one of three solvers:

- `scipy`: `scipy.optimize.linear_sum_assignment` on the host; exact; one matrix after another.
- `hungarian`: optax's Hungarian algorithm, compiled; exact; a long chain of small steps.
- `auction`: Bertsekas' auction with epsilon scaling, compiled; all rows bid at once and a batch
  runs as one program; its sum is below the greatest by at most `n * epsilon`.
"""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from llfc_jax.errors import MatchingError, unknown
from llfc_jax.matching.assignment import host
from llfc_jax.matching.placement import on_host
from llfc_jax.types import AnyArray

Solver = Literal["auto", "scipy", "hungarian", "auction"]
SOLVERS: tuple[str, ...] = get_args(Solver)

EPSILON = 1e-6
"""Default `epsilon` of the auction, as a share of a matrix's largest minus smallest score."""

_SCALING = 5.0  # epsilon shrinks by this factor from one phase of the auction to the next


def assign(scores: jax.Array, solver: Solver = "auto", *, epsilon: float = EPSILON) -> jax.Array:
    """Returns the permutation that maximises `sum_i scores[..., i, permutation[..., i]]`.

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
    scores = _checked(scores)
    prices = jnp.zeros(scores.shape[:-1], scores.dtype)
    return _solve(scores, prices, _named(solver, scores.shape[-1]), epsilon, False)[0]


def assign_warm(
    scores: jax.Array, prices: jax.Array, solver: Solver = "auto", *, epsilon: float = EPSILON
) -> tuple[jax.Array, jax.Array]:
    """Returns what `assign` does, for scores that differ little from others solved before.

    The prices of the columns at the end of one call let the next one start near its end; they
    change its time, not its answer (but for ties, and within the auction's bound).

    Args:
        scores: [..., n, n].
        prices: [..., n]: zeros at first, then what the last call returned.
        solver: see `assign`.
        epsilon: see `assign`.

    Returns:
        The permutation and the prices for the next call.

    Raises:
        MatchingError: see `assign`.
    """
    scores = _checked(scores)
    return _solve(scores, prices, _named(solver, scores.shape[-1]), epsilon, True)


def choose(n: int, backend: str | None = None) -> Solver:
    """Returns the solver behind "auto" for matrices of `n` rows: the one that measured fastest.

    On a CPU SciPy won at every size from 8 to 4096, single and batched
    (`benchmarks/assignment.py`). On an accelerator the matrices would have to leave the device.
    """
    del n, backend
    return "scipy"


def _checked(scores: jax.Array) -> jax.Array:
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
    return scores.astype(jnp.promote_types(scores.dtype, jnp.float32))


def check_solver(solver: str) -> None:
    """Checks that there is such a solver.

    Raises:
        MatchingError: there is none; the line names the nearest.
    """
    if solver not in SOLVERS:
        raise MatchingError(unknown("solver", solver, SOLVERS))


def _named(solver: str, n: int) -> str:
    check_solver(solver)
    return choose(n) if solver == "auto" else solver


def _solve(
    scores: jax.Array, prices: jax.Array, name: str, epsilon: float, warm: bool
) -> tuple[jax.Array, jax.Array]:
    """(scores [..., n, n], prices [..., n]) -> (permutation, prices)."""
    if name != "scipy":
        return _compiled(name, epsilon, warm, scores, prices)
    if on_host((scores, prices)):
        found, after = _scipy(warm, scores, prices)
        return jnp.asarray(found), jnp.asarray(after)
    shapes = (
        jax.ShapeDtypeStruct(prices.shape, jnp.int32),
        jax.ShapeDtypeStruct(prices.shape, prices.dtype),
    )
    call = functools.partial(_scipy, warm)
    return jax.pure_callback(call, shapes, scores, prices, vmap_method="broadcast_all")


def _scipy(warm: bool, scores: AnyArray, prices: AnyArray) -> tuple[np.ndarray, np.ndarray]:
    scores, prices = np.asarray(scores), np.asarray(prices)
    return host.solve_warm(scores, prices) if warm else (host.solve(scores), prices)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _compiled(
    name: str, epsilon: float, warm: bool, scores: jax.Array, prices: jax.Array
) -> tuple[jax.Array, jax.Array]:
    solve = _hungarian if name == "hungarian" else functools.partial(_auction, epsilon, warm)
    return jnp.vectorize(solve, signature="(n,n),(n)->(n),(n)")(scores, prices)


def _hungarian(scores: jax.Array, prices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Optax returns pairs (i, j) sorted by j, so j alone would be the identity."""
    import optax  # takes as long to import as all of matching, and only this needs it

    scores = _finite_or_identity(scores)
    rows, columns = optax.assignment.hungarian_algorithm(-scores)
    return jnp.zeros(len(scores), jnp.int32).at[rows].set(columns.astype(jnp.int32)), prices


def _finite_or_identity(scores: jax.Array) -> jax.Array:
    return jnp.where(jnp.isfinite(scores).all(), scores, jnp.eye(len(scores), dtype=scores.dtype))


def _bid(scores: Float[Array, "n n"], state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Lets every row without a column bid for the one that gains it most.

    The state is (prices [n], column that each row holds [n], row that holds each column [n],
    epsilon); n stands for no column and no row.
    """
    prices, holds, holder, eps = state
    n = scores.shape[0]
    rows, nobody = jnp.arange(n, dtype=jnp.int32), jnp.int32(n)
    values = scores - prices[None, :]
    top, best = values.max(1), values.argmax(1)
    second = jnp.where(rows[None, :] == best[:, None], -jnp.inf, values).max(1)
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
    return jnp.where(sold, highest, prices), holds, jnp.where(sold, winner, holder), eps


def _auction(
    epsilon: float, warm: bool, scores: jax.Array, prices: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Jacobi auction with epsilon scaling (Bertsekas 1988), on one matrix.

    Rows bid for columns at prices; a phase ends when every row holds a column, and then no row
    can gain more than its epsilon by changing, so that the sum is within `n * epsilon` of the
    greatest. Phases with a coarse epsilon only set the prices for the next; prices from a call
    before make most of them needless.
    """
    scores = _finite_or_identity(scores)
    n = scores.shape[0]
    if n < 2:
        return jnp.zeros(n, jnp.int32), prices
    rows = jnp.arange(n, dtype=jnp.int32)
    largest = jnp.abs(scores).max()
    scores = scores * jnp.where(largest > host.HUGE, host.HUGE / largest, 1)
    scores = scores - scores.max()
    # A matrix without any range has nothing to gain: any positive epsilon will do.
    span = jnp.maximum(-scores.min(), jnp.finfo(scores.dtype).tiny * 2**20)
    nobody = jnp.int32(n)
    bid = functools.partial(_bid, scores)

    def unsold(state: tuple[jax.Array, ...]) -> jax.Array:
        return (state[1] == nobody).any()

    def phase(_: object, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        prices, _, eps = state
        empty = jnp.full(n, nobody)
        prices, holds, *_ = jax.lax.while_loop(unsold, bid, (prices, empty, empty, eps))
        return prices - prices.min(), holds, eps / _SCALING

    phases = max(0, int(np.ceil(np.log(0.25 / epsilon) / np.log(_SCALING))))
    # Prices from a call before are trusted to a thousandth of the range.
    known = max(0, int(np.ceil(np.log(1e-3 / epsilon) / np.log(_SCALING))))
    first = jnp.where(warm & (prices != 0).any(), phases - known, 0) if warm else 0
    last = jnp.asarray(epsilon, scores.dtype) * span
    eps = last * _SCALING ** jnp.asarray(phases - first, scores.dtype)
    prices, holds, _ = jax.lax.fori_loop(first, phases + 1, phase, (prices, rows, eps))
    return holds, prices
