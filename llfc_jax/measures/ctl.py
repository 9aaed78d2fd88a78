"""Cross-task linearity: LLFC of networks that were fine-tuned from one base on different tasks."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.graph import Graph, Values
from llfc_jax.measures.batch import PairBatch, Reading
from llfc_jax.measures.ensemble import Ensemble
from llfc_jax.measures.evaluator import PairEvaluator
from llfc_jax.measures.llfc import LLFC, FeatureReader, summarise
from llfc_jax.measures.measure import MIDDLE, Measure, Totals, by_layer
from llfc_jax.measures.options import EvalOptions
from llfc_jax.measures.registry import configure, measure
from llfc_jax.measures.similarity import scale_of
from llfc_jax.pair import mix
from llfc_jax.report.charts import Chart, Section
from llfc_jax.results import Result, axes, labels, result, setting
from llfc_jax.tasks import Task
from llfc_jax.types import Batches, Model, ProgressFn


@result
class CTLResult(Result):
    """Features between fine-tuned networks, and of sums of task vectors, on one task's data.

    Where the base is not known, what needs it is NaN, as errors are where the task has none.

    Attributes:
        layers: names of the sites.
        alphas: points on the line, and coefficients λ of task arithmetic.
        distance: mean over samples of 1 - cos(f_l(θ_α), α f_l(a) + (1 - α) f_l(b)) [layers,
            alphas].
        distance_std: its standard deviation over samples [layers, alphas].
        coefficient: mean of c, least squares of f_l(θ_α) ≈ c (mixture) [layers, alphas].
        coefficient_std: its standard deviation [layers, alphas].
        baseline: mean of 1 - cos(f_l(a), f_l(b)) [layers].
        informative: False where linear features say nothing: both ends are no better than a
            predictor that does not see the input, the baseline is below 1e-4, or the layer is
            affine in the parameters, as the first one is [layers].
        addition: mean of 1 - cos between the features of θ_0 + λ (τ_a + τ_b) and
            f_l(θ_0) + λ (f_l(a) - f_l(θ_0)) + λ (f_l(b) - f_l(θ_0)) [layers, alphas].
        addition_coefficient: mean of their c [layers, alphas].
        error: error of θ_α [alphas].
        loss: its loss [alphas].
        ensemble_error: error of the mixture of the ends' outputs [alphas].
        ensemble_loss: its loss [alphas].
        addition_error: error of θ_0 + λ (τ_a + τ_b) [alphas].
        addition_loss: its loss [alphas].
        samples: number of rows: of samples, or of tokens where `per="token"`.
    """

    layers: tuple[str, ...] = labels("layer")
    alphas: tuple[float, ...] = labels("alpha")
    distance: Any = axes("layers", "alphas")
    distance_std: Any = axes("layers", "alphas")
    coefficient: Any = axes("layers", "alphas")
    coefficient_std: Any = axes("layers", "alphas")
    baseline: Any = axes("layers")
    informative: Any = axes("layers")
    addition: Any = axes("layers", "alphas")
    addition_coefficient: Any = axes("layers", "alphas")
    error: Any = axes("alphas")
    loss: Any = axes("alphas")
    ensemble_error: Any = axes("alphas")
    ensemble_loss: Any = axes("alphas")
    addition_error: Any = axes("alphas")
    addition_loss: Any = axes("alphas")
    samples: int = setting()

    def ratio(self) -> np.ndarray:
        """Returns baseline over distance at α = ½ [layers]: far above 1 where CTL holds."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.baseline) / np.asarray(self.distance)[:, self._middle]

    @property
    def _middle(self) -> int:
        return self.alphas.index(MIDDLE)


@dataclasses.dataclass(frozen=True)
class _AcrossTasks(LLFC):
    """LLFC of ends that were trained on different tasks."""

    def is_informative(
        self, task: Task, ends: Sequence[Any], trivial: Mapping[str, float], count: float
    ) -> bool:
        """Returns whether an end has learned the task: the other was trained on another one."""
        return any(task.is_informative([end], trivial, count) for end in ends)


_FEATURES, _OUTPUTS = _AcrossTasks(), Ensemble()


