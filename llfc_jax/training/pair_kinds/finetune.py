"""Fine-tuned pairs: one network, trained on in two ways (cross-task linearity's setting)."""

import dataclasses

from llfc_jax.errors import ConfigError
from llfc_jax.training.pair_kinds.registry import PairOrigin, pair_kind
from llfc_jax.training.pair_kinds.spawn import TRUNK_STREAM
from llfc_jax.training.schedule import TrainingRun


@pair_kind("finetune_k<epoch>")
@pair_kind("finetune_k<epoch>_<first>_<second>")
@dataclasses.dataclass(frozen=True)
class FineTune:
    """Trains one network for some epochs, or reads it, then copies of it on tasks of their own.

    The copies begin with a fresh optimiser; the schedule of the learning rate runs on.

    Source: Zhou et al., "On the emergence of cross-task linearity in the pretraining-finetuning
    paradigm", ICML 2024.

    Attributes:
        epoch: for how many epochs the base is trained; 0 takes it as it is read.
        first: which of the tasks (`FineTuning.tasks`) a is fine-tuned on.
        second: the same of b.
    """

    epoch: int
    first: int = 0
    second: int = 1

    def check(self, epochs: int) -> None:
        """Checks that there are epochs left to fine-tune in."""
        if self.epoch >= epochs:
            raise ConfigError(
                f"pair 'finetune_k{self.epoch}' leaves no epoch of {epochs} to fine-tune in"
            )
        if self.first == self.second:
            raise ConfigError(f"a pair needs two fine-tunings, not {self.first} twice")

    def make_runs(self, name: str, origin: PairOrigin) -> list[TrainingRun]:
        """Returns the base, which all fine-tunings of a seed share, and the two fine-tunings.

        Raises:
            ConfigError: there is no such task.
        """
        finetuning = origin.finetuning
        if max(self.first, self.second) >= len(finetuning.tasks):
            raise ConfigError(
                f"pair {name!r} names a task that there is not: finetune.tasks has "
                f"{len(finetuning.tasks)}, numbered from 0"
            )
        base = f"{origin.root}/base_k{self.epoch}"
        stream = (origin.seed, TRUNK_STREAM)
        return [
            TrainingRun(base, stream, end=self.epoch, rates=origin.rates, keep=True,
                        finetuning=finetuning),
            *(TrainingRun(f"{base}/{task}", (task,), base, self.epoch, origin.epochs,
                          variant=task + 1, finetuning=finetuning)
              for task in (self.first, self.second)),
        ]  # fmt: skip

    def describe(self, epochs: int) -> str:
        """Returns what the two networks have in common."""
        base = f"trained for {self.epoch} of {epochs} epochs" if self.epoch else "as it was read"
        return f"tasks {self.first} and {self.second}, fine-tuned from one network {base}"

    @property
    def shared_epochs(self) -> int | None:
        """Epochs of training that both networks share."""
        return self.epoch
