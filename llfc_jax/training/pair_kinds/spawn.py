"""Spawned pairs (Frankle et al. 2020): two branches of one network."""

import dataclasses

from llfc_jax.errors import ConfigError
from llfc_jax.training.pair_kinds.registry import PairOrigin, pair_kind
from llfc_jax.training.schedule import TrainingRun

TRUNK_STREAM = 0  # of a seed


@pair_kind("spawn_k<epoch>")
@dataclasses.dataclass(frozen=True)
class Spawn:
    """Trains one network for some epochs, then two copies of it with different randomness.

    Attributes:
        epoch: at whose start the copies branch off; 0 shares the first weights only.
    """

    epoch: int

    def check(self, epochs: int) -> None:
        """Checks that the copies branch off before the end of training."""
        if self.epoch > epochs:
            raise ConfigError(
                f"pair 'spawn_k{self.epoch}' forks after the end of training ({epochs} epochs)"
            )

    def make_runs(self, name: str, origin: PairOrigin) -> list[TrainingRun]:
        """Returns the trunk, which all spawned pairs of a seed share, and the two branches."""
        trunk, end = f"{origin.root}/trunk", origin.epochs
        stream = (origin.seed, TRUNK_STREAM)
        return [
            TrainingRun(trunk, stream, end=self.epoch, rates=origin.rates),
            TrainingRun(f"{origin.root}/{name}/a", (0,), trunk, start=self.epoch, end=end),
            TrainingRun(f"{origin.root}/{name}/b", (1,), trunk, start=self.epoch, end=end),
        ]

    def describe(self, epochs: int) -> str:
        """Returns what the two networks have in common."""
        shared = "epoch" if self.epoch == 1 else f"{self.epoch} epochs"
        return (
            f"two networks that share the first {shared} of {epochs} and then see the data in "
            "different orders"
        )

    @property
    def shared_epochs(self) -> int | None:
        """Epochs of training that both networks share."""
        return self.epoch
