"""Training loss and accuracy by epoch, as a result that the report can show and save."""

from collections.abc import Mapping

import numpy as np

from llfc_jax.results import Result, axes, labels, result
from llfc_jax.training.state import TrainState


@result
class History(Result):
    """Training loss and accuracy of some networks, by epoch.

    Attributes:
        run: names of the networks.
        epoch: 1, 2, ...
        loss: mean training loss over the epoch, while the weights moved; NaN from the epoch of
            divergence on.
        accuracy: share of training samples that were predicted rightly when they were used; NaN
            where the task has no such thing.
        diverged: epoch in which loss or gradient stopped being finite, 0 if never; the network
            is as it was before that step.
    """

    run: tuple[str, ...] = labels("run")
    epoch: tuple[int, ...] = labels("epoch")
    loss: np.ndarray = axes("run", "epoch")
    accuracy: np.ndarray = axes("run", "epoch")
    diverged: np.ndarray = axes("run")


def make_history(
    states: Mapping[str, TrainState], steps_per_epoch: int, batch_size: int
) -> History:
    """Returns the history of trained networks, by name."""

    def gather(name: str) -> np.ndarray:
        return np.stack([np.asarray(getattr(state, name)) for state in states.values()])

    loss = gather("loss") / steps_per_epoch
    accuracy = gather("correct").astype(np.float64) / (steps_per_epoch * batch_size)
    epochs = np.arange(1, loss.shape[1] + 1)
    diverged = np.where(gather("alive"), 0, gather("step") // steps_per_epoch + 1)
    is_over = (diverged[:, None] > 0) & (epochs >= diverged[:, None])
    return History(
        run=tuple(states),
        epoch=tuple(epochs.tolist()),
        loss=np.where(is_over, np.nan, loss),
        accuracy=np.where(is_over, np.nan, accuracy),
        diverged=diverged,
    )
