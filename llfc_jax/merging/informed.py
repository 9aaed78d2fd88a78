"""Rules that know more of each model than its weights: curvatures, and inputs of layers."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import PyTree

from llfc_jax.errors import MergeError
from llfc_jax.merging.averages import check_per_model
from llfc_jax.merging.registry import merge_rule
from llfc_jax.merging.rule import Leaf, LeafRule, combine
from llfc_jax.merging.statistics import InputGram
from llfc_jax.types import AnyArray


@merge_rule("fisher")
@dataclasses.dataclass(frozen=True)
class FisherWeighted(LeafRule):
    """Averages each entry with the models' Fisher information as weights.

    θ = Σ w_i F_i θ_i / Σ w_i F_i per entry, F_i the diagonal of model i's Fisher information
    (`fisher_diagonal`); where all F_i are 0, the mean with weights w_i.

    Source: Matena and Raffel, "Merging models with Fisher-weighted averaging", NeurIPS 2022.

    Attributes:
        weights: w_i, a number above 0 for each model; all equal if None.
    """

    weights: tuple[float, ...] | None = None

    needs_statistics: ClassVar[str] = "the diagonal of its Fisher information (fisher_diagonal)"
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {"weights": (1e-12, np.inf)}

    def check(self, count: int) -> None:
        """Checks that there is a weight for each model."""
        super().check(count)
        if self.weights is not None:
            check_per_model(self, "weights", self.weights, count)

    def check_statistics(
        self, name: str, shapes: Sequence[tuple[int, ...]], statistics: Sequence[Any]
    ) -> None:
        """Checks that each model has Fisher information of the leaf's shape."""
        for shape, found in zip(shapes, statistics, strict=True):
            if found is None or np.shape(found) != shape:
                raise MergeError(
                    f"statistics has shape {None if found is None else np.shape(found)} for "
                    f"{name}, which has {shape}; pass fisher_diagonal of each model"
                )

    def merge_leaf(self, leaf: Leaf, survey: PyTree) -> Any:
        """Returns the weighted mean per entry."""
        xp, kind = leaf.xp, leaf.models[0].dtype
        given = self.weights
        shares = [1.0 if given is None else given[i] for i in leaf.holders]
        fishers = [xp.asarray(f).astype(kind) for f in leaf.statistics or ()]
        largest = fishers[0]
        for fisher in fishers[1:]:
            largest = xp.maximum(largest, fisher)
        known = largest > 0
        largest = xp.where(known, largest, 1)
        weights = [share * xp.where(known, fisher / largest, 1)
                   for share, fisher in zip(shares, fishers, strict=True)]  # fmt: skip
        first, *rest = leaf.models
        moved = sum(w * (model - first) for w, model in zip(weights[1:], rest, strict=True))
        return first + moved / sum(weights)


@merge_rule("regmean")
@dataclasses.dataclass(frozen=True)
class RegMean(LeafRule):
    """Makes each linear layer the least-squares fit to the models' own outputs on their inputs.

    W = (Σ G_i)^-1 Σ G_i W_i minimises Σ_i E |W^T x - W_i^T x|² over the inputs x of model i's
    layer, with G_i = E x x^T (`input_grams`), whose entries off the diagonal are multiplied by
    `shrink`. All other leaves are averaged, and so are directions that no input has.

    Source: Jin et al., "Dataless knowledge fusion by merging weights of language models", ICLR
    2023.

    Attributes:
        shrink: factor of the entries off the diagonal; α in the paper, which finds 0.9 good.
    """

    shrink: float = 0.9

    whole_leaves: ClassVar[bool] = True
    needs_statistics: ClassVar[str] = "the Gram matrices of its layers' inputs (input_grams)"
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {"shrink": (0, 1)}

    def check_statistics(
        self, name: str, shapes: Sequence[tuple[int, ...]], statistics: Sequence[Any]
    ) -> None:
        """Checks that the Gram matrices fit the leaf."""
        for shape, found in zip(shapes, statistics, strict=True):
            if found is None:
                continue
            inside = isinstance(found, InputGram) and all(a < len(shape) for a in found.axes)
            size = int(np.prod([shape[axis] for axis in found.axes])) if inside else 0
            if not inside or np.shape(found.matrix) != (size, size):
                raise MergeError(f"statistics of {name} do not fit its shape {shape}; pass "
                                 "input_grams of each model")  # fmt: skip

    def merge_leaf(self, leaf: Leaf, survey: PyTree) -> Any:
        """Returns mean + (Σ G_i)^-1 Σ G_i (W_i - mean)."""
        mean = combine(leaf, [1 / len(leaf.models)] * len(leaf.models))
        if leaf.statistics is None:
            return mean
        xp, axes = leaf.xp, leaf.statistics[0].axes
        front = range(len(axes))
        wide = np.float64 if xp is np else mean.dtype
        total, moved = 0, 0
        for model, gram in zip(leaf.models, leaf.statistics, strict=True):
            matrix = self._shrunk(xp.asarray(gram.matrix).astype(wide), xp)
            gap = xp.moveaxis(model - mean, axes, front)
            total, moved = total + matrix, moved + matrix @ gap.reshape(matrix.shape[0], -1)
        shift = self._solve(total, moved, xp).astype(mean.dtype)
        shape = xp.moveaxis(mean, axes, front).shape
        return mean + xp.moveaxis(shift.reshape(shape), front, axes)

    def _shrunk(self, matrix: AnyArray, xp: ModuleType) -> Any:
        return self.shrink * matrix + (1 - self.shrink) * xp.diag(xp.diagonal(matrix))

    def _solve(self, total: Any, moved: Any, xp: ModuleType) -> Any:
        """Returns total^-1 moved, 0 in the directions that no input has."""
        if not isinstance(self.shrink, jax.Array) and self.shrink < 1:  # then it is definite
            unused = xp.diagonal(total) <= 0
            return xp.linalg.solve(total + xp.diag(unused.astype(total.dtype)), moved)
        values, vectors = xp.linalg.eigh(total)
        used = values > values.max() * total.shape[0] * xp.finfo(total.dtype).eps
        inverse = xp.where(used, 1 / xp.where(used, values, 1), 0)
        return vectors @ (inverse[:, None] * (vectors.T @ moved))
