"""Layer-wise connectivity: the line walked in one layer at a time."""

import bisect
import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.errors import ModeError
from llfc_jax.graph import Graph
from llfc_jax.graph.sites import layer_paths
from llfc_jax.measures.batch import PairBatch, Reading
from llfc_jax.measures.evaluator import measure_pair
from llfc_jax.measures.measure import MIDDLE, Measure, Totals
from llfc_jax.measures.options import EvalOptions
from llfc_jax.measures.registry import measure
from llfc_jax.report.charts import Chart, Section
from llfc_jax.results import Result, axes, labels, result, setting
from llfc_jax.types import Batches, Model, ProgressFn, Variables

ENDS_AND_MIDDLE = (0.0, MIDDLE, 1.0)
CUTS = "cuts"
Groups = Mapping[str, Sequence[str]] | tuple[tuple[str, tuple[str, ...]], ...] | None

# Names of layers, or of groups of them, and the indices of their leaves.
Plan = tuple[tuple[str, tuple[int, ...]], ...]


@result
class LayerwiseResult(Result):
    """Loss and error where only one layer is interpolated.

    Attributes:
        layers: layers, or groups of them.
        alphas: points; at 1 the layer is a's, at 0 it is b's.
        cuts: whether the layer is a whole stretch between two cuts of the network; where it is
            not, it stands inside a branch [layers].
        loss: mean loss [layers, alphas].
        error: share predicted wrongly; NaN where the task has none [layers, alphas].
        loss_barrier: loss with the layer averaged (α = ½), minus that of `base` [layers].
        error_barrier: the same of the error [layers].
        loss_highest: max over α of the loss, minus that of `base`; the far end, where the layer
            is wholly the other network's, counts [layers].
        error_highest: the same of the error [layers].
        samples: number of samples.
        base: whose parameters all other layers keep.
    """

    layers: tuple[str, ...] = labels("layer")
    alphas: tuple[float, ...] = labels("alpha")
    cuts: Any = axes("layers")
    loss: Any = axes("layers", "alphas")
    error: Any = axes("layers", "alphas")
    loss_barrier: Any = axes("layers")
    error_barrier: Any = axes("layers")
    loss_highest: Any = axes("layers")
    error_highest: Any = axes("layers")
    samples: int = setting()
    base: str = setting("a")