@measure("ctl")
@dataclasses.dataclass(frozen=True)
class CTL(Measure):
    """Features between fine-tuned networks against the mixture, per layer, on each task's data.

    Source: Zhou et al., "On the emergence of cross-task linearity in the pretraining-finetuning
    paradigm", ICML 2024.
    """

    splits: ClassVar[tuple[str, ...]] = ("task_a", "task_b")
    always: ClassVar[tuple[float, ...]] = (MIDDLE,)
    by_default: ClassVar[bool] = False
    uses: ClassVar[frozenset[str]] = _FEATURES.uses - {"renormalise"}
    refuses: ClassVar[Mapping[str, str]] = {
        "renormalise": "the base and sums of task vectors are measured as they are; use llfc"
    }
    columns: ClassVar[Mapping[str, str]] = {
        "ctl_worst": "CTL: 1 - cosine, worst layer",
        "ctl_median": "CTL: 1 - cosine, median layer",
        "ctl_ratio": "CTL: times below 1 - cosine_AB",
        "ctl_ensemble": "merged loss above the ensemble's",
        "ctl_addition": "task addition: 1 - cosine, median layer",
    }
    section: ClassVar[Section] = Section(
        name="ctl",
        title="Cross-task linearity",
        text=(
            "Two networks that were fine-tuned from one base, on tasks of their own, are merged "
            "by the mean of their weights. Cross-task linearity (CTL) says that at every layer "
            "the merged network's features are the mean of the two networks' features, on the "
            "data of either task: `1 - cosine` is their distance, 0 where that is so, to be read "
            "beside the distance of the two networks' own features, `1 - cosine_AB`. The "
            "coefficient is the scale between them.\n\n"
            "If it holds at the output, merging weights does what the ensemble of outputs does, "
            "and no more. `addition` asks the same of task arithmetic: whether the features of "
            "base + λ (τ_a + τ_b), τ being what fine-tuning changed, are those of the base with "
            "λ times both changes added. At λ = ½ it is the mean; at λ = 1 all of both changes."
        ),
        charts=(
            Chart(
                name="ctl_layers",
                title="Do features of different tasks add up? Layer by layer",
                caption="1 - cosine between the features of (a + b) / 2 and the mean of those of a "
                "and b, on the data of each task; baseline: between the features of a and those "
                "of b. Means over samples; bands: one standard deviation.",
                x="layer",
                y={
                    "distance": "1 - cosine (the mean of the weights against the mean of features)",
                    "baseline": "1 - cosine_AB (a against b)",
                },
                x_label="layer, input to output",
                y_label="1 - cosine",
                band={"distance": "distance_std"},
                panels=("pair", "align", "split"),
                where={"alpha": 0.5},
                log=True,
            ),
            Chart(
                name="ctl_coefficient",
                title="Are the merged features as long as the mean of both?",
                caption="The factor c by which the mean of the features of a and b has to be "
                "scaled to come closest to those of (a + b) / 2.",
                x="layer",
                y={"coefficient": "coefficient at α = ½"},
                x_label="layer, input to output",
                y_label="coefficient c",
                band={"coefficient": "coefficient_std"},
                panels=("pair", "align", "split"),
                where={"alpha": 0.5},
            ),
            Chart(
                name="ctl_addition",
                title="Do features add up as task vectors do?",
                caption="1 - cosine between the features of base + λ (τ_a + τ_b) and those of the "
                "base with λ times both changes added, one line per layer.",
                x="alpha",
                y={"addition": "1 - cosine"},
                x_label="λ",
                y_label="1 - cosine",
                lines="layer",
                panels=("pair", "align", "split"),
            ),
            Chart(
                name="ctl_ensemble",
                title="Is the merged network as good as the ensemble?",
                caption="Loss on each task's data of the network with mixed weights, of the "
                "ensemble with outputs mixed in the same shares, and of task arithmetic at λ = α.",
                x="alpha",
                y={
                    "loss": "mixed weights",
                    "ensemble_loss": "mixed outputs",
                    "addition_loss": "task arithmetic",
                },
                x_label="α (0: network b, 1: network a)",
                y_label="loss",
                panels=("pair", "align", "split"),
            ),
        ),
        columns={
            "layer": "layer",
            "alpha": "α",
            "distance": "1 - cosine",
            "baseline": "1 - cosine_AB",
            "coefficient": "coefficient",
            "addition": "task addition",
            "loss": "loss",
            "ensemble_loss": "ensemble's loss",
            "informative": "informative",
        },
    )

    def plan(self, graph: Graph, options: EvalOptions) -> tuple[str, ...]:
        """Returns the names of the sites."""
        return _FEATURES.plan(graph, options)

    def read(self, batch: PairBatch, plan: tuple[str, ...]) -> Reading:
        """Returns what LLFC and the ensemble read, and comparisons of sums of task vectors."""
        features, outputs = _FEATURES.read(batch, plan), _OUTPUTS.read(batch, ())
        of_features, of_outputs = features.on_line, outputs.on_line
        assert of_features
        assert of_outputs
        assert features.at_ends

        def at(alpha: jax.Array, values: Values) -> Any:
            return of_features(alpha, values), of_outputs(alpha, values)

        ends = zip(features.at_ends, batch.places, (batch.b, batch.a), strict=True)
        at_ends = [(known, of_outputs(batch.alphas[i], end)) for known, i, end in ends]
        return Reading(
            features.sums,
            on_grid=None if batch.base is None else _read_additions(batch, plan),
            on_line=at,
            at_ends=(at_ends[0], at_ends[1]),
        )

    def finish(self, totals: Totals) -> CTLResult:
        """Returns the distances of LLFC, the losses of the ensemble, and those of additions."""
        of_features, of_outputs = totals.on_line
        llfc = _FEATURES.finish(dataclasses.replace(totals, on_line=of_features))
        task, nothing = totals.task, np.full(len(totals.alphas), np.nan)
        added = np.full((2, len(totals.plan), len(totals.alphas)), np.nan)
        judged = {"loss": nothing}
        if totals.on_grid is not None:
            (distance, coefficient), sums = totals.on_grid
            added = np.stack([by_layer(distance.average), by_layer(coefficient.average)])
            judged = task.finish(sums)
        point, mixed = (task.finish(of_outputs[name]) for name in ("point", "mixed"))
        shared = [f.name for f in dataclasses.fields(CTLResult) if hasattr(llfc, f.name)]
        return CTLResult(
            **{name: getattr(llfc, name) for name in shared},
            addition=added[0],
            addition_coefficient=added[1],
            error=point.get("error", nothing),
            loss=point["loss"],
            ensemble_error=mixed.get("error", nothing),
            ensemble_loss=mixed["loss"],
            addition_error=judged.get("error", nothing),
            addition_loss=judged["loss"],
        )

    def summary_metrics(self, result: CTLResult) -> dict[str, float]:
        """Returns distances at α = ½ over the informative layers; NaN where there are none."""
        middle = result.alphas.index(MIDDLE)
        distance = np.asarray(result.distance)[:, middle]
        counted = np.isfinite(distance) & np.asarray(result.informative)
        if not counted.any():
            return dict.fromkeys(self.columns, float("nan"))
        added = np.asarray(result.addition)[counted, -1]
        return {
            "ctl_worst": float(distance[counted].max()),
            "ctl_median": float(np.median(distance[counted])),
            "ctl_ratio": float(np.median(result.ratio()[counted])),
            "ctl_ensemble": float(result.loss[middle] - result.ensemble_loss[middle]),
            "ctl_addition": float(np.median(added)),
        }

    def join_splits(self, metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Returns the numbers of the task on which CTL holds less, where it means something."""
        found = {}
        for name in self.columns:
            values = [of[name] for of in metrics if of[name] == of[name]]
            worst = min if name == "ctl_ratio" else max
            found[name] = worst(values, default=float("nan"))
        return found


def _read_additions(batch: PairBatch, plan: Sequence[str]) -> Callable[[jax.Array], Any]:
    """Returns λ -> moments of the comparison of θ_0 + λ (τ_a + τ_b), and how it is judged."""
    reader = FeatureReader(batch, plan)
    parts = batch.graph.evaluate(batch.base, batch.x), batch.a, batch.b
    features = list(zip(*map(reader.read, parts), strict=True))
    scales = [scale_of(*of) for of in features]

    def at(scale: jax.Array) -> Any:
        weights = jnp.stack([1 - 2 * scale, scale, scale])
        theta = mix([batch.base, batch.curve.a, batch.curve.b], weights)
        run = batch.graph.evaluate(theta, batch.x)
        sums = [weights[0] * f + weights[1] * p + weights[2] * q for f, p, q in features]
        moments, _ = summarise(reader.compare(reader.read(run), sums, scales), batch.mask)
        return moments[:2], batch.judge(run.output)

    return at


def ctl(
    network: Model,
    a: Model,
    b: Model,
    batches: Batches,
    options: EvalOptions | None = None,
    *,
    base: Model | None = None,
    progress: ProgressFn | None = None,
    **changes: object,
) -> CTLResult:
    """Measures cross-task linearity at every site and every α in one pass over a task's data.

    With f_l the features of layer l, it compares f_l(α a + (1 - α) b) with
    α f_l(a) + (1 - α) f_l(b), and, where the base θ_0 is given, f_l(θ_0 + λ (τ_a + τ_b)) with
    f_l(θ_0) + λ (f_l(a) - f_l(θ_0)) + λ (f_l(b) - f_l(θ_0)), τ being a - θ_0 and b - θ_0.

    Args:
        network: a module of any framework, or `apply(variables, x) -> logits [n, classes]`.
        a: the mode that α multiplies.
        b: the other mode.
        batches: re-iterable pairs (x [n, ...], labels [n]): the data of one of the tasks.
        options: how the pair is measured; the defaults if None. `alphas` are the values of λ too.
        base: the network that both were fine-tuned from.
        progress: called as (batches done, batches in all or 0, words).
        **changes: fields of the options that are to be other than said.

    Raises:
        ConfigError: an option that there is not, or that the measure cannot honour.
        ModeError: the modes are no pair, or the base is of another network.
        GraphError: a pattern of `sites` matches no site.
        DataError: the data do not fit the network.

    Source: Zhou et al., "On the emergence of cross-task linearity in the pretraining-finetuning
    paradigm", ICML 2024.
    """
    measure, options = configure("ctl", options, changes)
    pair = PairEvaluator(network, a, b, batches, options, base=base, progress=progress)
    found = pair.measure([measure], progress=progress)["ctl"]
    assert isinstance(found, CTLResult)
    return found
