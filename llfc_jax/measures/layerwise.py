"""Layer-wise connectivity: the line walked in one layer at a time."""

import fnmatch
import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.errors import ModeError
from llfc_jax.graph import Apply, trace
from llfc_jax.graph.convolutions import adapted
from llfc_jax.graph.sites import layer_paths
from llfc_jax.measures.accumulate import Batches, Progress, fold, padded
from llfc_jax.measures.evaluator import ALPHAS, check_alphas, check_logits, choose
from llfc_jax.measures.lmc import loss_and_right
from llfc_jax.measures.measure import Measure
from llfc_jax.pair import check_pair, interpolate
from llfc_jax.parallel import sharding
from llfc_jax.parallel.loops import AlphaLoop, map_over
from llfc_jax.results import Chart, Result, Section, axes, labels, result, setting


@result
class LayerwiseLMC(Result):
    """Loss and error where only one layer is interpolated.

    Attributes:
        layers: layers, or groups of them.
        alphas: points; at 1 the layer is a's, at 0 it is b's.
        loss: cross-entropy [layers, alphas].
        error: share of samples classified wrongly [layers, alphas].
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
    loss: Any = axes("layers", "alphas")
    error: Any = axes("layers", "alphas")
    loss_barrier: Any = axes("layers")
    error_barrier: Any = axes("layers")
    loss_highest: Any = axes("layers")
    error_highest: Any = axes("layers")
    samples: int = setting()
    base: str = setting("a")


def layerwise_lmc(
    apply: Apply,
    a: Any,
    b: Any,
    batches: Batches,
    *,
    alphas: Sequence[float] = ALPHAS,
    groups: dict[str, Sequence[str]] | None = None,
    base: Literal["a", "b"] = "a",
    outside: bool = False,
    over: AlphaLoop | None = None,
    progress: Progress | None = None,
) -> LayerwiseLMC:
    """Walk the line in one layer (or group of layers) while the others stay.

    For a layer l: θ_α = base, but for θ_l = α a_l + (1 - α) b_l. The barrier of a layer is what
    averaging it alone (α = ½) costs, above the unchanged `base`.

    Args:
        apply: `apply(variables, x) -> logits [n, classes]`.
        a: variables of the mode that α multiplies.
        b: variables of the other mode.
        batches: re-iterable pairs (x, labels).
        alphas: points; ½ and the end that is `base` are added.
        groups: name -> paths of leaves, or of what holds them (`params/Dense_0`), `*` matching
            anything; one group per layer if None, a norm going with the layer before it.
        base: "a" or "b".
        outside: allows α outside [0, 1].
        over: how the loop over layers and points runs; chosen if None.
        progress: called per batch.

    Raises:
        ModeError: the modes are no pair, a group without parameters, or a grid that is none.

    Source: Adilova et al. 2024 (layer-wise linear mode connectivity).
    """
    if base not in ("a", "b"):
        raise ModeError(f"base must be 'a' or 'b', not {base!r}")
    own = 1.0 if base == "a" else 0.0
    grid = check_alphas((*check_alphas(alphas, outside=outside), own, 0.5), outside=outside)
    check_pair(a, b)
    x, y, _ = next(padded(batches))
    graph = trace(apply, a, x)
    classes = check_logits(graph, x, y)
    paths = graph.program.paths
    chosen = groups if groups is not None else layer_paths(graph.program, graph.sites)
    masks = np.array([[_within(path, group) for path in paths] for group in chosen.values()])
    for name, mask in zip(chosen, masks, strict=True):
        if not mask.any():
            raise ModeError(f"group {name!r} holds no parameters; their paths are as {paths[0]!r}")
    how = choose(over, apply, a, x)
    run = _compiled(apply, how, own)
    points = (
        jnp.repeat(jnp.asarray(masks), len(grid), 0),
        jnp.tile(jnp.asarray(grid, float), len(masks)),
    )
    a, b, points = sharding.replicate_like(x, (a, b, points))
    loss, right, n = fold(
        lambda x, y, weight: run(a, b, points, x, y, weight),
        batches,
        progress,
        "one layer at a time",
        classes,
    )
    loss, error = ((v / n).reshape(len(masks), len(grid)) for v in (loss, n - right))
    at_base, middle = grid.index(own), grid.index(0.5)
    return LayerwiseLMC(
        layers=tuple(chosen),
        alphas=grid,
        loss=loss,
        error=error,
        loss_barrier=loss[:, middle] - loss[:, at_base],
        error_barrier=error[:, middle] - error[:, at_base],
        loss_highest=loss.max(1) - loss[:, at_base],
        error_highest=error.max(1) - error[:, at_base],
        samples=int(n),
        base=base,
    )


def _within(path: str, group: Sequence[str]) -> bool:
    """Whether a leaf is of a group: `Dense_1` holds `Dense_1/kernel`, not `Dense_10/kernel`."""
    inside = (pattern for entry in group for pattern in (entry, f"{entry.rstrip('/')}/*"))
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in inside)


@functools.lru_cache(maxsize=16)
def _compiled(apply: Apply, how: AlphaLoop, own: float) -> Any:
    @jax.jit
    def run(a: Any, b: Any, points: Any, x: Any, y: Any, weight: Any) -> Any:
        keep = a if own == 1.0 else b

        def at(point: Any) -> Any:
            mask, alpha = point
            mixed, structure = jax.tree.flatten(interpolate(a, b, alpha))
            leaves = jax.tree.leaves(keep)
            chosen = [
                jnp.where(mask[i], m, leaf)
                for i, (m, leaf) in enumerate(zip(mixed, leaves, strict=True))
            ]
            logits = adapted(apply)(jax.tree.unflatten(structure, chosen), x)
            return loss_and_right(logits, y, weight)

        loss, right = map_over(at, points, how)
        return loss, right, weight.sum()

    return run


def _headline(of: LayerwiseLMC) -> dict[str, Any]:
    return {"layer_barrier": float(np.max(of.error_barrier))}


MEASURE = Measure(
    run=lambda s: layerwise_lmc(
        s.apply, s.a, s.b, s.batches, alphas=s.alphas, outside=s.outside, progress=s.progress
    ),
    section=Section(
        name="layerwise",
        title="One layer at a time",
        text=(
            "The same walk from network b to network a, but in a single layer, while every other "
            "layer keeps a's weights. It shows which layers make the barrier: often the whole "
            "line has one although averaging any single layer costs next to nothing. Towards "
            "α = 0 the layer becomes wholly b's, a stranger among a's layers."
        ),
        charts=(
            Chart(
                name="layerwise_barrier",
                title="Barrier of each layer",
                caption="Error with this layer alone averaged between a and b, above the error of "
                "network a.",
                x="layer",
                y={"error_barrier": "error barrier"},
                x_label="layer, input to output",
                y_label="error above a's",
                where={"alpha": 0.5},
                mark="bars",
            ),
            Chart(
                name="layerwise_curves",
                title="Error along the line of each layer",
                caption="α = 1 is network a; at α = 0 this one layer is b's.",
                x="alpha",
                y={"error": "error"},
                x_label="α of that layer",
                y_label="error",
                lines="layer",
            ),
        ),
        columns={
            "layer": "layer",
            "alpha": "α",
            "error": "error",
            "loss": "loss",
            "error_barrier": "error barrier",
            "error_highest": "highest error above a's",
        },
    ),
    headline=_headline,
    columns={"layer_barrier": "barrier of one layer, worst"},
)
