"""A pair under evaluation: checked and traced once, and measured in one pass by all measures."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from llfc_jax.data.inputs import as_batches, as_train_batches
from llfc_jax.errors import DataError, ModeError
from llfc_jax.frameworks import Network
from llfc_jax.graph import Graph
from llfc_jax.graph.outputs import check_outputs
from llfc_jax.graph.queries import check_used_leaves
from llfc_jax.graph.trace import abstract
from llfc_jax.measures import renormalise as renorm
from llfc_jax.measures.accumulate import accumulate, pad_batches
from llfc_jax.measures.batch import (
    Part,
    Points,
    TracedNetwork,
    compiled,
    join_line,
    read_weights,
)
from llfc_jax.measures.calibration import calibrate
from llfc_jax.measures.measure import MIDDLE, Measure, Totals
from llfc_jax.measures.options import EvalOptions
from llfc_jax.measures.precision import matmul_precision
from llfc_jax.measures.registry import check_options, configure
from llfc_jax.pair import Curve, check_pair
from llfc_jax.parallel import loops, sharding, spread
from llfc_jax.results import Result
from llfc_jax.tasks import Batch, count_batches
from llfc_jax.types import Apply, Batches, Inputs, Model, ProgressFn, Targets, Variables

# Numbers that the network computes in a pass, at all α together. The code that is compiled well
# saves 25 to 35 ns of CPU time at each, where every measure is taken, and costs 3.5 to 5.5 s more.
SHORT = 100_000_000


class PairEvaluator:
    """Two modes of one network, ready to be measured.

    The points of the line are θ_α = α a + (1 - α) b: α multiplies `a`. The grid always holds 0,
    ½ and 1. With `renormalise`, all of its points are renormalised, the two ends included, and
    every measure sees these networks.

    Args:
        network: a module of any framework, a function `apply(variables, x)`, or a `Network`; it
            returns what the task judges: logits [n, classes] by default.
        a: the mode that α multiplies, as its framework has it.
        b: the other mode.
        batches: data of any form (`llfc_jax.data.inputs.as_batches`): arrays (x [n, ...], labels
            [n]), or batches of what the task needs; the first one gives the shapes.
        options: how the pair is measured; the defaults if None.
        train_batches: data for renormalising.
        progress: called as (done, total, words) while renormalising.
        curve: another way between a and b than the straight line; θ_α is then θ(α) of it.
        base: the network that both were fine-tuned from, for the measures that look at it.

    Attributes:
        network: the network as a `Network`.
        a: variables of a.
        b: variables of b.
        curve: the way between them.
        base: variables of the network that both were fine-tuned from, if it is known.
        options: how the pair is measured.
        grid: the α at which the network is run: those of the options, 0, ½ and 1.
        graph: the network's trace.
        task: how outputs are judged.
        classes: number of labels; None where the task has none.
        alpha_loop: how the loop over α runs.

    Raises:
        ModeError: the modes are no pair; `renormalise` without `train_batches`, or of a kind that
            does not fit the network.
        GraphError: the network does not take the data, or returns nothing that the task
            judges.
        DataError: the batches are none, or labels outside the classes.

    Examples:
        >>> import numpy as np
        >>> from llfc_jax import measures
        >>> a, b, x, y = np.eye(2), 2 * np.eye(2), np.ones((3, 2)), np.array([0, 1, 1])
        >>> pair = measures.PairEvaluator(lambda w, x: x @ w, a, b, [(x, y)])
        >>> found = pair.measure([measures.build("lmc"), measures.build("ensemble")])
        >>> round(float(found["ensemble"].disagreement.max()), 6)
        0.0
    """

    def __init__(
        self,
        network: Model,
        a: Model,
        b: Model,
        batches: Batches,
        options: EvalOptions | None = None,
        train_batches: Batches | None = None,
        progress: ProgressFn | None = None,
        curve: Curve | None = None,
        base: Model | None = None,
    ) -> None:
        self.options = options = options or EvalOptions()
        self.network = Network.of(network)
        a, b = self.network.variables(a), self.network.variables(b)
        check_pair(a, b)
        self.grid = tuple(sorted({*options.alphas, 0.0, MIDDLE, 1.0}))
        self.task = options.task
        self.batches = batches = self._read(batches, (a, b))
        self.train_batches = None
        if train_batches is not None:
            train = as_train_batches(train_batches, options.batch_size)
            self.train_batches = self._read(train, (a, b))
        first = next(pad_batches(batches, self.task))
        x = first.x
        self.a, self.b = spread.place_pair(a, b, x)
        self.curve = Curve(self.a, self.b)
        if curve is not None:
            bend = spread.place_pair(a, curve.bend, x)[1] if curve.bend is not None else None
            self.curve = dataclasses.replace(curve, a=self.a, b=self.b, bend=bend)
        self.base = None
        if base is not None:
            base = self.network.variables(base)
            check_pair(a, base)
            self.base = spread.place_pair(a, base, x)[1]
        self._traces: dict[Any, TracedNetwork] = {}
        self._weights: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._first = abstract(first)
        self.classes = self._check(first)
        check_used_leaves(self.graph, a, b)
        self.alpha_loop: loops.AlphaLoop = options.alpha_loop or _choose_loop(
            self.network.apply, a, x
        )
        self._points = self._lay_out(x, progress)

    @property
    def graph(self) -> Graph:
        """The network's trace at the first batch's shape."""
        return self._traced(self._first).graph

    def _read(self, data: Batches, modes: PyTree) -> Batches:
        """Returns data of any form as batches, which lie where the modes do."""
        return spread.follow(as_batches(data, self.options.batch_size), modes)

    def _check(self, batch: Batch) -> int | None:
        """Returns the number of labels, after a check that batch, outputs and task fit each other.

        Raises:
            GraphError: the network does not take the batch, or the task not its outputs.
            DataError: targets that the task does not take.
        """
        self.task.check_targets(batch.y)
        return check_outputs(self._traced(abstract(batch)).graph, batch, self.task)

    def measure(
        self,
        measures: Sequence[Measure],
        batches: Batches | None = None,
        progress: ProgressFn | None = None,
    ) -> dict[str, Result]:
        """Measures the pair in one pass over the data, with one compiled program.

        For each batch the network runs once for every α of the grid, the ends being two of them,
        however many measures there are.

        Args:
            measures: what is measured; see `build`.
            batches: data to measure on; those that the evaluator was made with if None.
            progress: called as (batches done, batches in all or 0, words).

        Returns:
            The result of each measure, by its name.

        Raises:
            ConfigError: an option that a measure cannot honour, or a measure named twice.
            GraphError: the network lacks what a measure reads.
            DataError: data that are not finite, or do not fit the network.
        """
        check_options(measures, self.options)
        batches = self.batches if batches is None else self._read(batches, self.a)
        first = next(pad_batches(batches, self.task))
        self._check(first)
        network = self._traced(abstract(first))
        plans = {m.name: m.plan(network.graph, self.options) for m in measures}
        parts = {m.name: m.parts(network.graph, plans[m.name]) for m in measures}
        words = ", ".join(parts) if len(parts) < 4 else f"{len(parts)} measures"
        found = self._pass(network, [(m, parts[m.name][0]) for m in measures],
                           batches, progress, words)  # fmt: skip
        more = {
            m.name: [
                self._pass(network, [(m, part)], batches, progress, f"{m.name}, {i} of {len(all_)}")
                for i, part in enumerate(all_[1:], 2)
            ]
            for m in measures
            if len(all_ := parts[m.name]) > 1
        }
        results = {}
        for m in measures:
            sums = [one["sums"][m.name] for one in (found, *more.get(m.name, ()))]
            grid = m.grid(self.options.alphas)
            totals = Totals(
                graph=network.graph,
                task=self.task,
                plan=plans[m.name],
                alphas=grid,
                samples=int(found["samples"]),
                sums=m.join(sums),
                on_grid=self._at(grid, found["on_grid"].get(m.name)),
                on_line=self._at(grid, found["on_line"].get(m.name)),
                renormalise=self.options.renormalise,
                weights=self.weights,
            )
            results[m.name] = m.finish(totals)
        return results

    def weights(self, names: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns (a's weight, b's) of linear sites, as their products see them, in float64."""
        missing = tuple(name for name in names if name not in self._weights)
        if missing:
            network = self._traced(self._first)
            with matmul_precision(self.options.precision):
                ends = [sharding.fetch(read_weights(network, missing, m)) for m in (self.a, self.b)]
            for name, *pair in zip(missing, *ends, strict=True):
                p, q = (np.asarray(weight, np.float64) for weight in pair)
                self._weights[name] = p, q
        return [self._weights[name] for name in names]

    def _traced(self, shapes: Batch) -> TracedNetwork:
        """Returns the trace at a batch's shapes; made once."""
        leaves, structure = jax.tree.flatten((shapes.x, shapes.mask))
        key = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if key not in self._traces:
            per_token = self.options.per == "token"
            length = shapes.mask.shape[1] if shapes.mask.ndim == 2 else None
            if per_token and length is None:
                raise DataError(
                    "per='token' needs to know the tokens: pass batches (x, targets, mask [n, t]), "
                    "or an attention_mask among the inputs"
                )
            with matmul_precision(self.options.precision):
                self._traces[key] = TracedNetwork(
                    self.network.apply, self.a, shapes.x, length, per_token
                )
        return self._traces[key]

    def _lay_out(self, x: Inputs, progress: ProgressFn | None) -> Points:
        """Returns the grid, with the renormalisation of each of its points."""
        alphas = np.asarray(self.grid, jax.numpy.result_type(float))
        kind = self.options.renormalise
        if kind == "none":
            return Points(alphas, renorm.NOTHING)
        renorm.check(self.graph, kind)
        if self.train_batches is None:
            raise ModeError(f"renormalise={kind!r} needs train_batches")
        with matmul_precision(self.options.precision):
            corrections = calibrate(
                self.network.apply,
                self.curve,
                self.grid,
                self.train_batches,
                kind,
                self.alpha_loop,
                self.task,
                progress,
            )
        return Points(alphas, sharding.replicate_like(x, corrections))

    def _pass(
        self,
        network: TracedNetwork,
        parts: Sequence[Part],
        batches: Batches,
        progress: ProgressFn | None,
        words: str,
    ) -> Any:
        """Runs measures, or parts of them, over the data."""
        places = self.grid.index(0.0), self.grid.index(1.0)
        static = network, self.task, tuple(parts), places, self.alpha_loop
        measure_batch = compiled(self._is_short(network, batches))

        def kernel(x: Inputs, y: Targets, mask: jax.Array) -> dict[str, Any]:
            return measure_batch(*static, self.curve, self._points, x, y, mask, self.base)

        with matmul_precision(self.options.precision):
            found = accumulate(kernel, batches, progress, words, self.classes, self.task)
        return found | {"on_line": join_line(found["on_line"], len(self.grid), places)}

    def _is_short(self, network: TracedNetwork, batches: Batches) -> bool:
        """Returns whether a pass over the data takes less time than to compile it well."""
        numbers = sum(math.prod(aval.shape) for aval in network.graph.program.avals.values())
        return 0 < len(self.grid) * numbers * count_batches(batches) <= SHORT

    def _at(self, grid: Sequence[float], stacked: PyTree) -> Any:
        """Returns the rows of a tree, stacked along the whole grid, that are a measure's."""
        rows = [self.grid.index(alpha) for alpha in grid if alpha in self.grid]
        return jax.tree.map(lambda leaf: leaf[rows], stacked)


def _choose_loop(apply: Apply, variables: Variables, x: Inputs) -> loops.AlphaLoop:
    """Returns how the loop over α runs for this network on this backend."""
    if spread.is_spread(variables):
        return "map"  # one point at a time: several would hold as many networks
    return loops.choose_loops(apply, abstract(variables), x).alphas


def measure_pair(
    name: str,
    network: Model,
    a: Model,
    b: Model,
    batches: Batches,
    options: EvalOptions | None,
    train_batches: Batches | None,
    progress: ProgressFn | None,
    changes: dict[str, Any],
) -> Any:
    """Returns the result of one measure of one pair: what `measures.lmc` and its kin call.

    Args:
        name: the measure's.
        network: see `PairEvaluator`.
        a: see there.
        b: see there.
        batches: see there.
        options: see there.
        train_batches: see there.
        progress: called as (done, total, words).
        changes: fields of the options or of the measure that are to be other than said.
    """
    measure, options = configure(name, options, changes)
    pair = PairEvaluator(network, a, b, batches, options, train_batches, progress)
    return pair.measure([measure], progress=progress)[name]
