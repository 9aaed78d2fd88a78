"""The straight line between two modes, and running the network along it.

α multiplies `a`: θ_α = α a + (1 - α) b. Every measure that walks the line does it here, so that
what is interpolated, what is renormalised and how a loop over α runs is decided once.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.errors import GraphError, ModeError, unknown
from llfc_jax.graph import Apply, Graph, Values, trace
from llfc_jax.graph.graph import Visit
from llfc_jax.graph.trace import LINEAR, abstract
from llfc_jax.measures import renormalise as renorm
from llfc_jax.measures.accumulate import Batches, Progress, check_labels, fold, inspect, padded
from llfc_jax.measures.calibration import calibrate
from llfc_jax.measures.similarity import wide
from llfc_jax.pair import check_pair, interpolate
from llfc_jax.parallel import sharding
from llfc_jax.parallel.loops import AlphaLoop, choose_loops, map_over

T = TypeVar("T")

ALPHAS = tuple(i / 10 for i in range(11))


@dataclasses.dataclass(frozen=True)
class Line:
    """The points θ_α that a measure visits.

    Attributes:
        apply: `apply(variables, x) -> logits`.
        a: the mode that α multiplies.
        b: the other mode.
        alphas: the points, in [0, 1] unless made with `outside=True`.
        how: how the loop over α runs.
        classes: number of the network's outputs.
        corrections: renormalisation of every point, stacked along α; None for none.
        renormalise: the kind of renormalisation, as results record it.
    """

    apply: Apply
    a: Any
    b: Any
    alphas: tuple[float, ...]
    how: AlphaLoop
    classes: int
    corrections: renorm.Correction | None = None
    renormalise: str = "none"

    @property
    def ends(self) -> tuple[bool, bool]:
        """Whether the first point is b itself and the last one a, with others between them."""
        if self.corrections is not None or len(self.alphas) < 3:
            return False, False
        return self.alphas[0] == 0, self.alphas[-1] == 1

    def fold(
        self,
        kernel: "Kernel",
        batches: Batches,
        progress: Progress | None = None,
        words: str = "measuring",
        **static: Any,
    ) -> Any:
        """Run a measure's kernel on every batch; see `Kernel` and `stream.fold`."""
        run = compiled(kernel, self.apply, self.how, self.ends, tuple(sorted(static.items())))
        alphas = np.asarray(self.alphas, jnp.result_type(float))
        corrections = self.corrections or renorm.NOTHING
        return fold(
            lambda x, y, weight: run(self.a, self.b, (alphas, corrections), x, y, weight),
            batches,
            progress,
            words,
            self.classes,
        )


@dataclasses.dataclass(frozen=True)
class Step:
    """What a kernel sees of one batch: both ends evaluated, and every point at hand.

    Attributes:
        graph: the trace at this batch's shape.
        a: all values of the run of `a`.
        b: all values of the run of `b`.
        x: the inputs [n, ...].
        y: labels [n].
        weight: 1 for a sample, 0 for padding [n].
        walk: maps `fn(alpha, values of θ_alpha)` over the line, results stacked along α; where a
            kernel knows what `fn` gives at α = 0 and α = 1 it hands the two over, and the network
            does not run there again.
        grid: maps `fn(alpha)` over the line without running the network there.
    """

    graph: Graph
    a: Values
    b: Values
    x: jax.Array
    y: jax.Array
    weight: jax.Array
    walk: Callable[..., Any]
    grid: Callable[[Callable[[jax.Array], Any]], Any]


# A kernel takes a `Step` and the measure's static options and returns what `stream.fold` merges.
Kernel = Callable[..., Any]