@measure("layerwise")
@dataclasses.dataclass(frozen=True)
class Layerwise(Measure):
    """The line walked in one layer while the others stay; 0, ½ and 1 are always on the grid.

    It reads no features, so the options' `sites` do not bear on it.

    Attributes:
        base: "a" or "b": whose parameters all other layers keep.
        groups: name -> paths of leaves, or of what holds them (`params/Dense_0`), `*` matching
            anything; chosen by `sites` if None.
        sites: "cuts" for the stretches between the sites that cut the network: single layers
            where they follow one another, a residual block as a whole. Or kinds or name patterns
            of linear sites ("linear" for all), for single layers, whether they stand inside a
            branch or not: the result says of each. A norm goes with the layer before it.
    """

    base: Literal["a", "b"] = "a"
    groups: Groups = None
    sites: str | tuple[str, ...] = CUTS

    always: ClassVar[tuple[float, ...]] = ENDS_AND_MIDDLE
    uses: ClassVar[frozenset[str]] = frozenset({"alphas", "extrapolate", "alpha_loop", "precision"})
    refuses: ClassVar[Mapping[str, str]] = {
        "renormalise": "its points lie off the line that is renormalised; measure without "
        "layerwise, or set renormalise='none'"
    }
    columns: ClassVar[Mapping[str, str]] = {"layer_barrier": "barrier of one layer, highest"}
    section: ClassVar[Section] = Section(
        name="layerwise",
        title="One layer at a time",
        text=(
            "The line from network b to network a again, but for a single layer: all "
            "other layers keep a's weights. It shows which layers cause the barrier; "
            "often averaging any single layer costs almost nothing, although averaging "
            "all of them does. At α = 0 the layer is that of b.\n\n"
            "The layers of a residual block move together, as everything does between two "
            "places where the network can be cut. `sites` can name single layers inside "
            "blocks; the column `cuts` says which they are."
        ),
        charts=(
            Chart(
                name="layerwise_barrier",
                title="Which single layers can be averaged?",
                caption=(
                    "Error of network a with this one layer averaged between a and b, minus the "
                    "error of network a."
                ),
                x="layer",
                y={"error_barrier": "error barrier"},
                x_label="layer, input to output",
                y_label="error above that of a (share of samples)",
                where={"alpha": 0.5},
                mark="bars",
            ),
            Chart(
                name="layerwise_loss_barrier",
                title="Which single layers can be averaged?",
                caption=(
                    "Loss of network a with this one layer averaged between a and b, minus the "
                    "loss of network a."
                ),
                x="layer",
                y={"loss_barrier": "loss barrier"},
                x_label="layer, input to output",
                y_label="loss above that of a",
                where={"alpha": 0.5},
                mark="bars",
                unless="error",
            ),
            Chart(
                name="layerwise_curves",
                title="Error while a single layer goes from one network to the other",
                caption="All other layers are those of network a: α = 1 is network a, and at "
                "α = 0 the layer is that of b.",
                x="alpha",
                y={"error": "error"},
                x_label="α of that layer",
                y_label="error (share of samples)",
                lines="layer",
            ),
            Chart(
                name="layerwise_loss_curves",
                title="Loss while a single layer goes from one network to the other",
                caption="All other layers are those of network a: α = 1 is network a, and at "
                "α = 0 the layer is that of b.",
                x="alpha",
                y={"loss": "loss"},
                x_label="α of that layer",
                y_label="loss",
                lines="layer",
                unless="error",
            ),
        ),
        columns={
            "layer": "layer",
            "cuts": "between cuts",
            "alpha": "α",
            "error": "error",
            "loss": "loss",
            "error_barrier": "error barrier",
            "error_highest": "highest error above a's",
            "loss_barrier": "loss barrier",
            "loss_highest": "highest loss above a's",
        },
    )

    def __post_init__(self) -> None:
        """Checks the fields and makes the groups hashable."""
        if isinstance(self.groups, Mapping):
            groups = tuple((name, tuple(paths)) for name, paths in self.groups.items())
            object.__setattr__(self, "groups", groups)
        super().__post_init__()

    def plan(self, graph: Graph, options: EvalOptions) -> Plan:
        """Returns the groups and the leaves of each.

        Raises:
            ModeError: a group without parameters.
        """
        paths = graph.program.paths
        plan = tuple(
            (name, tuple(i for i, path in enumerate(paths) if _within(path, group)))
            for name, group in self._groups(graph)
        )
        for name, leaves in plan:
            if not leaves:
                raise ModeError(
                    f"group {name!r} holds no parameters; their paths are as {paths[0]!r}"
                )
        return plan

    def _groups(self, graph: Graph) -> Sequence[tuple[str, Sequence[str]]]:
        """Returns the groups' names and paths."""
        if self.groups is not None:
            return tuple(self.groups)  # pyright: ignore[reportReturnType]
        if self.sites == CUTS:
            return _stretches(graph)
        layers = layer_paths(graph.program, graph.sites)
        if self.sites in ("linear", "all", ("linear",), ("all",)):
            return tuple(layers.items())
        names = {site.name for site in graph.select(self.sites)}
        return tuple((name, paths) for name, paths in layers.items() if name in names)

    def read(self, batch: PairBatch, plan: Plan) -> Reading:
        """Returns loss and right predictions of every group at every α."""
        graph, count = batch.graph, len(batch.graph.program.paths)
        masks = np.array([[i in leaves for i in range(count)] for _, leaves in plan])
        end = 0 if self.base == "a" else 1
        modes = batch.curve.a, batch.curve.b
        keep, run, own = modes[end], (batch.a, batch.b)[end], batch.places[1 - end]
        rest = np.delete(np.arange(len(batch.alphas)), own)
        at_base = batch.judge(run.output)

        def at(point: tuple[jax.Array, jax.Array]) -> dict[str, Any]:
            chosen, alpha = point
            theta = _choose(chosen, batch.curve.at(alpha), keep)
            return batch.judge(graph.evaluate(theta, batch.x).output)

        points = jnp.repeat(masks, len(rest), 0), jnp.tile(batch.alphas[rest], len(masks))
        order = np.argsort(np.array([own, *rest]))

        def join(base: jax.Array, found: jax.Array) -> jax.Array:
            """Returns [groups, alphas, ...]; at the base no layer has moved."""
            found = found.reshape(len(masks), len(rest), *base.shape)
            base = jnp.broadcast_to(base, (len(masks), 1, *base.shape))
            return jnp.concatenate([base, found], 1)[:, order]

        return Reading(jax.tree.map(join, at_base, batch.map_over(at, points)))

    def finish(self, totals: Totals) -> LayerwiseResult:
        """Returns the curves of all groups, and what averaging each costs."""
        found = totals.task.finish(totals.sums)
        loss = found["loss"]
        error = found.get("error", np.full_like(loss, np.nan))
        at_base = totals.alphas.index(1.0 if self.base == "a" else 0.0)
        middle = totals.alphas.index(MIDDLE)
        stretches = [set(paths) for _, paths in _stretches(totals.graph)]
        paths = totals.graph.program.paths
        groups = [{paths[i] for i in leaves} for _, leaves in totals.plan]
        return LayerwiseResult(
            layers=tuple(name for name, _ in totals.plan),
            alphas=totals.alphas,
            cuts=np.array([all(s <= group or not s & group for s in stretches)
                           for group in groups]),
            loss=loss,
            error=error,
            loss_barrier=loss[:, middle] - loss[:, at_base],
            error_barrier=error[:, middle] - error[:, at_base],
            loss_highest=loss.max(1) - loss[:, at_base],
            error_highest=error.max(1) - error[:, at_base],
            samples=int(totals.sums["count"].flat[0]),
            base=self.base,
        )  # fmt: skip

    def summary_metrics(self, result: LayerwiseResult) -> dict[str, float]:
        """Returns the largest barrier of a layer: of the error, or of the loss if there is none."""
        barriers = np.asarray(result.error_barrier)
        if np.isnan(barriers).all():
            barriers = np.asarray(result.loss_barrier)
        return {"layer_barrier": float(np.max(barriers))}


