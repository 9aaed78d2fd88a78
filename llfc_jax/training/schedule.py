"""Which networks are trained in which epochs, and where each branches off.

All runs are at the same epoch at any time, so that they make one batch of replicas. Which of them
are in the batch is a function of the epoch alone, so a checkpoint needs no more than the states.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
from jaxtyping import Array, Key

from llfc_jax.training.finetuning import FineTuning
from llfc_jax.training.recipe import Rates
from llfc_jax.training.state import TrainState, stack


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """One network's training.

    Attributes:
        name: unique.
        stream: where its randomness comes from. Without a trunk: a seed, then constants that are
            folded into its key. With one: the branch's number.
        trunk: the run from which it branches off; None starts from fresh weights.
        start: epoch at which it leaves its trunk.
        end: epoch at which it stops. One that stops before the last epoch is trained for its
            branches only and not returned.
        rates: peak rate and decay; None for the recipe's or, of a branch, the trunk's.
        keep: whether its state at its end is returned although it ends before the last epoch.
        variant: which of the fine-tuning's variants it is trained on.
        finetuning: the variants; the same for all runs that are trained side by side, None where
            all are trained on the data as they are.
    """

    name: str
    stream: tuple[int, ...]
    trunk: str | None = None
    start: int = 0
    end: int = 0
    rates: Rates | None = None
    keep: bool = False
    variant: int = 0
    finetuning: FineTuning | None = None

    def key(self) -> Key[Array, ""]:
        """Returns the key of a run without a trunk."""
        return functools.reduce(jax.random.fold_in, self.stream[1:], jax.random.key(self.stream[0]))


ForkFn: TypeAlias = Callable[[TrainingRun, TrainState], TrainState]
"""`(branch, its trunk's state) -> the branch's state`."""


@dataclasses.dataclass(frozen=True)
class RunSchedule:
    """The runs that are trained side by side.

    Attributes:
        runs: all of them; a trunk has no trunk itself.
        epochs: length of the training.
    """

    runs: tuple[TrainingRun, ...]
    epochs: int

    def active(self, epoch: int) -> list[TrainingRun]:
        """Returns the runs in the batch from the start of an epoch; after the last, the final ones.

        A run that ends with the training stays in the batch until it is returned.
        """
        return [
            run
            for run in self.runs
            if run.start <= epoch and (epoch < run.end or run.end == self.epochs)
        ]

    def begin(self, create: Callable[[TrainingRun], TrainState], fork: ForkFn) -> TrainState:
        """Returns the stacked states at the start; `create` makes that of a run without a trunk."""
        roots = [run for run in self.runs if run.trunk is None]
        return self.regroup([create(run) for run in roots], roots, 0, fork)

    def regroup(
        self,
        states: Sequence[TrainState],
        runs: Sequence[TrainingRun],
        epoch: int,
        fork: ForkFn,
    ) -> TrainState:
        """Returns the stacked states at the start of an epoch, from those of the runs before it.

        Runs that end are dropped; those that start are made of their trunks by `fork`.
        """
        present = {run.name: state for run, state in zip(runs, states, strict=True)}
        return stack(
            [
                present[run.name]
                if run.trunk is None or run.name in present
                else fork(run, present[run.trunk])
                for run in self.active(epoch)
            ]
        )

    def count_steps(self, done: int, steps_per_epoch: int) -> tuple[int, int]:
        """Returns (steps done, steps in all), summed over the runs, after `done` steps of each."""
        counts = [len(self.active(number)) * steps_per_epoch for number in range(self.epochs)]
        epoch, within = (done - 1) // steps_per_epoch, (done - 1) % steps_per_epoch + 1
        return sum(counts[:epoch]) + counts[epoch] * within // steps_per_epoch, sum(counts)
