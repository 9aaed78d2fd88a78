"""Kinds of pairs: ways to train two networks that are then compared, by name.

To add one, write a file like `spawn.py` and import it here.
"""

from llfc_jax.training.pair_kinds import finetune, independent, spawn
from llfc_jax.training.pair_kinds.registry import (
    PAIR_KINDS,
    PairKind,
    PairOrigin,
    pair_kind,
    parse_pair_name,
)

__all__ = [
    "PAIR_KINDS",
    "PairKind",
    "PairOrigin",
    "finetune",
    "independent",
    "pair_kind",
    "parse_pair_name",
    "spawn",
]
