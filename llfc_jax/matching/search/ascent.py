"""Coordinate ascent from several starts; the best end is kept.

`ascend_best` decides which driver runs: NumPy on the host where the values are known and lie on a
CPU, one compiled program elsewhere (accelerators, `jit`, `vmap`). Of modes that are spread over
several devices the scores are made where they lie, and assigned on the host.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from llfc_jax.matching.assignment.family import as_numpy, host_identity
from llfc_jax.matching.assignment.solvers import Solver
from llfc_jax.matching.placement import dtype_of, on_host
from llfc_jax.matching.result import Match
from llfc_jax.matching.search import compiled, host, spread, starts
from llfc_jax.matching.search.plan import Plan, make_plan, unsettled
from llfc_jax.parallel.spread import is_spread
from llfc_jax.symmetry.axes import Permutation
from llfc_jax.symmetry.spec import PermutationSpec
from llfc_jax.types import Variables

StartName = Literal["auto", "identity", "anchored", "relaxed"]
START_NAMES: tuple[str, ...] = get_args(StartName)
CHEAP = 5e8
"""Operations of all products of a network up to which "auto" runs the relaxed start too."""


@dataclasses.dataclass(frozen=True)
class AscentOptions:
    """What is fixed before an ascent is compiled; hashable.

    Attributes:
        starts: names, and "given" for each permutation handed in, in order.
        restarts: least number of starts; random permutations are added until there are as many.
        max_sweeps: most sweeps over all families.
        tolerance: gain, as a share of `||A|| ||B||`, above which neighbours are solved again.
        solver: see `assign`.
        order: numbers of the families to visit, instead of random sweeps.
    """

    starts: tuple[str, ...]
    restarts: int = 1
    max_sweeps: int = 100
    tolerance: float = 1e-7
    solver: Solver = "auto"
    order: tuple[int, ...] | None = None


def ascend_best(
    key: jax.Array,
    spec: PermutationSpec,
    counted: frozenset[str],
    options: AscentOptions,
    a: Variables,
    b: Variables,
    given: Sequence[Permutation] = (),
) -> Match:
    """Returns the best end of the ascents from every start.

    Args:
        key: order of the visits, and the random starts.
        spec: which units may move.
        counted: paths of the leaves that count.
        options: see `AscentOptions`.
        a: the mode that stays.
        b: the mode that is permuted.
        given: the permutations that stand for "given" among the starts.
    """
    plan = make_plan(spec, counted)
    options = dataclasses.replace(options, starts=_resolve(plan, options.starts))
    places = sorted({leaf for leaf, _ in plan.blocks})
    leaves = [jax.tree.leaves(mode) for mode in (a, b)]
    sides = [{i: side[i] for i in places} for side in leaves]
    indices = [dict(permutation) for permutation in given]
    dtype = np.dtype(_dtype([leaf for side in sides for leaf in side.values()]))
    if is_spread(sides):  # whichever solver
        products = spread.Products((spec, counted), sides[0], sides[1], dtype)
        return _on_host(key, products, options, indices)
    if options.solver in ("auto", "scipy") and on_host((key, sides, indices)):
        with host.one_thread(plan):
            products = host.Products(plan, sides[0], sides[1], dtype)
            return _on_host(key, products, options, indices)
    return _compiled((spec, counted, options), key, sides, indices)


def _resolve(plan: Plan, names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the starts, "auto" replaced by what was best in `benchmarks/matching_study.py`.

    On small networks the relaxed start ends higher and at lower barriers, and takes little time;
    on large ones the anchored start ends highest, at a fraction of the time.
    """
    auto = ("anchored", "relaxed") if plan.operations() <= CHEAP else ("anchored",)
    return tuple(s for name in names for s in (auto if name == "auto" else (name,)))


def _random(key: jax.Array, spec: PermutationSpec, options: AscentOptions, number: int) -> Any:
    """Returns a random start, the same for both drivers."""
    return spec.random(jax.random.fold_in(key, options.max_sweeps + number))


def _dtype(leaves: list[Any]) -> Any:
    """Returns float32, or a wider type if a leaf has one."""
    wide = {dtype_of(leaf) for leaf in leaves if dtype_of(leaf).itemsize >= 4}
    return functools.reduce(jnp.promote_types, wide, jnp.float32)


# -- driven from the host ------------------------------------------------------------------------


