"""Independent pairs: two networks that share nothing but the recipe."""

import dataclasses

from llfc_jax.training.pair_kinds.registry import PairOrigin, pair_kind
from llfc_jax.training.schedule import TrainingRun

STREAMS = (1, 2)  # of a seed; 0 is the trunk's


@pair_kind("independent")
@dataclasses.dataclass(frozen=True)
class Independent:
    """Trains two networks from different random weights, with different data orders."""

    def check(self, epochs: int) -> None:
        """Fits any training."""

    def make_runs(self, name: str, origin: PairOrigin) -> list[TrainingRun]:
        """Returns the two runs."""
        return [
            TrainingRun(
                f"{origin.root}/{name}/{mode}",
                (origin.seed, stream),
                end=origin.epochs,
                rates=origin.rates,
            )
            for mode, stream in zip("ab", STREAMS, strict=True)
        ]

    def describe(self, epochs: int) -> str:
        """Returns what the two networks have in common."""
        return "two networks trained from different random weights"

    @property
    def shared_epochs(self) -> int | None:
        """None: the networks do not even share their first weights."""
        return None
