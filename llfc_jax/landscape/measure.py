"""Loss and features along a curve, measured as on the straight line."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from llfc_jax.data.inputs import Data, as_splits
from llfc_jax.errors import ModeError
from llfc_jax.frameworks import Network
from llfc_jax.landscape.fit import FittedCurve
from llfc_jax.measures import EvalOptions, PairEvaluator, build
from llfc_jax.pair import Curve, check_curve
from llfc_jax.types import Model, ProgressFn

ON_CURVES = ("lmc", "llfc", "ensemble")


def measure_curve(
    network: Model,
    curve: Curve | FittedCurve,
    data: Data,
    train: Data | None = None,
    measures: Sequence[str] = ("lmc", "llfc"),
    options: EvalOptions | None = None,
    progress: ProgressFn | None = None,
) -> dict[str, Any]:
    """Measures a curve as a line is measured: θ(α) in the place of α a + (1 - α) b.

    LLFC then asks whether the features on the way are, up to scale, the mixture of the ends':
    f(θ(α)) ∝ α f(a) + (1 - α) f(b). A network that keeps running statistics is renormalised
    ("reset") unless the options say otherwise, since a fitted curve has none.

    Args:
        network: what `Network.of` takes.
        curve: between two modes; `Curve(a, b)` is the straight line.
        data: (x, labels), batches of such pairs, or a data set.
        train: data for the running statistics; a data set brings its own, else `data` serves.
        measures: "lmc", "llfc" and "ensemble", the ones that do not assume a straight line.
        options: how it is measured.
        progress: called as (done, total, words).

    Returns:
        The result of each measure, by its name.

    Raises:
        ModeError: another measure; modes, or a bend, that are none; another kind of curve.
        LlfcError: see `PairEvaluator`.
    """
    for name in measures:
        if name not in ON_CURVES:
            raise ModeError(f"{name} assumes a straight line; on a curve: {', '.join(ON_CURVES)}")
    view, options = Network.of(network), options or EvalOptions()
    curve = curve.curve if isinstance(curve, FittedCurve) else curve
    a, b = view.variables(curve.a), view.variables(curve.b)
    bend = None if curve.bend is None else view.variables(curve.bend)
    curve = Curve(a, b, bend, curve.kind)
    check_curve(curve)
    splits = as_splits(data, train, options.batch_size)
    batches, pooled = splits["test"], splits.get("train", splits["test"])

    def evaluator(options: EvalOptions) -> PairEvaluator:
        return PairEvaluator(view, curve.a, curve.b, batches, options, pooled, progress, curve)

    made = evaluator(options)
    if made.graph.normalisers and options.renormalise == "none" and curve.kind != "line":
        made = evaluator(dataclasses.replace(options, renormalise="reset"))
    return made.measure([build(name) for name in measures], progress=progress)
