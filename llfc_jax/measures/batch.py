"""One batch through a pair: the ends, every point between them, and what the measures read there.

`measure_batch`, compiled by `compiled`, is the one program of a request: the network runs once for
each end and once for each other α, and every measure reads its statistics from these runs.
"""

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from functools import cache, partial
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from llfc_jax.graph import Graph, Values, trace
from llfc_jax.graph.graph import Visit
from llfc_jax.graph.row_layout import RowLayout, keep_features
from llfc_jax.graph.token_axes import find_token_axes
from llfc_jax.graph.trace import LINEAR, abstract
from llfc_jax.measures import renormalise as renorm
from llfc_jax.measures.precision import wide
from llfc_jax.pair import Curve, interpolate
from llfc_jax.parallel import loops, quick
from llfc_jax.tasks import Task
from llfc_jax.types import AnyArray, Apply, Inputs, Targets, Variables


class TracedNetwork:
    """A network's trace as a static argument of compiled programs.

    Two of them are equal, and so share a program, where the network and all shapes and types are.

    Attributes:
        apply: `apply(variables, x)`.
        graph: its trace; where rows are tokens, without the sites that hold none.
        token_axes: the tokens' axis in each value; None where the mask has none.
        per_token: whether rows are tokens.
    """

    def __init__(
        self,
        apply: Apply,
        variables: Variables,
        x: Inputs,
        length: int | None = None,
        per_token: bool = False,
    ) -> None:
        """Traces the network.

        Args:
            apply: the network.
            variables: its variables, or their shapes.
            x: a batch, or its shape.
            length: number of tokens of each sample, where the mask tells them apart.
            per_token: whether rows are tokens.
        """
        self.apply = apply
        self.graph = trace(apply, variables, x)
        self.token_axes, self.per_token = None, per_token
        if length is not None:
            self.token_axes = find_token_axes(self.graph, apply, variables, x, length)
        self.graph = keep_features(self.graph, self.token_axes if per_token else None, length)
        leaves, structure = jax.tree.flatten((abstract(variables), abstract(x)))
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        try:
            hash(apply)
            identity: Hashable = apply
        except TypeError:
            identity = id(apply)
        precision = jax.config.jax_default_matmul_precision  # pyright: ignore
        self._key = (identity, structure, shapes, precision, length, per_token)

    def __hash__(self) -> int:
        """Returns the hash of the network, the shapes and the types."""
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        """Returns whether a program compiled for one serves the other."""
        return isinstance(other, TracedNetwork) and self._key == other._key


@dataclasses.dataclass(frozen=True)
class PairBatch:
    """What a measure sees of one batch.

    Attributes:
        graph: the network's trace at this batch's shape.
        curve: the way between the modes; a straight line unless said otherwise.
        a: all values of the run of `a`, renormalised where the options say so.
        b: all values of the run of `b`.
        x: the inputs [n, ...].
        y: the targets.
        layout: how values are cut into rows, one for each sample or token, and which count.
        task: how outputs are judged.
        alphas: the whole grid [alphas]; it holds 0, ½ and 1.
        places: where 0 and 1 stand in the grid.
        map_over: maps a function over the leading axis of a tree, as the loop over α runs.
        base: variables of the network that both modes were fine-tuned from; None if unknown.
    """

    graph: Graph
    curve: Curve
    a: Values
    b: Values
    x: Inputs
    y: Any
    layout: RowLayout
    task: Task
    alphas: jax.Array
    places: tuple[int, int]
    map_over: Callable[[Callable[[Any], Any], Any], Any]
    base: Variables | None = None

    @property
    def mask(self) -> jax.Array:
        """1 for each row that counts [rows]."""
        return self.layout.row_mask

    def judge(self, outputs: PyTree) -> dict[str, Any]:
        """Returns the sums by which the task judges outputs (`Task.sums`)."""
        return self.task.sums(outputs, self.y, self.layout.output_mask)

    def trivial(self) -> Any:
        """Returns the sums of the task's trivial predictor."""
        return self.task.trivial_sums(self.a.output, self.y, self.layout.output_mask)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a measure reads from a batch; trees of `Moments`, `Products`, `Squares` and sums.

    Attributes:
        sums: statistics that have no α.
        on_grid: α -> statistics that need no run of θ_α.
        on_line: (α, values of θ_α) -> statistics. The ends are not run again for it.
        at_ends: what `on_line` gives at α = 0 and at α = 1, where there is a shorter way than
            calling it on the values of b and of a.
    """

    sums: PyTree = ()
    on_grid: Callable[[jax.Array], PyTree] | None = None
    on_line: Callable[[jax.Array, Values], PyTree] | None = None
    at_ends: tuple[PyTree, PyTree] | None = None


class Reader(Protocol):
    """A measure's kernel; hashable, since it is a static argument of `measure_batch`."""

    name: ClassVar[str]

    def read(self, batch: PairBatch, plan: Any) -> Reading:
        """Returns what the measure reads from a batch."""
        ...