def stack(parts: Sequence[Any]) -> Any:
    """Trees of one structure, stacked leaf by leaf along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)


def by_layer(stacked: Any) -> np.ndarray:
    """[alphas, layers], as kernels stack it, as [layers, alphas]."""
    return np.asarray(stacked).T


@functools.lru_cache(maxsize=64)
def compiled(
    kernel: Kernel,
    apply: Apply,
    how: AlphaLoop,
    on_ends: tuple[bool, bool],
    static: tuple[tuple[str, Any], ...],
) -> Any:
    """The jitted kernel; one compilation serves every pair of the same network."""

    @jax.jit
    def run(a: Any, b: Any, points: Any, x: jax.Array, y: jax.Array, weight: jax.Array) -> Any:
        graph = trace(apply, a, x)
        ends = graph.evaluate(a, x), graph.evaluate(b, x)

        def walk(
            fn: Callable[[jax.Array, Values], Any], known: tuple[Any, Any] | None = None
        ) -> Any:
            def at(point: tuple[jax.Array, renorm.Correction]) -> Any:
                alpha, correction = point
                theta = interpolate(a, b, alpha)
                if correction == renorm.NOTHING:
                    return fn(alpha, graph.evaluate(theta, x, mixed(*ends, alpha)))
                return fn(alpha, renorm.evaluate(graph, theta, x, correction))

            if known is None or not any(on_ends):
                return map_over(at, points, how)
            first, last = ([end] * on for end, on in zip(known, on_ends, strict=True))
            between = slice(len(first), len(points[0]) - len(last))
            rest = map_over(at, jax.tree.map(lambda leaf: leaf[between], points), how)
            parts = [*map(_alone, first), rest, *map(_alone, last)]
            return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)

        grid = functools.partial(map_over, xs=points[0], how=how)
        return kernel(Step(graph, *ends, x, y, weight, walk, grid), **dict(static))

    return run


def _alone(tree: Any) -> Any:
    """What belongs to one point, as the stack of that point alone."""
    return jax.tree.map(lambda leaf: leaf[None], tree)


def mixed(a: Values, b: Values, alpha: jax.Array) -> dict[int, Visit]:
    """The first layer's product at θ_α as the mixture of the ends', so that none is computed.

    For an MLP that is nearly half of the work of every α.
    """

    def visit(number: int) -> Visit:
        p, q = a.all[number], b.all[number]
        return lambda _: {number: interpolate(wide(p), wide(q), alpha).astype(p.dtype)}

    products = (eq.outputs[0] for eq in a.graph.program.equations if eq.name in LINEAR)
    return {number: visit(number) for number in products if number in a.graph.affine}


def check_alphas(alphas: Sequence[float], *, outside: bool = False) -> tuple[float, ...]:
    """The grid, as floats in increasing order.

    Raises:
        ModeError: an empty grid, a number that is not finite, or one outside [0, 1] without
            `outside=True`.
    """
    try:
        grid = tuple(sorted({float(alpha) for alpha in alphas}))
    except (TypeError, ValueError) as error:
        raise ModeError(f"alphas must be numbers, not {alphas!r}") from error
    if not grid:
        raise ModeError("the grid of alphas is empty; give at least one in [0, 1]")
    if not np.isfinite(grid).all():
        raise ModeError(f"alphas must be finite, not {alphas!r}")
    if not outside and not (grid[0] >= 0 and grid[-1] <= 1):
        raise ModeError(f"alphas lie outside [0, 1]: {grid[0]} to {grid[-1]}; say outside=True")
    return grid


def line(
    apply: Apply,
    a: Any,
    b: Any,
    batches: Batches,
    *,
    alphas: Sequence[float] = ALPHAS,
    outside: bool = False,
    over: AlphaLoop | None = None,
    renormalise: str = "none",
    train_batches: Batches | None = None,
    progress: Progress | None = None,
) -> Line:
    """Check a pair and lay out the points between its modes.

    Args:
        apply: `apply(variables, x) -> logits [n, classes]`.
        a: variables of the mode that α multiplies.
        b: variables of the other.
        batches: what will be measured on; its first batch gives the shapes.
        alphas: points to visit.
        outside: allows α outside [0, 1].
        over: how the loop over α runs; chosen by network and backend if None.
        renormalise: "none", "reset" (BatchNorm) or "repair" (networks without it).
        train_batches: the data for renormalising.
        progress: called while renormalising.

    Raises:
        ModeError: no pair of modes, or a grid that is none.
        DataError: batches that do not fit the network.
    """
    grid = check_alphas(alphas, outside=outside)
    check_pair(a, b)
    x, y, _ = next(padded(batches))
    graph = trace(apply, a, x)
    classes = check_logits(graph, x, y)
    how = choose(over, apply, a, x)
    a, b = sharding.replicate_like(x, (a, b))
    if renormalise == "none":
        return Line(apply, a, b, grid, how, classes)
    renorm.check(graph, renormalise)
    if train_batches is None:
        raise ModeError(f"renormalise={renormalise!r} needs train_batches")
    corrections = calibrate(apply, a, b, grid, train_batches, renormalise, how, progress)
    corrections = sharding.replicate_like(x, corrections)
    return Line(apply, a, b, grid, how, classes, corrections, renormalise)


def choose(over: AlphaLoop | None, apply: Apply, variables: Any, x: Any) -> AlphaLoop:
    """AlphaLoop the loop over α runs: as asked for, or as the execution plan has it.

    Raises:
        ModeError: there is no such way.
    """
    ways = get_args(AlphaLoop)
    if over is not None and over not in ways:
        raise ModeError(unknown("way to run over alphas", over, ways))
    return over or choose_loops(apply, abstract(variables), x).alphas


def check_logits(graph: Graph, x: Any, y: Any) -> int:
    """See that the output is [n, classes] and the labels are among them; returns their number."""
    shape = graph.program.avals[graph.program.output].shape
    if len(shape) != 2 or shape[0] != len(y):
        raise GraphError(f"the network must return logits [n, classes], not shape {shape}")
    _, low, high = inspect(x, y)
    check_labels(int(low), int(high), shape[1])
    return shape[1]
