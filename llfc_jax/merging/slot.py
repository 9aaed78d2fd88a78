"""A leaf of the merged model, and where it comes from."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slot:
    """A leaf of the result, and where it comes from.

    Attributes:
        leaves: the leaf in each model that has it; the first model is always one of them.
        base: the leaf in the base; None where that lacks it.
        statistics: what the rule needs to know of the leaf in each of these models; None for
            nothing.
        name: its path.
        holders: which models have it, by their place in the list.
        merged: whether it is merged; else it is `kept`.
        from_base: whether it is the base's where it is kept.
        common: the shape of what all have in common, where their shapes differ.
        tied_to: the path of the leaf that it is tied to, in every model; "" for none.
    """

    leaves: tuple[Any, ...]
    base: Any
    statistics: tuple[Any, ...] | None
    name: str = dataclasses.field(metadata={"static": True})
    holders: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    merged: bool = dataclasses.field(metadata={"static": True})
    from_base: bool = dataclasses.field(metadata={"static": True})
    common: tuple[int, ...] | None = dataclasses.field(metadata={"static": True})
    tied_to: str = dataclasses.field(metadata={"static": True})

    @property
    def kept(self) -> Any:
        """The leaf as it stays where it is not merged."""
        return self.base if self.from_base else self.leaves[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what is merged."""
        return np.shape(self.leaves[0]) if self.common is None else self.common

    @property
    def size(self) -> int:
        """The number of entries that are merged."""
        return math.prod(self.shape)

    @property
    def sources(self) -> tuple[Any, ...]:
        """All leaves that are read to merge it."""
        return self.leaves if self.base is None else (*self.leaves, self.base)
