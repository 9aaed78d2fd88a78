"""Rules that combine the models' weights linearly: means of several kinds.

The curved ones (SLERP, Karcher mean, geometric median) are linear combinations too, whose
coefficients follow from the inner products <θ_i, θ_j> alone, n × n numbers. So they need one pass
for these numbers and one for the combination, and no more than a leaf of each model at a time.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from llfc_jax.errors import MergeError
from llfc_jax.merging.registry import merge_rule
from llfc_jax.merging.rule import Leaf, LeafRule, Scope, combine

if TYPE_CHECKING:
    from llfc_jax.merging.inputs import MergeInputs

ITERATIONS = 1000  # of a few numbers each; a compiled program takes them all
SMALL = 1e-6  # sine of an angle below which an arc is its chord, to float32's rounding

Gram = Any  # [models, models], of either library
Weights = Any  # [models]


@merge_rule("mean")
@dataclasses.dataclass(frozen=True)
class Mean(LeafRule):
    """Averages the models: θ = (1/n) Σ θ_i; of fine-tuned models, the uniform soup.

    Source: Wortsman et al., "Model soups", ICML 2022.
    """

    takes_complex: ClassVar[bool] = True

    def merge_leaf(self, leaf: Leaf, survey: PyTree) -> Any:
        """Returns the mean."""
        return combine(leaf, [1 / len(leaf.models)] * len(leaf.models))


@merge_rule("weighted")
@dataclasses.dataclass(frozen=True)
class Weighted(LeafRule):
    """Averages the models with weights: θ = Σ w_i θ_i, with Σ w_i = 1.

    Source: Wortsman et al., "Model soups", ICML 2022 (learned soups); for two models the line of
    mode connectivity, α = w_1.

    Attributes:
        weights: w_i, a number for each model; any sign, their sum is made 1 if `normalise`.
        normalise: whether the weights are divided by their sum.
    """

    weights: tuple[float, ...]
    normalise: bool = True

    takes_complex: ClassVar[bool] = True

    def check(self, count: int) -> None:
        """Checks that there is a weight for each model, and that they have a sum to divide by."""
        super().check(count)
        check_per_model(self, "weights", self.weights, count)
        if not isinstance(self.weights, jax.Array) and self.normalise and not sum(self.weights):
            raise MergeError("the weights sum to 0; choose others, or set normalise=False")

    def merge_leaf(self, leaf: Leaf, survey: PyTree) -> Any:
        """Returns the weighted mean, over the weights of the models that have the leaf."""
        weights = [self.weights[i] for i in leaf.holders]
        total = sum(weights[1:], start=weights[0]) if self.normalise else 1
        return combine(leaf, [weight / total for weight in weights])


def check_per_model(rule: LeafRule, option: str, values: Any, count: int) -> None:
    """Checks that an option holds a number for each model.

    Raises:
        MergeError: it holds more or fewer.
    """
    if len(values) != count:
        raise MergeError(
            f"merge rule {rule.name!r}: {option} has {len(values)} numbers for {count} models; "
            "pass one for each"
        )


class CurvedRule(LeafRule):
    """Base of the rules whose coefficients follow from the models' inner products.

    Attributes:
        scope: "leaf" for inner products over each leaf alone, "model" over all leaves together.
        centred: whether the inner products are those of the differences to the first model.
    """

    centred: ClassVar[bool] = False

    def survey(self, models: "MergeInputs") -> Any:
        """Returns the coefficient of each model, from one pass.

        Raises:
            MergeError: the scope is the model, and one lacks a leaf that is merged.
        """
        if self.scope == "model":
            models.check_whole(self.name)
        total: Any = 0
        for leaf in models.leaves():
            total = total + leaf.gram(self.centred)
        return self.coefficients(total, np if models.on_host else jnp)

    def merge_leaf(self, leaf: Leaf, survey: PyTree) -> Any:
        """Returns the combination."""
        return combine(leaf, list(survey))

    @abc.abstractmethod
    def coefficients(self, gram: Gram, xp: ModuleType) -> Weights:
        """Returns the coefficient of each model from all inner products."""


@merge_rule("slerp")
@dataclasses.dataclass(frozen=True)
class Slerp(CurvedRule):
    """Interpolates two models along an arc, by spherical linear interpolation.

    With Ω the angle between them, θ = (sin((1 - t) Ω) θ_1 + sin(t Ω) θ_2) / sin Ω. Where Ω is 0
    or π, or one of them is 0, there is no arc, and θ is the point of the straight line.

    Source: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985.

    Attributes:
        t: place on the arc, a share: 0 is the first model, 1 the second.
        scope: "leaf" for the angle within each leaf, "model" for one of whole models.
    """

    t: float = 0.5
    scope: Scope = "leaf"

    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {"t": (0, 1)}

    def check(self, count: int) -> None:
        """Checks that there are two models."""
        if count != 2:
            raise MergeError(f"merge rule 'slerp' takes two models, not {count}; try 'karcher'")

    def coefficients(self, gram: Gram, xp: ModuleType) -> Weights:
        """Returns sin((1 - t) Ω) / sin Ω and sin(t Ω) / sin Ω."""
        cosine = _cosines(gram, xp)[0, 1]
        sine = xp.sqrt(xp.maximum(1 - cosine**2, 0))
        angle = xp.arctan2(sine, cosine)
        shares = xp.stack([xp.asarray(1 - self.t), xp.asarray(self.t)])
        curved = (sine > SMALL) & (xp.diagonal(gram) > 0).all()
        return xp.where(curved, xp.sin(shares * angle) / xp.where(curved, sine, 1), shares)


@merge_rule("karcher")
@dataclasses.dataclass(frozen=True)
class KarcherMean(CurvedRule):
    """Averages the models on the sphere: the mean length times the Karcher mean direction.

    The direction u minimises the sum of squared angles Σ ∠(u, θ_i)²; for two models it is SLERP's
    half-way direction. Where a model is 0 it has no direction, and θ is the plain mean.

    Source: Karcher, "Riemannian center of mass and mollifier smoothing", 1977; Grove and Karcher
    1973.

    Attributes:
        scope: "leaf" for a direction of each leaf, "model" for one of whole models.
    """

    scope: Scope = "leaf"

    def coefficients(self, gram: Gram, xp: ModuleType) -> Weights:
        """Returns the coefficients by gradient descent on the sphere, step 1."""
        cosines, count = _cosines(gram, xp), gram.shape[0]
        lengths = xp.sqrt(xp.diagonal(gram))

        def step(direction: Weights) -> Weights:
            inner = xp.clip(cosines @ direction, -1, 1)
            sine = xp.sqrt(1 - inner**2)
            flat = sine < SMALL
            ratio = xp.where(flat, 1, xp.arctan2(sine, inner) / xp.where(flat, 1, sine))
            tangent = (ratio - (ratio * inner).sum() * direction) / count
            length = xp.sqrt(xp.maximum(tangent @ cosines @ tangent, 0))
            moved = xp.cos(length) * direction + xp.sinc(length / np.pi) * tangent
            square = moved @ cosines @ moved
            return moved / xp.sqrt(xp.where(square > 0, square, 1))

        even = xp.full(count, 1 / count)
        square = even @ cosines @ even
        defined = (lengths > 0).all() & (square > SMALL**2)
        start = even / xp.sqrt(xp.where(defined, square, 1))
        direction = iterate(step, start, xp)
        found = lengths.mean() * direction / xp.where(lengths > 0, lengths, 1)
        return xp.where(defined, found, even)


@merge_rule("geometric_median")
@dataclasses.dataclass(frozen=True)
class GeometricMedian(CurvedRule):
    """Takes the point with the least sum of distances to the models: argmin_θ Σ |θ - θ_i|.

    Unlike the mean it stays near the others when one model is far off. Between two models, or the
    middle two of an even number in a row, every point has that sum, and θ is their mean. Found by
    Weiszfeld's iteration, begun as Vardi and Zhang do, so that it does not stop at a model that is
    not the median.

    Source: Weiszfeld 1937; Vardi and Zhang, "The multivariate L1-median", PNAS 2000; for models,
    Pillutla et al., "Robust aggregation for federated learning", 2022.

    Attributes:
        scope: "leaf" for a median of each leaf, "model" for one of whole models.
    """

    scope: Scope = "leaf"

    centred: ClassVar[bool] = True

    def coefficients(self, gram: Gram, xp: ModuleType) -> Weights:
        """Returns each model's share, from their distances."""
        count = gram.shape[0]
        even = xp.full(count, 1 / count)
        if count < 3:
            return even
        squares = xp.diagonal(gram)
        squares = xp.maximum(squares[:, None] + squares[None] - 2 * gram, 0)
        largest = squares.max()
        squares = squares / xp.where(largest > 0, largest, 1)
        distances = xp.sqrt(squares)

        def step(weights: Weights) -> Weights:
            inverse = 1 / xp.sqrt(xp.maximum(_squared_distances(weights, squares), tiny))
            return inverse / inverse.sum()

        tiny = xp.finfo(squares.dtype).tiny
        sums = distances.sum(1)
        best = xp.argmin(sums)
        there = distances[best] == 0
        away = xp.where(there, 0, 1 / xp.where(there, 1, distances[best]))
        others = away / xp.where(away.sum() > 0, away.sum(), 1)
        pull = away.sum() * xp.sqrt(xp.maximum(_squared_distances(others, squares)[best], 0))
        stay = there.sum() / xp.where(pull > 0, pull, 1)
        at_best = there / there.sum()
        slack = 1 + 8 * xp.finfo(sums.dtype).eps
        optimal = (pull <= there.sum() * slack) | (largest == 0)
        start = xp.where(optimal, even, (1 - stay) * others + stay * at_best)
        medians = sums <= sums.min() * slack  # one, or a tie
        return xp.where(optimal, medians / medians.sum(), iterate(step, start, xp))


def _cosines(gram: Gram, xp: ModuleType) -> Gram:
    """Returns the cosines between the models; 0 for one that is 0."""
    lengths = xp.sqrt(xp.diagonal(gram))
    lengths = xp.where(lengths > 0, lengths, 1)
    return xp.clip(gram / lengths[:, None] / lengths[None], -1, 1)


def _squared_distances(weights: Weights, squares: Gram) -> Weights:
    """Returns |Σ w_j θ_j - θ_i|² of every i, from the squared distances between the models."""
    return squares @ weights - weights @ squares @ weights / 2


def iterate(step: Callable[[Weights], Weights], start: Weights, xp: ModuleType) -> Weights:
    """Returns where an iteration on a few numbers ends: at a fixed point, or after `ITERATIONS`."""
    if xp is jnp:
        return jax.lax.fori_loop(0, ITERATIONS, lambda _, at: step(at), start)
    at = start
    for _ in range(ITERATIONS):
        before, at = at, step(at)
        if np.abs(at - before).max() < 1e-15:
            break
    return at
