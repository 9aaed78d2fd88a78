"""Models side by side, leaf by leaf: what every rule merges.

Leaves that lie in files are read one at a time, when they are merged.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from llfc_jax.errors import MergeError
from llfc_jax.matching.placement import on_host
from llfc_jax.merging.reading import merge_slot, read_blocks, wide_dtype
from llfc_jax.merging.rule import Leaf, LeafRule
from llfc_jax.merging.slot import Slot
from llfc_jax.types import Variables


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MergeInputs:
    """Several models, leaf by leaf, ready to be merged; a pytree of their arrays.

    Attributes:
        slots: the leaves of the first model, in tree order.
        structure: the first model's structure.
        count: the number of models.
    """

    slots: tuple[Slot, ...]
    structure: Any = dataclasses.field(metadata={"static": True})
    count: int = dataclasses.field(metadata={"static": True})

    @property
    def to_merge(self) -> list[Slot]:
        """The slots that are merged, tied ones once."""
        return [slot for slot in self.slots if slot.merged and not slot.tied_to]

    @property
    def on_host(self) -> bool:
        """Whether all that is merged lies in the memory of a CPU, or in files."""
        arrays = [leaf for slot in self.to_merge for leaf in (*slot.sources, slot.statistics)]
        arrays = [leaf for leaf in jax.tree.leaves(arrays) if isinstance(leaf, jax.Array)]
        return not arrays or on_host(arrays)

    @property
    def sizes(self) -> list[int]:
        """How many entries of each model are merged."""
        return [sum(slot.size for slot in self.to_merge if i in slot.holders)
                for i in range(self.count)]  # fmt: skip

    @property
    def dtype(self) -> np.dtype:
        """The type in which entries of all leaves can be compared."""
        return np.result_type(np.float32, *map(wide_dtype, self.to_merge))

    def check_whole(self, rule: str) -> None:
        """Checks that every model has every leaf that is merged.

        Raises:
            MergeError: one lacks a leaf.
        """
        for slot in self.to_merge:
            lacking = set(range(self.count)) - set(slot.holders)
            if lacking:
                raise MergeError(
                    f"models[{min(lacking)}] lacks {slot.name}, but merge rule {rule!r} compares "
                    "whole models; name the leaf in skip"
                )

    def leaves(self) -> Iterator[Leaf]:
        """Yields each leaf that is merged, widened, in blocks where it lies on the host."""
        host = self.on_host
        for slot in self.to_merge:
            yield from read_blocks(slot, host, whole=False)

    def only(self, slot: Slot) -> "MergeInputs":
        """Returns the same with one leaf alone."""
        return dataclasses.replace(self, slots=(slot,))

    def merged(self, rule: LeafRule) -> Iterator[tuple[Slot, Any]]:
        """Yields each slot with its leaf of the merged model, in tree order.

        Raises:
            MergeError: a model holds NaN or infinity, or a merged leaf is beyond its type.
        """
        host = self.on_host
        of_models = _survey(rule, self) if rule.scope == "model" else None
        ties = {slot.tied_to for slot in self.slots}
        done: dict[str, Any] = {}
        for slot in self.slots:
            if not slot.merged:
                yield slot, slot.kept
                continue
            if slot.tied_to:
                yield slot, done[slot.tied_to]
                continue
            survey = of_models if rule.scope == "model" else _survey(rule, self.only(slot))
            with jax.default_matmul_precision("highest"):
                merged = merge_slot(slot, rule, survey, host)
            if slot.name in ties:
                done[slot.name] = merged
            yield slot, merged

    def build(self, rule: LeafRule) -> Variables:
        """Returns the merged model."""
        return jax.tree.unflatten(self.structure, [leaf for _, leaf in self.merged(rule)])

    def choose(self, models: Sequence[int]) -> "MergeInputs":
        """Returns these models alone, by their places; each has every leaf that is merged."""
        chosen = tuple(
            dataclasses.replace(
                slot,
                leaves=tuple(slot.leaves[i] for i in models) if slot.merged else slot.leaves,
                holders=tuple(range(len(models))) if slot.merged else slot.holders,
            )
            for slot in self.slots
        )
        return dataclasses.replace(self, slots=chosen, count=len(models))

    def tree(self, model: int) -> Variables:
        """Returns one model, with the leaves of the result."""
        leaves = [slot.leaves[slot.holders.index(model)] if slot.merged else slot.kept
                  for slot in self.slots]  # fmt: skip
        return jax.tree.unflatten(self.structure, leaves)

    def replace_trees(self, trees: Sequence[Variables]) -> "MergeInputs":
        """Returns the same with other leaves, of every model."""
        leaves = zip(*map(jax.tree.leaves, trees), strict=True)
        slots = [dataclasses.replace(slot, leaves=of, holders=tuple(range(self.count)))
                 for slot, of in zip(self.slots, leaves, strict=True)]  # fmt: skip
        return dataclasses.replace(self, slots=tuple(slots))


def _survey(rule: LeafRule, models: MergeInputs) -> Any:
    """Returns what a rule needs to know, in full precision also where products default to less."""
    with jax.default_matmul_precision("highest"):
        return rule.survey(models)
