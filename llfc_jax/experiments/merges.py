"""Merges of a pair by several rules: their losses on each task, and where they break."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from llfc_jax import merging, symmetry
from llfc_jax.errors import MergeError
from llfc_jax.graph.row_layout import output_mask
from llfc_jax.io import Row, nan_for_none
from llfc_jax.measures.accumulate import accumulate
from llfc_jax.merging import Diagnosis, MergeOptions, Rule
from llfc_jax.merging.diagnosis import correlate_ranks, join_words
from llfc_jax.merging.prepare import with_heads
from llfc_jax.merging.registry import RULES, build_rule, read_rule
from llfc_jax.pair import ModePair
from llfc_jax.report.charts import Chart, Section
from llfc_jax.report.page import Table
from llfc_jax.tasks import Task, read_batch
from llfc_jax.types import Apply, Batches, Inputs, Targets, Variables

if TYPE_CHECKING:
    from llfc_jax.experiments.evaluate import Evaluation

TASK_NAMES = {"test": "the test data", "task_a": "a's task", "task_b": "b's task"}
FEWEST = 4  # merges of which a rank correlation is said
GIVEN = ("git_rebasin", "c2m3", "greedy_soup")  # they get what they need where pairs are merged
STATISTICS = {"fisher": merging.fisher_diagonal, "regmean": merging.input_grams}

SECTION = Section(
    name="merge",
    title="Merges, and where they break",
    text=(
        "The two networks were merged by several rules. Where the mean of the networks' outputs "
        "does as badly as a merge, the cause lies in the networks, not in how their weights are "
        "merged; else the layers say where it breaks. `1 - cosine` is how far the merged network's "
        "features are from the mean of the networks' features, beside the distance of these from "
        "each other; the gain is how much the loss falls if that layer alone has the weights of "
        "one of the two networks."
    ),
    charts=(
        Chart(
            name="merge_distance",
            title="How far are a merge's features from the mean of the networks' features?",
            caption="1 - cosine, mean over samples, a line for each rule, on each task's data.",
            x="layer",
            y={"distance": "1 - cosine"},
            x_label="layer, input to output",
            y_label="1 - cosine",
            lines="rule",
            panels=("pair", "align", "task"),
            log=True,
        ),
        Chart(
            name="merge_gain",
            title="Which layer's merged weights cost most?",
            caption="How much the loss falls if one layer has the weights of one of the two "
            "networks, the better one, and all others are merged.",
            x="layer",
            y={"gain": "loss saved"},
            x_label="layer, input to output",
            y_label="loss",
            lines="rule",
            panels=("pair", "align", "task"),
        ),
    ),
    columns={
        "rule": "rule",
        "task": "task",
        "layer": "layer",
        "distance": "1 - cosine",
        "baseline": "1 - cosine_AB",
        "gain": "loss saved by one network's own layer",
    },
)


@dataclasses.dataclass(frozen=True)
class Merges:
    """What was found of the merges of some pairs.

    Attributes:
        table: loss and accuracy, a row for each pair, alignment, rule and task; the networks
            themselves and their ensemble stand there like rules.
        layers: rows of every layer, rule and task.
        sentences: which merges of each pair break, and where.
    """

    table: list[Row] = dataclasses.field(default_factory=list)
    layers: list[Row] = dataclasses.field(default_factory=list)
    sentences: list[str] = dataclasses.field(default_factory=list)

    def __add__(self, other: "Merges") -> "Merges":
        """Returns both."""
        return Merges(
            self.table + other.table,
            self.layers + other.layers,
            self.sentences + other.sentences,
        )

    @property
    def page_table(self) -> Table:
        """The table of rules, with a column for each task."""
        rows: dict[tuple[str, ...], Row] = {}
        tasks = [task for task in TASK_NAMES if any(row["task"] == task for row in self.table)]
        for row in self.table:
            key = row["pair"], row["align"], row["rule"]
            found = rows.setdefault(key, {k: row[k] for k in ("pair", "align", "rule")})
            found |= {f"{row['task']}_{what}": row[what] for what in ("loss", "accuracy")}
        columns = {"pair": "pair", "align": "aligned", "rule": "rule"}
        for what in ("loss", "accuracy"):
            columns |= {
                name: f"{what} on {TASK_NAMES[task]}"
                for task in tasks
                if any(np.isfinite(row.get(name := f"{task}_{what}", np.nan))
                       for row in rows.values())
            }  # fmt: skip
        caption = "Merges: loss and accuracy on each task"
        return Table(list(rows.values()), columns, caption)

    def summary(self) -> Row:
        """Returns the mean loss over the tasks of every rule, the networks and the ensemble."""
        losses: dict[str, list[float]] = {}
        for row in self.table:
            losses.setdefault(f"merge_{row['rule']}", []).append(row["loss"])
        return {name: float(np.mean(of)) for name, of in losses.items()}

    def correlation(self) -> str | None:
        """Returns a sentence on whether distance predicts loss; None for few merges.

        It is Spearman's, over all pairs, alignments and rules.
        """
        distances: dict[tuple[str, ...], list[float]] = {}
        losses: dict[tuple[str, ...], list[float]] = {}
        for rows, column, found in (
            (self.layers, "distance", distances),
            (self.table, "loss", losses),
        ):
            for row in rows:
                found.setdefault((row["pair"], row["align"], row["rule"]), []).append(row[column])
        if len(distances) < FEWEST:
            return None
        pairs = [(np.nanmean(of), np.mean(losses[merge])) for merge, of in distances.items()]
        correlation = correlate_ranks(*np.array(pairs).T)
        if np.isnan(correlation):
            return None
        return (
            f"Over {len(pairs)} merges, the distance of their features from the mixture and their "
            f"loss have a rank correlation of {correlation:.2f}."
        )


def check_rules(rules: Sequence[str | Rule], pairs: Mapping[str, bool]) -> None:
    """Checks the names and options of rules, and that pairs have the base that a rule needs.

    Args:
        rules: names with their options, or rules.
        pairs: name -> whether the pair has a base.

    Raises:
        MergeError: one is unknown, or lacks its base.
    """
    for rule in rules:
        if not isinstance(rule, Rule):
            name, options = read_rule(rule)
            if name not in GIVEN:
                build_rule(name, **options)
        for pair, has_base in pairs.items():
            if needs_base(rule) and not has_base:
                raise MergeError(
                    f"merge rule {str(rule)!r} needs the network that both were fine-tuned from, "
                    f"and pair {pair!r} has none; leave the rule out, or name the base"
                )


def needs_base(rule: str | Rule) -> bool:
    """Returns whether a rule merges what fine-tuning changed."""
    return (type(rule) if isinstance(rule, Rule) else RULES[read_rule(rule)[0]]).needs_base


def measured_key(pair: str, method: str, rules: Sequence[str | Rule]) -> str:
    """Returns the name under which a directory keeps the merges of a pair."""
    digest = hashlib.sha256("\n".join(map(str, rules)).encode()).hexdigest()[:8]
    return f"{pair}-{method}-merge-{digest}"


def diagnose_pair(evaluation: "Evaluation", pair: ModePair, method: str) -> Merges:
    """Merges a pair by all rules of the settings; what the directory has is read from there.

    Rules that need a base are left out where b was aligned: its units are no longer the base's.
    """
    rules, workdir = evaluation.settings.merge, evaluation.workdir
    key = measured_key(pair.name, method, rules)
    if not workdir.has(key):
        kept = [rule for rule in rules if pair.base is not None or not needs_base(rule)]
        words = f"`{pair.name}`" + ("" if method == "none" else f" aligned by {method}")
        table, layers, sentences = [], [], []
        if kept:
            evaluation.reporter.say(f"merging {pair.name}")
            found, where = _diagnose(evaluation, pair, kept), {"pair": pair.name, "align": method}
            table, layers = _tabulate(found, where), _describe_layers(found, where)
            sentences = [f"{words}, merged: {found.paragraph()}"]
        left = [str(rule) for rule in rules if rule not in kept]
        if left:
            sentences.append(
                f"{words} is not merged by {join_words(left)}: task vectors are differences to the "
                "base, in whose order b's units no longer stand."
            )
        workdir.store(key, {"table": table, "sentences": sentences}, layers)
    content, layers = workdir.load(key)
    return Merges([nan_for_none(row) for row in content["table"]], layers, content["sentences"])


def _diagnose(evaluation: "Evaluation", pair: ModePair, chosen: Sequence[str | Rule]) -> Diagnosis:
    data, settings = evaluation.data, evaluation.settings
    tasks: dict[str, Batches] = {k: data[k] for k in ("task_a", "task_b") if k in data}
    if not tasks:  # heads of one's own are judged one by one, on the same data too
        names: tuple[str, ...] = ("task_a", "task_b") if evaluation.heads else ("test",)
        tasks = dict.fromkeys(names, data["test"])
    training = [data.get(f"train_{mode}", evaluation.train_batches) for mode in "ab"]
    rules, statistics = [], {}
    for words in chosen:
        rule = words if isinstance(words, Rule) else _build(words, evaluation, pair)
        rules.append(rule)
        if rule.name in STATISTICS:
            both = zip((pair.a, pair.b), training, strict=True)
            measure = STATISTICS[rule.name]
            statistics[rule.name] = [
                measure(evaluation.network, *of, task=settings.eval.task) for of in both
            ]
    return merging.diagnose(
        evaluation.network,
        [pair.a, pair.b],
        tasks,
        rules,
        pair.base,
        task=settings.eval.task,
        statistics=statistics,
        options=MergeOptions(skip=evaluation.heads),
        progress=evaluation.reporter.task(f"{pair.name}, diagnosing merges"),
    )


def _build(words: str, evaluation: "Evaluation", pair: ModePair) -> Rule:
    """Returns a rule, with what it needs to know of the network or of the data."""
    name, options = read_rule(words)
    if name in ("git_rebasin", "c2m3"):
        x = read_batch(next(iter(evaluation.train_batches))).x
        options["spec"] = symmetry.permutation_spec(evaluation.network.apply, pair.a, x)
    if name == "greedy_soup":
        options["evaluate"] = _TrainingFit(evaluation, pair)
    return build_rule(name, **options)


@dataclasses.dataclass(frozen=True, eq=False)
class _TrainingFit:
    """Minus the mean loss on the training data, which are not those that merges are judged on.

    Where the networks have heads of their own, each is put on in turn, for its own data.
    """

    evaluation: "Evaluation"
    pair: ModePair

    def __call__(self, variables: Variables) -> float:
        """Returns it for a model: more is better."""
        evaluation = self.evaluation
        task, data, heads = evaluation.settings.eval.task, evaluation.data, evaluation.heads
        losses = []
        for name, owner in {"a": self.pair.a, "b": self.pair.b}.items() if heads else [("", None)]:
            model = variables if owner is None else with_heads(variables, owner, heads)
            batches = data.get(f"train_{name}", evaluation.train_batches)
            kernel = functools.partial(_judge, evaluation.network.apply, task, model)
            losses.append(float(task.finish(accumulate(kernel, batches, task=task))["loss"]))
        return -float(np.mean(losses))


@functools.partial(jax.jit, static_argnames=("apply", "task"))
def _judge(
    apply: Apply, task: Task, variables: Variables, x: Inputs, y: Targets, mask: jax.Array
) -> dict[str, Any]:
    return task.sums(apply(variables, x), y, output_mask(apply, variables, x, mask))


def _tabulate(found: Diagnosis, where: Row) -> list[Row]:
    """Returns loss and accuracy of the networks, of their ensemble and of every merge."""
    groups = [
        (("a", "b"), found.model_loss, found.model_accuracy),
        (("ensemble",), found.ensemble_loss[None], found.ensemble_accuracy[None]),
        (found.rules, found.loss, found.accuracy),
    ]
    return [
        where | {"rule": name, "task": task, "loss": float(loss), "accuracy": float(accuracy)}
        for names, losses, accuracies in groups
        for name, of_loss, of_accuracy in zip(names, losses, accuracies, strict=True)
        for task, loss, accuracy in zip(found.tasks, of_loss, of_accuracy, strict=True)
    ]


def _describe_layers(found: Diagnosis, where: Row) -> list[Row]:
    cost = found.cost
    return [
        where
        | {
            "task": task,
            "rule": rule,
            "layer": layer,
            "distance": float(found.distance[i, k, t]),
            "baseline": float(found.baseline[k, t]),
            "gain": float(cost[i, k, t]),
        }
        for i, rule in enumerate(found.rules)
        for t, task in enumerate(found.tasks)
        for k, layer in enumerate(found.layers)
    ]
