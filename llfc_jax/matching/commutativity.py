"""Commutativity matching: aim at the product that weight and activation matching shrink by halves.

After matching, commutativity (definition 4 of the paper) reads, at every layer with weights,

    (W_A - π(W_B)) (H_A - π(H_B)) = 0,

W the layer's weights and H its inputs. Weight matching shrinks the first factor, activation
matching the second. This method minimises the product itself,

    J(π) = Σ over layers  ||(W_A - π(W_B)) (H_A - π(H_B))||² / ||W_A H_A||²,

over samples of the train split: a quadratic assignment problem in every pair of neighbouring
groups, for which a good local optimum is sought from other methods' ends:

1. Relax: each group's permutation becomes a doubly stochastic matrix (`mixing`). Frank-Wolfe: the
   linear problem of each step is one assignment per group; along the step J is close to the
   polynomial through its slope and four of its values, whose minimum in [0, 1] is taken.
2. Round to the nearest permutation.
3. Polish: one group after the other, by the same two steps for that group alone, until no group
   gains.

Only what lowers J is accepted, so that the result's J is at most that of every start.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.errors import DataError, GraphError, MatchingError, unknown
from llfc_jax.graph import Apply, Graph, trace
from llfc_jax.matching.activation import activation_matching
from llfc_jax.matching.assignment import Solver
from llfc_jax.matching.axes import Axis, Permutation
from llfc_jax.matching.derive import Derived, derive
from llfc_jax.matching.mixing import Mixture, as_mixture, mix
from llfc_jax.matching.modes import check_modes
from llfc_jax.matching.result import Matching
from llfc_jax.matching.solve import families, solve_family
from llfc_jax.matching.spec import PermutationSpec
from llfc_jax.matching.stream import Progress
from llfc_jax.matching.weight import weight_matching

STARTS = ("weight", "activation")
_STILL = 1e-6  # share of J below which a step counts as none


class Layer(NamedTuple):
    """One linear site whose input depends on the network's parameters.

    Attributes:
        equation: index of its product in the program.
        data: which input of it is the feature.
        data_axes: axes of the feature.
        weight_axes: axes of the weight.
    """

    equation: int
    data: int
    data_axes: tuple[Axis, ...]
    weight_axes: tuple[Axis, ...]


class Values(NamedTuple):
    """A layer's features and weights in both modes, and what its product is divided by."""

    data_a: jax.Array
    data_b: jax.Array
    weight_a: jax.Array
    weight_b: jax.Array
    norm: jax.Array


def layers(graph: Graph, derived: Derived) -> tuple[Layer, ...]:
    """The linear sites whose product commutativity asks about; those fed by x alone are zero."""
    found = []
    for site in graph.sites:
        if site.kind != "linear" or site.data is None or site.weight is None:
            continue
        inputs = graph.program.equations[site.equation].inputs
        data, weight = inputs[site.data], inputs[site.weight]
        if data in graph.parametric:
            axes = derived.values[data], derived.values[weight]
            found.append(Layer(site.equation, site.data, *axes))
    return tuple(found)


def read(graph: Graph, found: Sequence[Layer], a: Any, b: Any, x: jax.Array) -> list[Values]:
    """Run both modes and keep what J needs."""
    of_a, of_b = graph.evaluate(a, x).all, graph.evaluate(b, x).all
    values = []
    for layer in found:
        inputs = graph.program.equations[layer.equation].inputs
        data, weight = inputs[layer.data], inputs[1 - layer.data]
        own = _product(graph, layer, of_a[data], of_a[weight])
        norm = jnp.maximum(jnp.vdot(own, own), jnp.finfo(own.dtype).tiny)
        values.append(Values(of_a[data], of_b[data], of_a[weight], of_b[weight], norm))
    return values


def _product(graph: Graph, layer: Layer, data: jax.Array, weight: jax.Array) -> jax.Array:
    pair = (data, weight) if layer.data == 0 else (weight, data)
    return graph.program.equations[layer.equation].bind(*pair)[0].astype(jnp.float32)


