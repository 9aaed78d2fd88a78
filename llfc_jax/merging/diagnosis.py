"""Why a merge works or fails, layer by layer: cross-task linearity, and what each layer costs."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import ArrayLike, Float

from llfc_jax.data.inputs import as_batches
from llfc_jax.errors import DataError, MergeError
from llfc_jax.frameworks import Network
from llfc_jax.merging.departures import read_task
from llfc_jax.merging.merge import merge
from llfc_jax.merging.options import MergeOptions
from llfc_jax.merging.prepare import with_heads
from llfc_jax.merging.registry import build_rule
from llfc_jax.merging.rule import Rule
from llfc_jax.report.charts import Chart
from llfc_jax.results import Result, axes, labels, result
from llfc_jax.tasks import Task, build
from llfc_jax.types import Batches, Model, ProgressFn

CLOSE = 0.05  # nats that a merge's loss may lie above another and count as equal to it
MOSTLY = 0.8  # share of a merge's loss that the mean of outputs loses too, to be its cause
BLAMED = "the mean of the outputs loses about as much, or more"
CAUSE = "the cause lies in the models, not in how their weights are merged"
Outcome = Literal["holds", "models", "breaks"]
SHARE = 0.5  # layers whose cost is at least this share of the largest are named


@result
class Diagnosis(Result):
    """What each merge does on each task, and where it departs from its models.

    Attributes:
        rules: the merges.
        tasks: the data sets.
        layers: the layers, each with the leaves of its norms.
        models: the merged models.
        loss: mean loss of the merge [rules, tasks].
        accuracy: share predicted rightly; NaN where the task has no such thing [rules, tasks].
        model_loss: the models' own loss [models, tasks].
        model_accuracy: their accuracy [models, tasks].
        ensemble_loss: loss of the mean of the models' outputs [tasks].
        ensemble_accuracy: its accuracy [tasks].
        distance: mean over samples of 1 - cos between the layer's features in the merge and the
            mean of the models' features [rules, layers, tasks]; NaN where the layer has none.
        baseline: mean of 1 - cos between the models' features, over all pairs [layers, tasks].
        replaced: loss of the merge where the layer is one model's own [rules, layers, models,
            tasks].
    """

    rules: tuple[str, ...] = labels("rule")
    tasks: tuple[str, ...] = labels("task")
    layers: tuple[str, ...] = labels("layer")
    models: tuple[str, ...] = labels("model")
    loss: Any = axes("rules", "tasks")
    accuracy: Any = axes("rules", "tasks")
    model_loss: Any = axes("models", "tasks")
    model_accuracy: Any = axes("models", "tasks")
    ensemble_loss: Any = axes("tasks")
    ensemble_accuracy: Any = axes("tasks")
    distance: Any = axes("rules", "layers", "tasks")
    baseline: Any = axes("layers", "tasks")
    replaced: Any = axes("rules", "layers", "models", "tasks")

    charts: ClassVar[tuple[Chart, ...]] = (
        Chart(
            name="merge_distance",
            title="How far are the merge's features from the mixture of its models' features?",
            caption="1 - cosine between the features of the merged network and the mean of the "
            "models' features, a line for each rule.",
            x="layer",
            y={"distance": "1 - cosine"},
            x_label="layer, input to output",
            y_label="1 - cosine",
            lines="rule",
            log=True,
        ),
    )

    @property
    def excess(self) -> np.ndarray:
        """The merge's loss above that of the best model for each task [rules, tasks]."""
        return np.asarray(self.loss) - np.asarray(self.model_loss).min(0)

    @property
    def cost(self) -> np.ndarray:
        """How much one model's own layer lowers the loss, at best [rules, layers, tasks]."""
        whole = np.asarray(self.loss)[:, None, :]
        return whole - np.asarray(self.replaced).min(2)

    @property
    def rank_correlation(self) -> float:
        """Spearman's ρ, over the merges, of mean distance and mean loss; NaN below three merges."""
        if len(self.rules) < 3:
            return float("nan")
        distance = np.nanmean(np.asarray(self.distance), (1, 2))
        return correlate_ranks(distance, np.asarray(self.loss).mean(1))

    def outcome(self, rule: int) -> Outcome:
        """Returns whether a merge holds, or breaks, or whether its models are to blame."""
        loss, best, ensemble = self._losses(rule)
        limit = CLOSE if np.isfinite(self.accuracy[rule]).all() else CLOSE * abs(best)
        if loss - best <= limit:
            return "holds"
        return "models" if ensemble - best >= MOSTLY * (loss - best) else "breaks"

    def sentences(self) -> list[str]:
        """Returns, for each merge, whether it breaks and where."""
        return [self._sentence(i) for i in range(len(self.rules))]

    def paragraph(self) -> str:
        """Returns the same of all merges together, in fewer words."""
        _, best, ensemble = self._losses(0)
        parts = []
        losses = [f"`{rule}` ({self._losses(i)[0]:.3g})" for i, rule in enumerate(self.rules)]
        outcomes: list[Outcome] = [self.outcome(i) for i in range(len(self.rules))]
        of: dict[Outcome, list[str]] = {"holds": [], "models": [], "breaks": []}
        for words, outcome in zip(losses, outcomes, strict=True):
            of[outcome].append(words)
        if of["holds"]:
            parts.append(f"{join_words(of['holds'])} {'hold' if of['holds'][1:] else 'holds'}")
        if of["models"]:
            parts.append(f"{join_words(of['models'])}: {BLAMED}; {CAUSE}")
        parts += [f"{losses[i]} breaks{self._where(i)}"
                 for i, found in enumerate(outcomes) if found == "breaks"]  # fmt: skip
        begin = (
            f"the best model of each task has a loss of {best:.3g}, the mean of the models' "
            f"outputs {ensemble:.3g}"
        )
        return ". ".join([begin, *parts]) + "."

    def _losses(self, rule: int) -> tuple[float, float, float]:
        """Returns mean losses: of a merge, of the best model for each task, of the ensemble."""
        best = float(np.mean(np.asarray(self.model_loss).min(0)))
        return float(np.mean(self.loss[rule])), best, float(np.mean(self.ensemble_loss))

    def _sentence(self, rule: int) -> str:
        loss, best, ensemble = self._losses(rule)
        begin = (
            f"{self.rules[rule]}: loss {loss:.3g}; the best model of each task has {best:.3g}, the "
            f"mean of the models' outputs {ensemble:.3g}"
        )
        ends = {
            "holds": "The merge holds",
            "models": f"{BLAMED.capitalize()}: {CAUSE}",
            "breaks": f"It breaks{self._where(rule)}",
        }
        return f"{begin}. {ends[self.outcome(rule)]}."

    def _where(self, rule: int) -> str:
        """Returns where a merge breaks, in words."""
        cost, distance = self.cost[rule].mean(-1), np.asarray(self.distance)[rule].mean(-1)
        cost = np.where(np.isfinite(cost), cost, -np.inf)
        if cost.max() <= 0:
            return ", and taking a single layer from one of the models does not help"
        worst = cost >= SHARE * cost.max()
        there, elsewhere = distance[worst], distance[~worst]
        words = (
            f": taking one layer from one of the models helps most at "
            f"{_name_ranges(self.layers, worst)} (the loss falls by up to {cost.max():.2g})"
        )
        if np.isfinite(there).any():
            words += f"; 1 - cosine to the mean of their features is {np.nanmax(there):.2g} there"
            if np.isfinite(elsewhere).any():
                words += f" and at most {np.nanmax(elsewhere):.2g} elsewhere"
        return words

    def __str__(self) -> str:
        """Returns the table of rules and tasks, and the sentences."""
        width = max(map(len, (*self.rules, *self.models, "ensemble")))
        rows = [("ensemble", self.ensemble_loss, self.ensemble_accuracy)]
        rows += list(zip(self.models, self.model_loss, self.model_accuracy, strict=True))
        rows += list(zip(self.rules, self.loss, self.accuracy, strict=True))
        lines = [" " * width + "".join(f"  {task:>18}" for task in self.tasks)]
        for name, losses, accuracies in rows:
            cells = (f"{x:.4g} ({y:.1%})" if np.isfinite(y) else f"{x:.4g}"
                     for x, y in zip(losses, accuracies, strict=True))  # fmt: skip
            lines.append(f"{name:<{width}}" + "".join(f"  {cell:>18}" for cell in cells))
        lines += self.sentences()
        if np.isfinite(self.rank_correlation):
            lines.append(f"Rank correlation of distance and loss: {self.rank_correlation:.2f}")
        return "\n".join(lines)