def _choose(chosen: jax.Array, moved: Variables, keep: Variables) -> Any:
    """Returns `keep`, but with the leaves of `moved` that are chosen."""
    leaves, structure = jax.tree.flatten(keep)
    pairs = enumerate(zip(jax.tree.leaves(moved), leaves, strict=True))
    return jax.tree.unflatten(structure, [jnp.where(chosen[i], m, k) for i, (m, k) in pairs])


def _within(path: str, group: Sequence[str]) -> bool:
    """Returns whether a leaf is of a group: `w1` holds `w1/kernel`, not `w10/kernel`."""
    inside = (pattern for entry in group for pattern in (entry, f"{entry.rstrip('/')}/*"))
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in inside)


def _stretches(graph: Graph) -> list[tuple[str, tuple[str, ...]]]:
    """Returns the layers between one cut of the network and the next, with their paths.

    A single layer keeps its name; several have the name of the module that holds them, or of the
    first and the last.
    """
    made_by = {v: i for i, eq in enumerate(graph.program.equations) for v in eq.outputs}
    cuts = sorted({made_by[graph[name].value] for name in graph.cut_sites})
    layers = layer_paths(graph.program, graph.sites)
    stretches: dict[int, list[str]] = {}
    for name in layers:  # what stands before every layer is a stretch of its own
        number = bisect.bisect_left(cuts, graph[name].equation) if name in graph.by_name else -1
        stretches.setdefault(number, []).append(name)
    modules = [_common_module(names) for names in stretches.values()]
    found = []
    for names, module in zip(stretches.values(), modules, strict=True):
        several = module if module and modules.count(module) == 1 else f"{names[0]}..{names[-1]}"
        paths = tuple(path for name in names for path in layers[name])
        found.append((names[0] if len(names) == 1 else several, paths))
    return found


def _common_module(names: Sequence[str]) -> str:
    """Returns the path of the module that holds all layers; "" where there is none."""
    parts = [name.split("/")[:-1] for name in names]
    common = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return "/".join(common)


def layerwise(
    network: Model,
    a: Model,
    b: Model,
    batches: Batches,
    options: EvalOptions | None = None,
    *,
    train_batches: Batches | None = None,
    progress: ProgressFn | None = None,
    **changes: object,
) -> LayerwiseResult:
    """Walks the line in one layer (or group of layers) while the others stay.

    For a layer l: θ_α = base, but for θ_l = α a_l + (1 - α) b_l. The barrier of a layer is what
    averaging it alone (α = ½) costs, above the unchanged `base`.

    Args:
        network: a module of any framework, or `apply(variables, x) -> logits [n, classes]`.
        a: the mode that α multiplies.
        b: the other mode.
        batches: re-iterable pairs (x [n, ...], labels [n]).
        options: how the pair is measured; the defaults if None.
        train_batches: data for renormalising.
        progress: called as (batches done, batches in all or 0, words).
        **changes: fields of the options or of `Layerwise` that are to be other than said.

    Raises:
        ConfigError: an option that there is not, or that the measure cannot honour.
        ModeError: the modes are no pair.
        GraphError: a pattern of `sites` matches no site.
        DataError: the data do not fit the network.

    Source: Adilova et al. 2024 (layer-wise linear mode connectivity).
    """
    return measure_pair(
        "layerwise", network, a, b, batches, options, train_batches, progress, changes
    )