def objective(
    graph: Graph,
    found: Sequence[Layer],
    values: Sequence[Values],
    mixture: Mixture,
    parents: Mapping[str, str],
) -> jax.Array:
    """J at a mixture (or, with permutation matrices, at a permutation)."""
    total = jnp.zeros(())
    for layer, v in zip(found, values, strict=True):
        data = v.data_a - mix(v.data_b, layer.data_axes, mixture, parents)
        weight = v.weight_a - mix(v.weight_b, layer.weight_axes, mixture, parents)
        off = _product(graph, layer, data, weight)
        total += jnp.vdot(off, off) / v.norm
    return total


def commutativity_matching(
    key: jax.Array,
    apply: Apply,
    spec: PermutationSpec,
    a: Any,
    b: Any,
    batches: Iterable[tuple[Any, Any]],
    *,
    starts: Sequence[str | Permutation] = STARTS,
    samples: int = 2000,
    steps: int = 50,
    polish: int = 3,
    solver: Solver = "auto",
    progress: Progress | None = None,
) -> Matching:
    """Match B to A by the commutativity of weights and features.

    Args:
        key: for weight matching, where it is a start, and the order of polishing.
        apply: `apply(variables, x) -> logits`.
        spec: the spec that `permutation_spec` derived for this network.
        a: the mode that stays.
        b: the mode that is permuted.
        batches: data, pairs (x, y); the labels are not looked at.
        starts: "weight", "activation", or permutations; the end with the lowest J is kept.
        samples: how many samples J is taken over, from the first batches.
        steps: most Frank-Wolfe steps from each start.
        polish: most rounds of polishing over all groups.
        solver: see `assign`.
        progress: called as (starts done, starts, words).

    Returns:
        A `Matching` whose objective is J: less is better. `history` holds J at the starts' own
        permutations first (one each), then at the end from each.

    Raises:
        ModeError: `a` and `b` are no modes of one network.
        MatchingError: they do not fit the spec, or an argument is out of range.
        DataError: there is no batch.
        GraphError: no layer's product depends on a permutation.
    """
    check_modes(spec, a, b)
    if samples < 1 or steps < 0 or polish < 0 or not starts:
        raise MatchingError("samples and starts must be at least 1, steps and polish 0 or more")
    x = _take(batches, samples)
    graph = trace(apply, a, x)
    derived = derive(graph)
    if derived.spec.leaves != spec.leaves:
        raise MatchingError(
            "the spec is not the one that this network's trace gives; pass "
            "permutation_spec(apply, a, x)"
        )
    found = layers(graph, derived)
    if not found or not spec.groups:
        raise GraphError("no layer's input depends on a permutation: there is nothing to commute")
    problem = Problem(graph, spec, found, read(graph, found, a, b, x), solver)
    before, ends = [], []
    for i, start in enumerate(starts):
        if start == "weight":
            permutation = weight_matching(key, spec, a, b, solver=solver).permutation
        elif start == "activation":
            permutation = activation_matching(apply, spec, a, b, batches, solver=solver).permutation
        elif isinstance(start, str):
            raise MatchingError(unknown("start of commutativity matching", start, STARTS))
        else:
            spec.validate(start)
            permutation = dict(start)
        before.append(problem.at(permutation))
        ends.append(problem.descend(jax.random.fold_in(key, i), permutation, steps, polish))
        if progress:
            progress(i + 1, len(starts), "commutativity")
    best = int(np.argmin([value for _, value in ends]))
    history = jnp.array([*before, *(value for _, value in ends)])
    return Matching(
        ends[best][0], jnp.array(ends[best][1]), history, jnp.array(len(starts)), "commutativity"
    )


def _take(batches: Iterable[tuple[Any, Any]], samples: int) -> jax.Array:
    """The first samples of the data."""
    taken: list[jax.Array] = []
    for x, _ in batches:
        taken.append(jnp.asarray(x)[: samples - sum(map(len, taken))])
        if sum(map(len, taken)) >= samples:
            break
    if not taken:
        raise DataError("commutativity matching needs data, and there is no batch")
    return jnp.concatenate(taken)