Part = tuple[Reader, Hashable]
"""A measure and its plan: see `Measure.plan`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Points:
    """The points θ_α of a line, all arrays stacked along α.

    Attributes:
        alphas: the grid, rising [alphas].
        corrections: how each point is renormalised; empty for not at all.
    """

    alphas: Any
    corrections: renorm.Correction

    def __getitem__(self, place: int | list[int] | AnyArray) -> "Points":
        """Returns the points at these places."""
        return jax.tree.map(lambda leaf: leaf[place], self)


def measure_batch(
    network: TracedNetwork,
    task: Task,
    parts: tuple[Part, ...],
    places: tuple[int, int],
    alpha_loop: loops.AlphaLoop,
    curve: Curve,
    points: Points,
    x: Inputs,
    y: Targets,
    mask: jax.Array,
    base: Variables | None = None,
) -> dict[str, Any]:
    """Runs a pair on one batch and returns what all measures read, by measure.

    Args:
        network: the traced network.
        task: how outputs are judged.
        parts: the measures and their plans.
        places: where α = 0 and α = 1 stand in the grid.
        alpha_loop: how the loop over α runs.
        curve: the way between the modes.
        points: its grid, and how each point is renormalised.
        x: inputs [n, ...].
        y: targets.
        mask: 1 for what counts, 0 for padding: [n], or [n, t].
        base: variables of the network that both modes were fine-tuned from.
    """
    graph = network.graph
    of_b, of_a = (
        renorm.evaluate(graph, mode, x, points[place].corrections)
        for mode, place in ((curve.b, places[0]), (curve.a, places[1]))
    )
    map_over = partial(loops.map_over, how=alpha_loop)
    layout = RowLayout(graph, mask, network.token_axes, network.per_token)
    run = graph, curve, of_a, of_b, x, y, layout, task, points.alphas, places, map_over, base
    batch = PairBatch(*run)
    readings = {}
    for measure, plan in parts:
        with jax.named_scope(measure.name):
            readings[measure.name] = measure.read(batch, plan)
    return {
        "samples": layout.row_mask.sum(),
        "sums": {name: reading.sums for name, reading in readings.items()},
        "on_grid": _read_grid(batch, readings),
        "on_line": _read_line(batch, points, readings),
    }


@cache
def compiled(quickly: bool) -> Callable[..., dict[str, Any]]:
    """Returns `measure_batch` as a compiled program.

    Args:
        quickly: whether it is compiled quickly rather than well (`parallel.quick`).
    """
    return jax.jit(
        measure_batch,
        static_argnames=("network", "task", "parts", "places", "alpha_loop"),
        compiler_options=quick.compiler_options(quickly),
    )


def _read_grid(batch: PairBatch, readings: Mapping[str, Reading]) -> dict[str, Any]:
    """Returns what is read at every α without a run of θ_α, stacked along α."""
    readers = {name: r.on_grid for name, r in readings.items() if r.on_grid}
    if not readers:
        return {}
    return batch.map_over(lambda alpha: {n: read(alpha) for n, read in readers.items()},
                          batch.alphas)  # fmt: skip


def _read_line(batch: PairBatch, points: Points, readings: Mapping[str, Reading]) -> dict[str, Any]:
    """Returns what is read of every θ_α, to be put in order by `join_line`."""
    readers = {name: r.on_line for name, r in readings.items() if r.on_line}
    if not readers:
        return {}

    def at(point: Points) -> dict[str, Any]:
        theta = batch.curve.at(point.alphas)
        values = _run_between(batch, theta, point)
        return {name: read(point.alphas, values) for name, read in readers.items()}

    def at_end(index: int, values: Values) -> dict[str, Any]:
        alpha = batch.alphas[batch.places[index]]
        known = {name: readings[name].at_ends for name in readers}
        return {n: e[index] if (e := known[n]) else readers[n](alpha, values) for n in readers}

    between = batch.map_over(at, points[_between(len(points.alphas), batch.places)])
    return {"ends": (at_end(0, batch.b), at_end(1, batch.a)), "between": between}


def join_line(line: Mapping[str, Any], count: int, places: tuple[int, int]) -> dict[str, Any]:
    """Returns what `measure_batch` read of every θ_α as one tree, stacked along the grid.

    It is done on the host, at the end: on the device it would take operations for every number.

    Args:
        line: "on_line" of `measure_batch`, NumPy arrays.
        count: the number of points of the grid.
        places: where α = 0 and α = 1 stand in it.
    """
    if not line:
        return {}
    order = np.argsort([*places, *_between(count, places)])

    def join(zero: np.ndarray, one: np.ndarray, rest: np.ndarray) -> np.ndarray:
        return np.concatenate([zero[None], one[None], rest])[order]

    return jax.tree.map(join, *line["ends"], line["between"])


def _between(count: int, places: tuple[int, int]) -> np.ndarray:
    """Returns the places of a grid of `count` points that are not its ends'."""
    return np.delete(np.arange(count), places)


