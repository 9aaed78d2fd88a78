"""Where coordinate ascent starts: the identity, or one of two permutations made from the weights.

- *anchored*: the family with the most weights whose other axes are fixed or settled is assigned by
  those weights alone, then the next, until all are settled. What connects to the inputs and the
  outputs is known first, and everything else is anchored to it.
- *relaxed*: every group's permutation becomes a doubly stochastic matrix, at first 1/n throughout.
  Frank-Wolfe: all groups' slopes are assigned at once, and the matrices move towards that
  permutation as far as the objective rises; at the end the nearest permutation is taken (Vogelstein
  et al. 2015, "Fast approximate quadratic programming for graph matching").

Both are written once for the products of either driver.
"""

from typing import Any, NamedTuple

from llfc_jax.matching.assignment.family import assigned_value, composite, solve_family
from llfc_jax.matching.assignment.solvers import Solver
from llfc_jax.matching.search.plan import anchor_order
from llfc_jax.matching.search.products import Products
from llfc_jax.types import Scalar

Arrays = dict[str, Any]
"""An array a group, NumPy's or JAX's as the products are."""

STEPS = 20
"""Most steps of the relaxed start."""
_STILL = 1e-2  # relative gain of a step below which the relaxed start has converged
_LENGTHS = 100  # lengths of a step that are compared


def anchored(products: Products, solver: Solver = "auto") -> tuple[Arrays, dict[int, Any]]:
    """Returns the permutation that settles one family after the other.

    Returns:
        The permutation, and the scores of the edges that were built on the way, by number.
    """
    plan = products.plan
    permutation: Arrays = {}
    known: dict[int, Any] = {}
    for number, edges in anchor_order(plan):
        total = {name: products.constant[name].copy() for name in plan.members(number)}
        for e in edges:
            known[e] = products.build(e, permutation)
            total[plan.edges[e].group] += known[e]
        family = plan.families[number]
        prices = products.xp.zeros(plan.size[family[0]], products.dtype)
        permutation |= solve_family(plan.spec, family, total, prices, solver)[0]
    return permutation, known


class _State(NamedTuple):
    mixture: Arrays  # doubly stochastic, [n, n] a group
    slopes: list[Any]  # of each edge at the mixture, [n, n]
    value: Any
    prices: dict[int, Any]  # of each family's last assignment
    steps: Any
    going: Any


def relaxed(products: Products, solver: Solver = "auto", steps: int = STEPS) -> Arrays:
    """Returns the permutation nearest to a maximum over doubly stochastic matrices."""
    plan, xp = products.plan, products.xp
    mixture = {n: xp.full((k, k), 1 / k, products.dtype) for n, k in plan.size.items()}
    slopes = [products.mix(e, mixture) for e in range(len(plan.edges))]
    value = _value(products, slopes, mixture)

    def step(state: _State) -> _State:
        return _step(products, solver, state)

    def running(state: _State) -> Any:
        return state.going & (state.steps < steps)

    prices = _no_prices(products)
    begun = _State(mixture, slopes, value, prices, xp.zeros((), xp.int32), xp.ones((), bool))
    end = products.while_loop(running, step, begun)
    return _nearest(products, end.mixture, prices, solver)[0]


def _step(products: Products, solver: Solver, state: _State) -> _State:
    """One step of Frank-Wolfe.

    Along the step the objective is a polynomial: of degree two for networks whose blocks join two
    groups. The cubic with its values and slopes at both ends is then exact, and costs nothing.
    """
    plan, xp = products.plan, products.xp
    slope = _slope(products, state.slopes)
    corner, prices = _nearest(products, slope, state.prices, solver)
    index = {name: composite(plan.spec, corner, name) for name in plan.size}
    matrix = {n: xp.eye(k, dtype=products.dtype)[index[n]] for n, k in plan.size.items()}
    at_corner = [products.build(e, corner) for e in range(len(plan.edges))]
    end = _slope(products, at_corner)
    rise, fall = (
        sum((assigned_value(s[n], index[n]) - (s[n] * state.mixture[n]).sum() for n in s), 0.0)
        for s in (slope, end)
    )
    t = xp.linspace(0, 1, _LENGTHS + 1, dtype=products.dtype)
    values = _hermite(t, state.value, rise, _value(products, at_corner, matrix), fall)
    best = values.argmax()
    t, value = t[best], values[best]
    mixture = {n: m + t * (matrix[n] - m) for n, m in state.mixture.items()}
    slopes = [
        # With one other group an edge is linear in that group's matrix.
        old + t * (new - old) if len(plan.edges[e].others) == 1 else products.mix(e, mixture)
        for e, (old, new) in enumerate(zip(state.slopes, at_corner, strict=True))
    ]
    going = value > state.value + _STILL * abs(state.value)
    return _State(mixture, slopes, value, prices, state.steps + 1, going)


def _hermite(t: Scalar, start: Scalar, rise: Scalar, end: Scalar, fall: Scalar) -> Any:
    """The cubic on [0, 1] with these values and slopes at its ends."""
    turned = 1 - t
    return (
        (1 + 2 * t) * turned**2 * start
        + t * turned**2 * rise
        + t**2 * (3 - 2 * t) * end
        - t**2 * turned * fall
    )


def _slope(products: Products, slopes: list[Any]) -> Arrays:
    """The objective's gradient for each group, from its edges."""
    total = dict(products.constant)
    for edge, slope in zip(products.plan.edges, slopes, strict=True):
        total[edge.group] = total[edge.group] + slope
    return total


def _value(products: Products, slopes: list[Any], mixture: Arrays) -> Any:
    """The objective at a mixture: each block is counted by all of its edges alike."""
    plan = products.plan
    value = sum(((products.constant[name] * m).sum() for name, m in mixture.items()), 0.0)
    for edge, slope in zip(plan.edges, slopes, strict=True):
        value += (slope * mixture[edge.group]).sum() / (1 + len(edge.others))
    return value


def _nearest(
    products: Products, scores: Arrays, prices: dict[int, Any], solver: Solver
) -> tuple[Arrays, dict[int, Any]]:
    """The permutation with the largest scores, of every family, and prices for the next call."""
    plan = products.plan
    permutation: Arrays = {}
    after = {}
    for number, family in enumerate(plan.families):
        found, after[number] = solve_family(plan.spec, family, scores, prices[number], solver)
        permutation |= found
    return permutation, after


def _no_prices(products: Products) -> dict[int, Any]:
    plan = products.plan
    sizes = {number: plan.size[root] for number, (root, _) in enumerate(plan.families)}
    return {number: products.xp.zeros(n, products.dtype) for number, n in sizes.items()}