def _on_host(
    key: jax.Array,
    products: host.Products,
    options: AscentOptions,
    given: list[dict[str, Any]],
) -> Match:
    """Returns the best end of the ascents from every start."""
    spec, dtype = products.plan.spec, products.dtype
    with np.errstate(over="ignore", invalid="ignore"):
        tolerance = options.tolerance * products.size()
        best, reached = None, -np.inf
        for start, known in _host_starts(key, products, options, given):
            begun = products.overlap(start)
            end = host.ascend(
                key, products, start or host_identity(spec), known, tolerance,
                options.max_sweeps, options.order,
            )  # fmt: skip
            history = begun + end.gained
            if best is None or history[-1] > reached:
                best, reached = dataclasses.replace(end, gained=history), history[-1]
    assert best is not None
    index = {name: p.astype(np.int32) for name, p in best.permutation.items()}
    numbers = dtype.type(reached), best.gained.astype(dtype), np.int32(best.sweeps)
    permutation, objective, history, sweeps = jax.device_put((index, *numbers))
    return Match(permutation, objective, history, sweeps, "weight")


def _host_starts(
    key: jax.Array,
    products: host.Products,
    options: AscentOptions,
    given: list[dict[str, Any]],
) -> Any:
    """Yields the starts (None: the identity), and the edges that are known there."""
    left = iter(given)
    for name in options.starts:
        if name == "given":
            yield as_numpy(next(left)), None
        elif name == "identity":
            yield None, None
        elif name == "anchored":
            yield starts.anchored(products)
        else:
            yield starts.relaxed(products), None
    for number in range(len(options.starts), options.restarts):
        yield as_numpy(_random(key, products.plan.spec, options, number)), None


# -- compiled ------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def _compiled(
    fixed: tuple[PermutationSpec, frozenset[str], AscentOptions], *arrays: PyTree
) -> Match:
    """Returns what `_ascend_all` does for these arrays.

    Under `jax.vmap` pairs take turns (`lax.map`): batched, each would wait for the slowest and no
    product could be skipped.
    """
    run = functools.partial(_ascend_all, *fixed)
    return jax.custom_batching.sequential_vmap(run)(*arrays)


def _ascend_all(
    spec: PermutationSpec,
    counted: frozenset[str],
    options: AscentOptions,
    key: jax.Array,
    sides: list[dict[int, jax.Array]],
    given: list[dict[str, jax.Array]],
) -> Match:
    """Returns the best end of the ascents from every start, one after another."""
    dtype = _dtype([leaf for side in sides for leaf in side.values()])
    with jax.default_matmul_precision("highest"):
        products = compiled.Products(make_plan(spec, counted), sides[0], sides[1], dtype)
        if not products.plan.families:
            value = products.overlap(None)
            return Match({}, value, value[None], jnp.zeros((), jnp.int32), "weight")
        tolerance = options.tolerance * products.size()
        one = functools.partial(_ascend, key, products, tolerance, options)
        begun = _compiled_starts(key, products, options, given)
        if len(begun) == 1:
            return one(begun[0])
        stacked = jax.tree.map(lambda *p: jnp.stack(p), *begun)
        ends = jax.lax.map(one, stacked)
        best = jnp.argmax(ends.objective)
        return jax.tree.map(lambda leaf: leaf[best], ends)


def _ascend(
    key: jax.Array,
    products: compiled.Products,
    tolerance: jax.Array,
    options: AscentOptions,
    begin: tuple[dict[str, jax.Array], jax.Array],
) -> Match:
    """Ascends from one start."""
    start, dirty = begin
    begun = products.overlap(start)
    end = compiled.ascend(
        key, products, start, dirty, tolerance, options.max_sweeps, options.order, options.solver
    )
    # Where the start leaves nothing to solve, there was no sweep, and nothing was gained.
    gained = end.gained.at[0].set(jnp.where(end.sweeps > 0, end.gained[0], 0))
    history = begun + gained
    reached = history[jnp.maximum(end.sweeps - 1, 0)]
    return Match(end.permutation, reached, history, end.sweeps, "weight")


def _compiled_starts(
    key: jax.Array,
    products: compiled.Products,
    options: AscentOptions,
    given: list[dict[str, jax.Array]],
) -> list[tuple[dict[str, jax.Array], jax.Array]]:
    """Returns the starts, and which families are left to solve at each."""
    left, plan, begun = iter(given), products.plan, []
    every = jnp.ones(len(plan.families), bool)
    for name in options.starts:
        if name == "given":
            begun.append((next(left), every))
        elif name == "identity":
            begun.append((jax.tree.map(jnp.asarray, host_identity(plan.spec)), every))
        elif name == "anchored":
            start, known = starts.anchored(products, options.solver)
            begun.append((start, jnp.asarray(unsettled(plan, known))))
        else:
            begun.append((starts.relaxed(products, options.solver), every))
    numbers = range(len(options.starts), options.restarts)
    return begun + [(_random(key, plan.spec, options, number), every) for number in numbers]