def _run_between(batch: PairBatch, theta: Variables, point: Points) -> Values:
    if point.corrections == renorm.NOTHING and batch.curve.kind == "line":
        visit = _mix_first_products(batch.a, batch.b, point.alphas)
        return batch.graph.evaluate(theta, batch.x, visit)
    return renorm.evaluate(batch.graph, theta, batch.x, point.corrections)


def _mix_first_products(a: Values, b: Values, alpha: jax.Array) -> dict[int, Visit]:
    """Returns visitors that take the first layer's product at θ_α as the mixture of the ends'.

    It is affine in the weights, so nothing needs to be computed; for an MLP that is nearly half
    of the work of every α.
    """

    def visit(number: int) -> Visit:
        p, q = a.all[number], b.all[number]
        return lambda _: {number: interpolate(wide(p), wide(q), alpha).astype(p.dtype)}

    products = (eq.outputs[0] for eq in a.graph.program.equations if eq.name in LINEAR)
    return {number: visit(number) for number in products if number in a.graph.affine}


@partial(jax.jit, static_argnames=("network", "names"))
def read_weights(
    network: TracedNetwork, names: tuple[str, ...], variables: Variables
) -> list[jax.Array]:
    """Returns the weights of linear sites as their products see them; no feature is computed."""
    graph = network.graph
    shapes = [graph.program.avals[number] for number in graph.program.inputs]
    values = graph.evaluate(variables, [jnp.zeros(x.shape, x.dtype) for x in shapes])
    weights = []
    for name in names:
        site = graph[name]
        assert site.weight is not None
        weights.append(values.all[graph.program.equations[site.equation].inputs[site.weight]])
    return weights