def correlate_ranks(x: Float[ArrayLike, " merges"], y: Float[ArrayLike, " merges"]) -> float:
    """Returns Spearman's ρ; NaN where either is the same for all."""
    from scipy.stats import rankdata  # half a second, paid on first use

    ranks = np.stack([rankdata(np.asarray(of)) for of in (x, y)])
    return float(np.corrcoef(ranks)[0, 1]) if ranks.std(1).all() else float("nan")


def _name_ranges(names: Sequence[str], chosen: np.ndarray) -> str:
    """Returns chosen names in words: "a", "c to e and g"."""
    runs: list[list[str]] = []
    for i, name in enumerate(names):
        if chosen[i]:
            if i and chosen[i - 1]:
                runs[-1].append(name)
            else:
                runs.append([name])
    return join_words([run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs])


def join_words(words: Sequence[str]) -> str:
    """Returns words as they stand in a sentence: "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def diagnose(
    network: Model,
    models: Sequence[Model],
    batches: Batches | Mapping[str, Batches],
    rules: str | Rule | Sequence[str | Rule] = ("mean",),
    base: Model | None = None,
    *,
    task: str | Mapping[str, Any] | Task = "classification",
    statistics: Mapping[str, Sequence[Any]] | None = None,
    options: MergeOptions | None = None,
    progress: ProgressFn | None = None,
) -> Diagnosis:
    """Merges models by several rules, and measures where each merge departs from its models.

    For each layer l, with f_l the features and θ the merge,

        distance_l = mean over x of 1 - cos( f_l(θ; x), (1/n) Σ f_l(θ_i; x) ),

    0 where the features add up as the weights do (cross-task linearity); and the loss of the
    merge where layer l alone has one model's own weights.

    Args:
        network: a module of any framework, or a function apply(variables, x).
        models: modes of it.
        batches: data of any form (`llfc_jax.data.inputs.as_batches`), or name -> such data for
            several data sets.
        rules: names of rules, or rules with their options; or one.
        base: the model that they were fine-tuned from, for the rules that need it.
        task: how outputs are judged: a `llfc_jax.tasks.Task`, or the name of one.
        statistics: name of a rule -> what it needs to know of each model.
        options: which leaves are merged. Leaves to skip are heads: there must then be a task for
            each model, in order, and each task is run with its model's head.
        progress: called as (tasks done, tasks in all, name).

    Raises:
        MergeError: see `merge`; heads without a task for each model.
        DataError: a data set without a batch, or targets that the task does not take.

    Source: Zhou et al., "On the emergence of cross-task linearity in the pretraining-finetuning
    paradigm", ICML 2024.
    """
    view, options = Network.of(network), options or MergeOptions()
    trees = [view.variables(model) for model in models]
    of_base = None if base is None else view.variables(base)
    tasks: dict[str, Batches] = {"task": batches}  # pyright: ignore[reportAssignmentType]
    if isinstance(batches, Mapping) and not any(hasattr(of, "shape") for of in batches.values()):
        tasks = {str(name): of for name, of in batches.items()}
    tasks = {name: as_batches(of) for name, of in tasks.items()}
    if options.skip and len(tasks) != len(trees):
        raise MergeError(f"leaves are skipped, so each of {len(trees)} models needs a task of its "
                         f"own, and there are {len(tasks)}")  # fmt: skip
    built = [build_rule(r) for r in ((rules,) if isinstance(rules, (str, Rule)) else rules)]
    if not built or not tasks:
        raise MergeError(f"there is no {'data' if built else 'rule'} to diagnose merges with")
    known = statistics or {}
    merged = [merge(trees, of_base, rule, statistics=known.get(rule.name), options=options)
              for rule in built]  # fmt: skip
    judge, parts = build(task), []
    for done, (name, data) in enumerate(tasks.items()):
        head = trees[done] if options.skip else trees[0]
        ends, ours = (tuple(with_heads(tree, head, options.skip) for tree in of)
                      for of in (trees, merged))  # fmt: skip
        try:
            parts.append(read_task(view.apply, ends, ours, data, judge))
        except DataError as error:
            raise DataError(f"task {name!r}: {error}") from None
        if progress:
            progress(done + 1, len(tasks), name)
    layers = parts[0].layers
    if any(part.layers != layers for part in parts):
        raise MergeError("the tasks' networks have other layers; diagnose them one by one")
    names = [str(rule) for rule in built]
    stacked = {name: np.stack([part.means[name] for part in parts], -1) for name in parts[0].means}
    numbered = tuple(f"models[{i}]" for i in range(len(trees)))
    return Diagnosis(tuple(names), tuple(tasks), layers, numbered, **stacked)