class Problem:
    """J of one pair, and the descent on it."""

    def __init__(
        self,
        graph: Graph,
        spec: PermutationSpec,
        found: Sequence[Layer],
        values: Sequence[Values],
        solver: Solver = "auto",
    ) -> None:
        self.spec, self.values, self.families = spec, list(values), families(spec)
        at = functools.partial(objective, graph, found, parents=spec.parents)
        self._at = jax.jit(lambda values, p: at(values, as_mixture(spec, p)))
        self._step = jax.jit(functools.partial(self._frank_wolfe, at, solver))
        self._round = jax.jit(functools.partial(self._nearest, solver))

    def at(self, permutation: Permutation) -> float:
        """J at a permutation."""
        return float(self._at(self.values, dict(permutation)))

    def descend(
        self, key: jax.Array, start: Permutation, steps: int, polish: int
    ) -> tuple[dict[str, jax.Array], float]:
        """The permutation found from a start, and its J: never above the start's."""
        best, lowest = dict(start), self.at(start)
        everyone = np.ones(len(self.families), np.float32)
        moved = self._relaxed(best, everyone, steps)
        value = self.at(moved)
        if value < lowest:
            best, lowest = moved, value
        for turn in range(polish):
            before = lowest
            order = jax.random.permutation(jax.random.fold_in(key, turn), len(self.families))
            for number in np.asarray(order):
                moved = self._relaxed(best, np.eye(len(everyone), dtype=np.float32)[number], 10)
                value = self.at(moved)
                if value < lowest:
                    best, lowest = moved, value
            if lowest >= before * (1 - _STILL):
                break
        return best, lowest

    def _relaxed(self, start: Permutation, which: np.ndarray, steps: int) -> dict[str, jax.Array]:
        """Frank-Wolfe over some families from a permutation, and the nearest permutation."""
        mixture = as_mixture(self.spec, start)
        before = np.inf
        for _ in range(steps):
            mixture, value, step = self._step(self.values, mixture, which)
            if step == 0 or value > before * (1 - _STILL):
                break
            before = float(value)
        return self._round(mixture)

    def _nearest(self, solver: Solver, mixture: Mixture) -> dict[str, jax.Array]:
        """The permutation with the largest inner product with a mixture."""
        permutation: dict[str, jax.Array] = {}
        for root, inside in self.families:
            own = {name: mixture[name] for name in (root, *inside)}
            prices = jnp.zeros(self.spec.shape(root))
            permutation |= solve_family(self.spec, root, inside, own, prices, solver)[0]
        return permutation

    def _frank_wolfe(
        self, at: Any, solver: Solver, values: list[Values], mixture: Mixture, which: jax.Array
    ) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
        """One step over the families with `which` = 1: the mixture, its J, the step's length."""
        value, slope = jax.value_and_grad(at, argnums=1)(values, dict(mixture))
        corner = as_mixture(
            self.spec, self._nearest(solver, {name: -g for name, g in slope.items()})
        )
        along = {
            name: which[number] * (corner[name] - mixture[name])
            for number, (root, inside) in enumerate(self.families)
            for name in (root, *inside)
        }

        def moved(t: jax.Array) -> dict[str, jax.Array]:
            return {name: mixture[name] + t * along[name] for name in mixture}

        descent = sum((jnp.vdot(slope[name], along[name]) for name in along), jnp.zeros(()))
        further = [at(values, moved(t)) for t in jnp.array(_NODES)]
        found = jnp.stack([value, descent, *further])
        fine = jnp.asarray(_FIT, jnp.float32) @ found
        best = jnp.asarray(_GRID, jnp.float32)[jnp.argmin(fine)]
        return moved(best), fine.min(), best


def _fit(nodes: tuple[float, ...], grid: np.ndarray) -> np.ndarray:
    """What to multiply (value at 0, slope at 0, values at the nodes) by for values on the grid."""
    powers = np.arange(len(nodes) + 2)
    at_zero = np.eye(2, len(powers))
    conditions = np.vstack([at_zero, np.asarray(nodes)[:, None] ** powers])
    return (grid[:, None] ** powers) @ np.linalg.inv(conditions)


_NODES = (0.3, 0.7, 1.0)
_GRID = np.linspace(0, 1, 101)
_FIT = _fit(_NODES, _GRID)
