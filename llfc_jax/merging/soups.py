"""Soups chosen by how the merged model does on held-out data."""

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from llfc_jax.errors import MergeError
from llfc_jax.merging.averages import Mean
from llfc_jax.merging.registry import merge_rule
from llfc_jax.merging.rule import Rule
from llfc_jax.types import Variables

if TYPE_CHECKING:
    from llfc_jax.merging.inputs import MergeInputs


@merge_rule("greedy_soup")
@dataclasses.dataclass(frozen=True)
class GreedySoup(Rule):
    """Averages the models that help: each is added, best first, if the mean is then no worse.

    The models are evaluated alone and sorted; then each joins the mean where that does not lower
    the metric. Unlike the other rules it makes whole models, one for each of n - 1 evaluations
    after the first n.

    Source: Wortsman et al., "Model soups", ICML 2022, recipe 1.

    Attributes:
        evaluate: variables -> a metric on held-out data, such as accuracy.
        higher_is_better: whether more of it is better; False for a loss.
    """

    evaluate: Callable[[Variables], Any]
    higher_is_better: bool = True

    def merge(self, models: "MergeInputs") -> Variables:
        """Returns the mean of the chosen models.

        Raises:
            MergeError: the metric is NaN, or a model lacks a leaf that is merged.
        """
        models.check_whole(self.name)
        scores = [self._score(models, [i]) for i in range(models.count)]
        order = sorted(range(models.count), key=lambda i: -scores[i])
        chosen, best = order[:1], scores[order[0]]
        for i in order[1:]:
            score = self._score(models, [*chosen, i])
            if score >= best:
                chosen, best = [*chosen, i], score
        return models.choose(sorted(chosen)).build(Mean())

    def _score(self, models: "MergeInputs", chosen: list[int]) -> float:
        found = self.evaluate(models.choose(sorted(chosen)).build(Mean()))
        if np.shape(found) != () or isinstance(found, (str, bytes)):
            raise MergeError(f"evaluate must return one number, not {found!r}")
        score = float(found)
        if math.isnan(score):
            raise MergeError(f"evaluate gives NaN for the mean of models {sorted(chosen)}")
        return score if self.higher_is_better else -score
